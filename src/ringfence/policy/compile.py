"""A host's view -> the abstract program that enforces it. Pure and total: every policy that the API accepts compiles.

The way of a packet: ``origin`` (prerouting, before conntrack) drops what an instance may not claim to be; ``leave``
(prerouting) asks the sender's groups; ``arrive`` (postrouting) asks the receiver's. Each side is one base chain, and a
packet passes when every side that is under our care agrees. A flow that both accepted is stamped with the generation
and passes at once from then on, until the generation moves and it is judged anew, in whichever direction it comes next.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ringfence.policy import link, names
from ringfence.policy.addresses import FAMILIES, merge_networks
from ringfence.policy.lines import rule_lines, untracked_rule_lines
from ringfence.policy.model import Rule
from ringfence.policy.program import (
    Chain,
    Count,
    Drop,
    Element,
    ElementType,
    Goto,
    InState,
    Jump,
    Line,
    NamedSet,
    Program,
    State,
    VerdictMap,
)
from ringfence.policy.values import Direction, GroupId
from ringfence.policy.view import Endpoint, HostView, PeerAddresses

_NO_FLOW: Final = InState(frozenset({State.INVALID, State.UNTRACKED}))
_ADDRESS_TYPE: Final = {4: ElementType.IPV4, 6: ElementType.IPV6}


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
    claims = Counter(endpoint.interface for endpoint in view.endpoints)
    programmed = tuple(endpoint for endpoint in view.endpoints if claims[endpoint.interface] == 1)
    closed = ports.names | {name for name, count in claims.items() if count > 1}
    profiles = sorted({endpoint.groups for endpoint in programmed})
    chains = dict(link.base_chains(ports.prefixes))
    for groups in profiles:
        chains.update(_profile_chains(groups, view))
    for group, rules in view.rules.items():
        chains.update(_group_chains(group, rules, view))
    return Program(
        counters=frozenset(_counters(chains.values())),
        sets=MappingProxyType({**link.port_sets(programmed, closed), **dict(_peer_sets(view))}),
        maps=MappingProxyType(_port_maps(programmed)),
        chains=MappingProxyType(chains),
    )


def _port_maps(programmed: tuple[Endpoint, ...]) -> dict[str, VerdictMap]:
    return {
        name: VerdictMap(
            MappingProxyType(
                {
                    str(endpoint.interface): names.profile_chain(names.profile_of(endpoint.groups), direction)
                    for endpoint in programmed
                }
            )
        )
        for name, direction in ((names.EGRESS_MAP, Direction.EGRESS), (names.INGRESS_MAP, Direction.INGRESS))
    }


def _profile_chains(groups: tuple[GroupId, ...], view: HostView) -> Iterator[tuple[str, Chain]]:
    profile = names.profile_of(groups)
    for direction in Direction:
        with_rules = [group for group in groups if _rules_of(view, group, direction)]
        untracked = [group for group in groups if any(_untracked_lines(view, group, direction))]
        deny = Line((Count(names.denied_counter(profile, direction)), Drop()))
        jumps = [Line((Jump(names.group_chain(group, direction)),)) for group in with_rules]
        if direction is Direction.EGRESS and not with_rules:
            last = Line((Count(names.open_counter(profile)), Goto(link.ALLOW)))
        else:
            last = deny
        aside = names.untracked_profile_chain(profile, direction)
        yield names.profile_chain(profile, direction), Chain((Line((_NO_FLOW, Goto(aside))), *jumps, last))
        jumps = [Line((Jump(names.untracked_group_chain(group, direction)),)) for group in untracked]
        yield aside, Chain((*jumps, deny))


def _group_chains(group: GroupId, rules: tuple[Rule, ...], view: HostView) -> Iterator[tuple[str, Chain]]:
    for direction in Direction:
        mine = [rule for rule in rules if rule.direction is direction]
        if mine:
            lines = tuple(line for rule in mine for line in rule_lines(rule, view.peers))
            yield names.group_chain(group, direction), Chain(lines)
        untracked = tuple(_untracked_lines(view, group, direction))
        if untracked:
            yield names.untracked_group_chain(group, direction), Chain(untracked)


def _rules_of(view: HostView, group: GroupId, direction: Direction) -> list[Rule]:
    return [rule for rule in view.rules.get(group, ()) if rule.direction is direction]


def _untracked_lines(view: HostView, group: GroupId, direction: Direction) -> Iterator[Line]:
    for rule in _rules_of(view, group, direction):
        yield from untracked_rule_lines(rule, view.peers)


def _peer_sets(view: HostView) -> Iterator[tuple[str, NamedSet]]:
    for group, peer in view.peers.items():
        yield from _address_sets(group, peer)


def _address_sets(group: GroupId, peer: PeerAddresses) -> Iterator[tuple[str, NamedSet]]:
    """Members in hash sets (an element is added in constant time), sources in interval sets, and only where there are.

    An interval set that exists is never empty, so that a line by it can only appear after it was filled.
    """
    for family in FAMILIES:
        type_ = (_ADDRESS_TYPE[family],)
        members: frozenset[Element] = frozenset((member,) for member in peer.members if member.version == family)
        yield names.member_set(group, family), NamedSet(type_, members)
        intervals = merge_networks(peer.sources, family)
        if intervals:
            yield names.source_set(group, family), NamedSet(type_, frozenset(intervals), interval=True)


def _counters(chains: Iterable[Chain]) -> Iterator[str]:
    for chain in chains:
        for line in chain.lines:
            for part in line.parts:
                if isinstance(part, Count):
                    yield part.counter
