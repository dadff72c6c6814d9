"""A host's view -> the abstract program that enforces it. Pure and total: every policy that the API accepts compiles.

The way of a packet: ``origin`` (prerouting, before conntrack) drops what an instance may not claim to be; ``leave``
(prerouting) asks the sender's groups; ``arrive`` (postrouting) asks the receiver's. Each side is one base chain, and a
packet passes when every side that is under our care agrees. A flow that both accepted is stamped with the generation
and passes at once from then on, until the generation moves and it is judged anew, in whichever direction it comes next.
"""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from ringfence.policy.addresses import FAMILIES, Family
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
from ringfence.policy.values import GroupId
from ringfence.policy.view import Endpoint, HostView, PeerAddresses

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class LocalPorts:
    """Interfaces that the inventory puts under our care: names, and prefixes with ``*``; closed until programmed."""

    patterns: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(pattern for pattern in self.patterns if not pattern.endswith("*"))

    @property
    def prefixes(self) -> tuple[str, ...]:
        return tuple(sorted({pattern[:-1] for pattern in self.patterns if pattern.endswith("*")}))


def compile_program(view: HostView, ports: LocalPorts) -> Program:
    """The program that enforces ``view``. O(endpoints + rules + members).

    An interface that two endpoints claim stays closed, as does one under our care that no endpoint has.
    """
    return Compiler().compile(view, ports)


class Compiler:
    """Compiles one view after another. The result depends on the view alone; the cost on what changed since the last.

    What did not change is the very same object in the next program, which is what makes a delta cheap to find.
    """

    def __init__(self) -> None:
        self._peers: dict[GroupId, PeerPart] = {}
        self._groups: dict[GroupId, GroupPart] = {}
        self._profiles: dict[tuple[GroupId, ...], ProfilePart] = {}
        self._ports = compile_ports((), frozenset(), ())
        self._program = Program()

    def compile(self, view: HostView, ports: LocalPorts) -> Program:
        """As ``compile_program``; after the first, O(endpoints + groups) comparisons and the work for what changed."""
        claims = Counter(str(endpoint.interface) for endpoint in view.endpoints)
        programmed = tuple(endpoint for endpoint in view.endpoints if claims[endpoint.interface] == 1)
        closed = ports.names | {name for name, count in claims.items() if count > 1}

        old_peers, self._peers = (
            self._peers,
            {group: self._peer(group, addresses) for group, addresses in view.peers.items()},
        )
        old_groups, self._groups = (
            self._groups,
            {group: self._group(group, rules) for group, rules in view.rules.items()},
        )
        chains = {name for part in self._groups.values() for name in part.chains}
        worn = sorted({endpoint.groups for endpoint in programmed})
        old_profiles, self._profiles = self._profiles, {groups: self._profile(groups, chains) for groups in worn}
        old_ports, self._ports = self._ports, self._port(programmed, closed, ports.prefixes)

        same_ports = old_ports is self._ports
        self._program = self._put_together(
            same_sets=same_ports and _same(old_peers, self._peers),
            same_chains=same_ports and _same(old_groups, self._groups) and _same(old_profiles, self._profiles),
        )
        return self._program

    def _peer(self, group: GroupId, addresses: PeerAddresses) -> PeerPart:
        known = self._peers.get(group)
        return known if known and known.addresses == addresses else compile_peer(group, addresses)

    def _group(self, group: GroupId, rules: tuple[Rule, ...]) -> GroupPart:
        known = self._groups.get(group)
        if known and known.rules == rules and all(self._sets_of(*key) == sets for key, sets in known.asked.items()):
            return known
        asked = {(peer, family): self._sets_of(peer, family) for peer in named_peers(rules) for family in FAMILIES}
        return compile_group(group, rules, asked)

    def _sets_of(self, group: GroupId, family: Family) -> tuple[str, ...]:
        part = self._peers.get(group)
        return part.names[family] if part else ()

    def _profile(self, groups: tuple[GroupId, ...], chains: AbstractSet[str]) -> ProfilePart:
        known = self._profiles.get(groups)
        return known if known and known.present == asked_chains(groups) & chains else compile_profile(groups, chains)

    def _port(self, programmed: tuple[Endpoint, ...], closed: frozenset[str], prefixes: tuple[str, ...]) -> PortPart:
        known = self._ports
        same = (known.programmed, known.closed, known.prefixes) == (programmed, closed, prefixes)
        return known if same else compile_ports(programmed, closed, prefixes)

    def _put_together(self, *, same_sets: bool, same_chains: bool) -> Program:
        chains, counters, sets = self._program.chains, self._program.counters, self._program.sets
        if not same_chains or not chains:
            parts: list[GroupPart | ProfilePart | PortPart] = [*self._groups.values(), *self._profiles.values()]
            parts.append(self._ports)
            chains = MappingProxyType({name: chain for part in parts for name, chain in part.chains.items()})
            counters = frozenset().union(*(part.counters for part in parts))
        if not same_sets or not sets:
            peers = {name: set_ for part in self._peers.values() for name, set_ in part.sets.items()}
            sets = MappingProxyType({**self._ports.sets, **peers})
        return Program(counters, sets, MappingProxyType(self._ports.maps), chains)


def _same(old: Mapping[_K, _V], new: Mapping[_K, _V]) -> bool:
    """Whether both hold the very same parts."""
    return len(old) == len(new) and all(old.get(key) is part for key, part in new.items())
