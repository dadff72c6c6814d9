"""Refused packets of an instance -> a few rules that would have allowed them, for a person to judge.

A peer is a group where one fits what was seen, else a network, as narrow as possible; packets that no rule can allow
are named. The answer does not depend on the order in which packets were seen.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from ringfence.policy.commands import GroupReference, RuleDraft
from ringfence.policy.insight.address_axis import INTERNET, position
from ringfence.policy.model import Group, Instance, PeerAddresses
from ringfence.policy.packet import ICMP, ICMPV6, Packet
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import (
    PROTOCOL_NUMBER,
    Address,
    Cidr,
    Direction,
    Icmp,
    Network,
    Protocol,
    Visibility,
)

MANY: Final = 8  # more public addresses than this become the whole internet
FEW: Final = 3  # more private addresses of one network (size below) than this become that network
_LINK_SIZE: Final = {4: 24, 6: 64}
_PROTOCOLS: Final = {number: protocol for protocol, number in PROTOCOL_NUMBER.items()}
_CODES: Final = 256
_Peer = Cidr | GroupReference
_Service = tuple[Direction, Protocol, int]  # the last is the port, or type * 256 + code, or 0


@dataclass(frozen=True, slots=True)
class Seen:
    """A first packet that an instance's rules did not allow; ``packets`` is how often it was seen."""

    direction: Direction
    packet: Packet
    packets: int = 1

    @property
    def peer(self) -> Address:
        return self.packet.source if self.direction is Direction.INGRESS else self.packet.destination


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Rules for a new group of the instance; ``unsayable``: what no rule can allow, and how many packets of it."""

    rules: tuple[RuleDraft, ...]
    unsayable: tuple[tuple[str, int], ...] = ()


def suggest(snapshot: Snapshot, instance: Instance, seen: Iterable[Seen]) -> Suggestion:
    """The rules that let everything of ``seen`` pass on the instance's side. O(seen + groups * members)."""
    asked: dict[_Service, Counter[Address]] = defaultdict(Counter)
    unsayable: Counter[str] = Counter()
    for one in seen:
        service = _service_of(one)
        if service is None:
            unsayable[f"protocol {one.packet.protocol} over IPv{one.packet.family}"] += one.packets
        else:
            asked[service][one.peer] += one.packets
    peers = _Peers(snapshot, instance)
    by_peer: dict[tuple[Direction, Protocol, _Peer], Counter[int]] = defaultdict(Counter)
    for (direction, protocol, number), who in asked.items():
        for peer, packets in peers.cover(who):
            by_peer[direction, protocol, peer][number] += packets
    rules = [rule for key, numbers in by_peer.items() for rule in _rules(*key, numbers)]
    return Suggestion(tuple(sorted(rules, key=_order)), tuple(sorted(unsayable.items())))


def _service_of(seen: Seen) -> _Service | None:
    packet = seen.packet
    protocol = _PROTOCOLS.get(packet.protocol)
    if protocol is None or (packet.protocol, packet.family) in ((ICMP, 6), (ICMPV6, 4)):
        return None
    number = packet.destination_port if protocol.has_ports else 0
    if protocol.has_types:
        number = packet.icmp_type * _CODES + packet.icmp_code
    return seen.direction, protocol, number


class _Peers:
    """Finds the peers that addresses stand for in rules of one instance's organisation."""

    def __init__(self, snapshot: Snapshot, instance: Instance) -> None:
        default = snapshot.organisations[instance.organisation].default_group
        index = index_of(snapshot)
        self._own = frozenset(instance.addresses)
        # Every new instance wears the default group, so it says nothing about a peer.
        self._groups = [
            (group, index.peer(group.id))
            for group in sorted(snapshot.groups.values(), key=lambda one: (one.name, one.id))
            if group.id != default and (group.organisation == instance.organisation or _is_public(group))
        ]

    def cover(self, who: Counter[Address]) -> Iterator[tuple[_Peer, int]]:
        """Peers that together contain all of ``who``, and how many packets each stands for."""
        left = set(who)
        while left and (best := self._best(left)):
            group, members = best
            covered = {address for address in left if address in members}
            yield GroupReference(None, group.name, group.visibility), sum(who[address] for address in covered)
            left -= covered
        for network, addresses in _networks(left):
            yield Cidr(str(network), network), sum(who[address] for address in addresses)

    def _best(self, left: set[Address]) -> tuple[Group, PeerAddresses] | None:
        """The group with most of ``left``; half of its addresses must have been seen, or it allows too much."""
        best, found = (0, 0), None
        for group, members in self._groups:
            covered = sum(address in members for address in left)
            unseen = len(members.members - left - self._own) + sum(
                not any(address in source for address in left) for source in members.sources
            )
            if covered and covered >= unseen and (covered, -unseen) > best:
                best, found = (covered, -unseen), (group, members)
        return found


def _is_public(group: Group) -> bool:
    return group.visibility is Visibility.PUBLIC


def _networks(addresses: set[Address]) -> Iterator[tuple[Network, list[Address]]]:
    """Networks that contain all ``addresses``: the whole of a family, a private network, or single addresses."""
    for family in (4, 6):
        here = sorted(address for address in addresses if address.version == family)
        public = [address for address in here if position(address) in INTERNET]
        if len(public) > MANY:
            yield ip_network("0.0.0.0/0" if family == 4 else "::/0"), here  # noqa: PLR2004  a family
            continue
        links: dict[Network, list[Address]] = defaultdict(list)
        for address in here:
            size = address.max_prefixlen if position(address) in INTERNET else _LINK_SIZE[family]
            links[ip_network(f"{address}/{size}", strict=False)].append(address)
        for link, members in links.items():
            if len(members) > FEW:
                yield link, members
            else:
                yield from ((ip_network(address), [address]) for address in members)


def _rules(direction: Direction, protocol: Protocol, peer: _Peer, numbers: Counter[int]) -> Iterator[RuleDraft]:
    if protocol.has_ports:
        for first, last in _runs(sorted(numbers)):
            packets = sum(numbers[port] for port in range(first, last + 1))
            yield RuleDraft(direction, protocol, peer, first, last, description=_note(packets))
        return
    for number, packets in numbers.items():
        icmp = Icmp(*divmod(number, _CODES)) if protocol.has_types else None
        yield RuleDraft(direction, protocol, peer, icmp=icmp, description=_note(packets))


def _note(packets: int) -> str:
    return f"seen {packets} times" if packets > 1 else "seen once"


def _runs(ports: list[int]) -> Iterator[tuple[int, int]]:
    """Consecutive ports as ranges, both ends included."""
    first = last = ports[0]
    for port in ports[1:]:
        if port != last + 1:
            yield first, last
            first = port
        last = port
    yield first, last


def _order(rule: RuleDraft) -> tuple[object, ...]:
    peer = rule.peer
    named = isinstance(peer, GroupReference)
    numbers = (rule.start_port or 0, rule.icmp.type if rule.icmp else 0, rule.icmp.code if rule.icmp else 0)
    return rule.direction is Direction.EGRESS, rule.protocol.value, numbers, not named, str(peer)
