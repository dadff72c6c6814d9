"""A question in words ("app db tcp/5432") -> the verdict in words: each side's, by which rule, and what is missing.

Pure: reads a snapshot, sends nothing. A refusal comes with the operator's next step.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from shlex import quote
from typing import Final

from ringfence.policy.errors import Invalid
from ringfence.policy.insight.address_axis import position
from ringfence.policy.model import NOBODY, Group, GroupPeer, Rule
from ringfence.policy.packet import EPHEMERAL_PORT, TCP, UDP, Packet
from ringfence.policy.places import Place, find_places
from ringfence.policy.rule_words import describe_rule, describe_side, group_name
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import PROTOCOL_NUMBER, Direction, Kind, Protocol
from ringfence.policy.verdict import Allowance, Default, SideVerdict, Verdict, judge, protocol_matches
from ringfence.policy.view import Endpoint, HostView, resolve_view
from ringfence.policy.wording import shown

MOST_PAIRS: Final = 1000  # of addresses judged when a group is an end
_SHOWN: Final = 6  # members of a group
_SERVICE: Final = re.compile(r"(?P<protocol>[a-z0-9]+)(?:/(?P<first>\d{1,5})(?:/(?P<second>\d{1,3}))?)?")
_ECHO: Final = {Protocol.ICMP: 8, Protocol.ICMPV6: 128}


@dataclass(frozen=True, slots=True)
class Service:
    """What the packet is: a protocol and its destination port, or its ICMP type and code."""

    protocol: Protocol
    port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0

    def __str__(self) -> str:
        if self.protocol.has_ports:
            return f"{self.protocol.value}/{self.port}"
        if self.protocol.has_types:
            return f"{self.protocol.value}/{self.icmp_type}/{self.icmp_code}"
        return self.protocol.value


@dataclass(frozen=True, slots=True)
class Explanation:
    """A packet, the verdict on it, and that verdict in words: a first line, then one or more for each side."""

    packet: Packet
    verdict: Verdict
    text: str


def parse_service(text: str) -> Service:
    """``tcp/5432``, ``udp/53``, ``icmp`` (an echo), ``icmp/3/4`` (type, code), ``esp`` …; raises ``Invalid``."""
    expected = f"expected PROTOCOL/PORT such as tcp/443, icmp/TYPE/CODE, or one of esp, ah, gre, ipip; got {text!a}"
    found = _SERVICE.fullmatch(text)
    names = {protocol.value: protocol for protocol in PROTOCOL_NUMBER}
    if not found or found["protocol"] not in names:
        raise Invalid(expected, field="service")
    protocol = names[found["protocol"]]
    first, second = (int(found[key]) if found[key] else None for key in ("first", "second"))
    if protocol.has_ports and first is not None and second is None and 1 <= first <= 65535:  # noqa: PLR2004  ports
        return Service(protocol, port=first)
    if protocol.has_types and max(first or 0, second or 0) <= 255:  # noqa: PLR2004  one octet each
        return Service(protocol, icmp_type=_ECHO[protocol] if first is None else first, icmp_code=second or 0)
    if not protocol.has_ports and not protocol.has_types and first is None:
        return Service(protocol)
    raise Invalid(expected, field="service")


def explain(snapshot: Snapshot, source: str, destination: str, service: Service) -> Explanation:
    """Why a first packet from ``source`` to ``destination`` passes or not.

    Both ends are an instance's name or id, an address, "internet" (a documentation address that belongs to nobody), or
    a group (``group:NAME`` when an instance has that name, too): then its first member is explained, and the text says
    for how many others the same holds.

    Raises:
        NotFound: nobody is named so; the text suggests the nearest.
        Invalid: the ends have no address of one family, or a name or address is ambiguous.
    """
    view = resolve_view(snapshot)
    sources = find_places(snapshot, view, source, field="source")
    destinations = find_places(snapshot, view, destination, field="destination")
    pairs = list(islice(_pairs(sources, destinations, service), MOST_PAIRS))
    if not pairs:
        raise Invalid(
            f"{shown(source)} and {shown(destination)} have no addresses of one family that {service} could use",
            field="destination",
        )
    packet, verdict = _judged(view, *pairs[0], service)
    lines = _sentences(snapshot, view, packet, verdict, service, pairs[0])
    if len({place.subject for place in sources}) > 1 or len({place.subject for place in destinations}) > 1:
        lines.append(_others(view, pairs, verdict, service))
    return Explanation(packet, verdict, "\n".join(lines))


_Pair = tuple[Place, Place]


def _pairs(sources: list[Place], destinations: list[Place], service: Service) -> Iterator[_Pair]:
    """The pairs of addresses that the service can go between: IPv4 first, pairs of one instance last."""
    families = {Protocol.ICMP: (4,), Protocol.ICMPV6: (6,)}.get(service.protocol, (4, 6))
    for to_itself in (False, True):
        for family in families:
            here = [place for place in sources if place.address.version == family]
            there = [place for place in destinations if place.address.version == family]
            yield from (pair for pair in product(here, there) if (pair[0].subject == pair[1].subject) is to_itself)


def _judged(view: HostView, source: Place, destination: Place, service: Service) -> tuple[Packet, Verdict]:
    packet = Packet(
        source.address,
        destination.address,
        PROTOCOL_NUMBER[service.protocol],
        source_port=EPHEMERAL_PORT,
        destination_port=service.port,
        icmp_type=service.icmp_type,
        icmp_code=service.icmp_code,
    )
    ends = source.endpoint, destination.endpoint
    if _is_loopback(*ends):
        return packet, Verdict(None, None)
    is_host = ends[0] is not None and ends[0].kind is Kind.SELF
    return packet, judge(view, packet, source=ends[0], destination=ends[1], from_host=is_host)


def _others(view: HostView, pairs: list[_Pair], verdict: Verdict, service: Service) -> str:
    """The verdict for the other pairs of addresses, in a line."""
    others = [pair for pair in pairs if _judged(view, *pair, service)[1].allowed != verdict.allowed]
    most = f" that were looked at, at most {MOST_PAIRS}" if len(pairs) == MOST_PAIRS else ""
    if not others:
        return f"  the same holds for all {len(pairs)} pairs of addresses{most}"
    word = "denied" if verdict.allowed else "allowed"
    one, other = others[0]
    return f"  of {len(pairs)} pairs of addresses{most} {len(others)} are {word}, e.g. {one} -> {other}"


def _is_loopback(source: Endpoint | None, destination: Endpoint | None) -> bool:
    """Whether a self host talks to itself, which no uplink sees."""
    if source is None or destination is None:
        return False
    return source.kind is Kind.SELF and source.instance == destination.instance


def _sentences(
    snapshot: Snapshot, view: HostView, packet: Packet, verdict: Verdict, service: Service, pair: _Pair
) -> list[str]:
    found = "allowed" if verdict.allowed else "denied"
    sentences = [f"{found}: {pair[0]} -> {pair[1]} {service}"]
    for side, peer in ((verdict.egress, pair[1]), (verdict.ingress, pair[0])):
        if side is not None:
            sentences.append(f"  {describe_side(snapshot, side)}")
            sentences += _why_in_group(snapshot, view, side, peer)
            if not side.allowed:
                sentences += _nearest(snapshot, view, packet, side, peer)
                sentences += [*_missing(snapshot, side, peer, service), *_lifelines(packet, side)]
    if verdict.egress is None and verdict.ingress is None:
        whose = "it stays on the host, and loopback is free" if pair[0].endpoint else "neither end is an instance"
        sentences.append(f"  {whose}, so no group judges it")
    return sentences


def _why_in_group(snapshot: Snapshot, view: HostView, side: SideVerdict, peer: Place) -> list[str]:
    """Why the other end is in the group that the deciding rule names."""
    if not isinstance(side.reason, Allowance) or not isinstance(side.reason.rule.peer, GroupPeer):
        return []
    group = side.reason.rule.peer.group
    name = group_name(snapshot, group)
    if peer.endpoint is not None and group in peer.endpoint.groups:
        return [f"  {peer.address} is in group {name}: instance {shown(peer.endpoint.name)} wears it"]
    addresses = view.peers.get(group, NOBODY)
    source = next((str(source) for source in addresses.sources if peer.address in source), None)
    how = f"its external source {source} holds it" if source else "an instance that wears it has the address"
    return [f"  {peer.address} is in group {name}: {how}"]


def _missing(snapshot: Snapshot, side: SideVerdict, peer: Place, service: Service) -> list[str]:
    """The command that adds a rule which would allow it."""
    if side.reason not in (Default.NO_INGRESS_RULE, Default.NO_EGRESS_RULE, Default.UNTRACKABLE):
        return []
    groups = _own_groups(snapshot, side.endpoint)
    if not groups:
        return [f"  missing: {shown(side.endpoint.name)} wears no group but default: attach one, then add a rule"]
    way = "--from" if side.direction is Direction.INGRESS else "--to"
    group = groups[0]
    worn = _own_groups(snapshot, peer.endpoint) if peer.endpoint else []
    peers = [one for one in worn if one.organisation == group.organisation]
    anybody = "0.0.0.0/0" if peer.address.version == 4 else "::/0"  # noqa: PLR2004  a family
    whom = quote(shown(peers[0].name)) if peers else anybody if peer.is_anybody else str(peer.address)
    return [f"  missing: ringfence rule add {quote(shown(group.name))} {service} {way} {whom}{_whose(snapshot, group)}"]


def _whose(snapshot: Snapshot, group: Group) -> str:
    """The option that names the group's organisation, where it is not the first, which needs none."""
    owner = snapshot.organisations.get(group.organisation)
    is_first = group.organisation == next(iter(snapshot.organisations), None)
    return "" if owner is None or is_first else f" --organisation {quote(shown(owner.name))}"


def _own_groups(snapshot: Snapshot, endpoint: Endpoint) -> list[Group]:
    """The groups that it wears, by name, without the default group."""
    worn = sorted((snapshot.groups[id_] for id_ in endpoint.groups if id_ in snapshot.groups), key=lambda one: one.name)
    defaults = {organisation.default_group for organisation in snapshot.organisations.values()}
    return [group for group in worn if group.id not in defaults]


def _lifelines(packet: Packet, side: SideVerdict) -> list[str]:
    """What may pass all the same at a self host, where only the host knows its lifelines."""
    if side.endpoint.kind is not Kind.SELF or packet.protocol not in (TCP, UDP):
        return []
    return ["  the host's failsafe ports, which its inventory names, and its agent's channel pass all the same"]


def _nearest(snapshot: Snapshot, view: HostView, packet: Packet, side: SideVerdict, peer: Place) -> list[str]:
    """The first rule that matches all but the peer, usually the one that was meant, and who its peer is."""
    for group in side.endpoint.groups:
        for rule in view.rules.get(group, ()):
            if rule.direction is side.direction and protocol_matches(rule, packet):
                described = f"rule {rule.id} of group {group_name(snapshot, group)}, {describe_rule(snapshot, rule)}"
                words = [f"  nearest is {described}; but {peer.address} is not in {_peer_words(snapshot, view, rule)}"]
                return (
                    words
                    if not isinstance(rule.peer, GroupPeer) or peer.endpoint
                    else [*words, _behind_nat(snapshot, peer)]
                )
    return []


def _behind_nat(snapshot: Snapshot, peer: Place) -> str:
    """A hint for an address that no instance has: whose it may be."""
    holders = [one for one in snapshot.groups.values() if any(peer.address in source.network for source in one.sources)]
    if holders:
        names = ", ".join(sorted(shown(group.name) for group in holders)[:_SHOWN])
        return (
            f"  no instance has {peer.address}: it is an external source of {names}, so one of theirs came through NAT?"
        )
    return f"  no instance has {peer.address}: of members behind NAT the group needs that address as an external source"


def _peer_words(snapshot: Snapshot, view: HostView, rule: Rule) -> str:
    if not isinstance(rule.peer, GroupPeer):
        return rule.peer.text
    addresses = view.peers.get(rule.peer.group, NOBODY)
    who = [*map(str, sorted(addresses.members, key=position)), *sorted(f"source {one}" for one in addresses.sources)]
    more = f" and {len(who) - _SHOWN} more" if len(who) > _SHOWN else ""
    return f"group {group_name(snapshot, rule.peer.group)} ({', '.join(who[:_SHOWN]) or 'nobody'}{more})"
