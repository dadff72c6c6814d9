"""A host's view -> the abstract program that enforces it. Pure and total: every policy that the API accepts compiles.

The way of a packet: ``origin`` (prerouting, before conntrack) drops what an instance may not claim to be; ``leave``
(prerouting) asks the sender's groups; ``arrive`` (postrouting) asks the receiver's. Each side is one base chain, and a
packet passes when every side that is under our care agrees. A flow that both accepted is stamped with the generation
and passes at once from then on, until the generation moves and it is judged anew, in whichever direction it comes next.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from ringfence.policy.addresses import FAMILIES, Family
from ringfence.policy.link import own_addresses
from ringfence.policy.local import LocalPorts
from ringfence.policy.model import Rule
from ringfence.policy.parts import (
    GroupPart,
    PeerPart,
    PortPart,
    ProfilePart,
    asked_chains,
    compile_group,
    compile_peer,
    compile_ports,
    compile_profile,
    named_peers,
)
from ringfence.policy.program import Program
from ringfence.policy.values import GroupId, Kind
from ringfence.policy.view import Endpoint, HostView, PeerAddresses

_K = TypeVar("_K")
_V = TypeVar("_V")


def compile_program(view: HostView, ports: LocalPorts) -> Program:
    """The program that enforces ``view``. O(endpoints + rules + members).

    An interface that two endpoints claim stays closed, as does one under our care that no endpoint has; behind a bridge
    also those of endpoints without a MAC address, or with an address that another one claims.
    """
    return Compiler().compile(view, ports)


class Compiler:
    """Compiles one view after another. The result depends on the view alone; the cost on what changed since the last.

    What did not change is the very same object in the next program, which is what makes a delta cheap to find.
    """

    def __init__(self) -> None:
        self._known = _NOTHING

    def compile(self, view: HostView, ports: LocalPorts) -> Program:
        """As ``compile_program``; after the first, O(endpoints + groups) comparisons and the work for what changed."""
        if ports.kind is not self._known.ports.local.kind:
            self._known = _NOTHING
        programmed, closed = _programmed(view, ports)
        peers = {group: self._peer(group, addresses) for group, addresses in view.peers.items()}
        groups = {group: self._group(group, rules, peers, ports.kind) for group, rules in view.rules.items()}
        chains = {name for part in groups.values() for name in part.chains}
        worn = sorted({endpoint.groups for endpoint in programmed})
        profiles = {combined: self._profile(combined, chains) for combined in worn}
        port = self._port(programmed, closed, ports)
        # Kept only whole: a compilation that fails half-way must leave no part that the next one would believe.
        self._known = _put_together(self._known, peers, groups, profiles, port)
        return self._known.program

    def _peer(self, group: GroupId, addresses: PeerAddresses) -> PeerPart:
        known = self._known.peers.get(group)
        return known if known and known.addresses == addresses else compile_peer(group, addresses)

    def _group(
        self, group: GroupId, rules: tuple[Rule, ...], peers: Mapping[GroupId, PeerPart], kind: Kind
    ) -> GroupPart:
        known = self._known.groups.get(group)
        if known and known.rules == rules and all(_sets_of(peers, *key) == sets for key, sets in known.asked.items()):
            return known
        asked = {(peer, family): _sets_of(peers, peer, family) for peer in named_peers(rules) for family in FAMILIES}
        return compile_group(group, rules, asked, kind)

    def _profile(self, groups: tuple[GroupId, ...], chains: AbstractSet[str]) -> ProfilePart:
        known = self._known.profiles.get(groups)
        return known if known and known.present == asked_chains(groups) & chains else compile_profile(groups, chains)

    def _port(self, programmed: tuple[Endpoint, ...], closed: frozenset[str], local: LocalPorts) -> PortPart:
        known = self._known.ports
        same = (known.programmed, known.closed, known.local) == (programmed, closed, local)
        return known if same else compile_ports(programmed, closed, local)


@dataclass(frozen=True, slots=True)
class _Known:
    """The parts of one program, and the program."""

    peers: Mapping[GroupId, PeerPart]
    groups: Mapping[GroupId, GroupPart]
    profiles: Mapping[tuple[GroupId, ...], ProfilePart]
    ports: PortPart
    program: Program


_NOTHING = _Known({}, {}, {}, compile_ports((), frozenset(), LocalPorts()), Program())


def _programmed(view: HostView, ports: LocalPorts) -> tuple[tuple[Endpoint, ...], frozenset[str]]:
    """The endpoints that are judged, and the interfaces that are closed.

    Closed is, too, an uplink of a self host that no endpoint has, or two: all but its lifelines and what stays on its
    link.
    """
    programmed = tuple(_programmable(view.endpoints, ports.kind))
    known = frozenset(programmed)
    closed = ports.names | {str(endpoint.interface) for endpoint in view.endpoints if endpoint not in known}
    return programmed, closed


def _programmable(endpoints: tuple[Endpoint, ...], kind: Kind) -> Iterator[Endpoint]:
    """Those whose packets can be told from all others': by a port of their own, behind a bridge by MAC and address."""
    interfaces = Counter(endpoint.interface for endpoint in endpoints)
    addresses = Counter(address for endpoint in endpoints for address in own_addresses(endpoint))
    for endpoint in endpoints:
        is_known = kind is not Kind.BRIDGED or (
            endpoint.mac is not None and all(addresses[address] == 1 for address in own_addresses(endpoint))
        )
        if interfaces[endpoint.interface] == 1 and is_known:
            yield endpoint


def _put_together(
    known: _Known,
    peers: Mapping[GroupId, PeerPart],
    groups: Mapping[GroupId, GroupPart],
    profiles: Mapping[tuple[GroupId, ...], ProfilePart],
    ports: PortPart,
) -> _Known:
    chains, counters, sets = known.program.chains, known.program.counters, known.program.sets
    same_ports = known.ports is ports and bool(chains)
    if not (same_ports and _same(known.groups, groups) and _same(known.profiles, profiles)):
        parts: list[GroupPart | ProfilePart | PortPart] = [*groups.values(), *profiles.values(), ports]
        chains = MappingProxyType({name: chain for part in parts for name, chain in part.chains.items()})
        counters = frozenset().union(*(part.counters for part in parts))
    if not (same_ports and _same(known.peers, peers)):
        named = {name: set_ for part in peers.values() for name, set_ in part.sets.items()}
        sets = MappingProxyType({**ports.sets, **named})
    return _Known(peers, groups, profiles, ports, Program(counters, sets, MappingProxyType(ports.maps), chains))


def _sets_of(peers: Mapping[GroupId, PeerPart], group: GroupId, family: Family) -> tuple[str, ...]:
    return peers[group].names[family] if group in peers else ()


def _same(old: Mapping[_K, _V], new: Mapping[_K, _V]) -> bool:
    """Whether both hold the very same parts."""
    return len(old) == len(new) and all(old.get(key) is part for key, part in new.items())
