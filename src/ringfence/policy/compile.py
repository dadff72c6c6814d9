"""A host's view -> the abstract program that enforces it. Pure and total: every policy that the API accepts compiles.

The way of a packet: ``origin`` (prerouting, before conntrack) drops what an instance may not claim to be; ``leave``
(prerouting) asks the sender's groups; ``arrive`` (postrouting) asks the receiver's. Each side is one base chain, and a
packet passes when every side that is under our care agrees. A flow that both accepted is stamped with the generation
and passes at once from then on, until the generation moves and it is judged anew, in whichever direction it comes next.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ringfence.policy import link, names
from ringfence.policy.addresses import FAMILIES, merge_networks
from ringfence.policy.lines import PeerSets, rule_lines, untracked_rule_lines
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
from ringfence.policy.view import Endpoint, HostView

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
    sets = dict(_address_sets(view))
    peers = _peer_sets(view, sets)
    chains = dict(link.base_chains(ports.prefixes))
    for group, rules in view.rules.items():
        chains.update(_group_chains(group, rules, peers))
    for groups in profiles:
        chains.update(_profile_chains(groups, chains))
    return Program(
        counters=frozenset(_counters(view, chains.values())),
        sets=MappingProxyType({**link.port_sets(programmed, closed), **sets}),
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


def _profile_chains(groups: tuple[GroupId, ...], present: Mapping[str, Chain]) -> Iterator[tuple[str, Chain]]:
    """What asks each of ``groups`` in turn; ``present`` holds the chains of those that have something to say."""
    profile = names.profile_of(groups)
    for direction in Direction:
        deny = Line((Count(names.denied_counter(profile, direction)), Drop()))
        jumps = _jumps([names.group_chain(group, direction) for group in groups], present)
        if direction is Direction.EGRESS and not jumps:
            last = Line((Count(names.open_counter(profile)), Goto(link.ALLOW)))
        else:
            last = deny
        aside = names.untracked_profile_chain(profile, direction)
        yield names.profile_chain(profile, direction), Chain((Line((_NO_FLOW, Goto(aside))), *jumps, last))
        jumps = _jumps([names.untracked_group_chain(group, direction) for group in groups], present)
        yield aside, Chain((*jumps, deny))


def _jumps(wanted: list[str], present: Mapping[str, Chain]) -> list[Line]:
    return [Line((Jump(chain),)) for chain in wanted if chain in present]


def _group_chains(group: GroupId, rules: tuple[Rule, ...], peers: PeerSets) -> Iterator[tuple[str, Chain]]:
    """A group with rules of a direction has a chain for it even if no line can match: it still restricts egress."""
    for direction in Direction:
        mine = [rule for rule in rules if rule.direction is direction]
        if mine:
            lines = tuple(line for rule in mine for line in rule_lines(rule, peers))
            yield names.group_chain(group, direction), Chain(lines)
        untracked = tuple(line for rule in mine for line in untracked_rule_lines(rule, peers))
        if untracked:
            yield names.untracked_group_chain(group, direction), Chain(untracked)


def _address_sets(view: HostView) -> Iterator[tuple[str, NamedSet]]:
    """Members in hash sets (an element is added in constant time), sources in interval sets, and only where there are.

    The kernel finds a set by walking the list of all sets, so one that could only be empty is not made, and no line
    asks for it. The first address of a group in a family is therefore a change of lines, every further one an element.
    """
    for group, peer in view.peers.items():
        for family in FAMILIES:
            type_ = (_ADDRESS_TYPE[family],)
            members: frozenset[Element] = frozenset((member,) for member in peer.members if member.version == family)
            if members:
                yield names.member_set(group, family), NamedSet(type_, members)
            intervals = merge_networks(peer.sources, family)
            if intervals:
                yield names.source_set(group, family), NamedSet(type_, frozenset(intervals), interval=True)


def _peer_sets(view: HostView, sets: Mapping[str, NamedSet]) -> PeerSets:
    return {
        (group, family): tuple(
            name for name in (names.member_set(group, family), names.source_set(group, family)) if name in sets
        )
        for group in view.peers
        for family in FAMILIES
    }


def _counters(view: HostView, chains: Iterable[Chain]) -> Iterator[str]:
    """One for each rule, so that its count outlives a moment without lines, and those that other lines name."""
    yield from (names.rule_counter(rule.id) for rules in view.rules.values() for rule in rules)
    for chain in chains:
        for line in chain.lines:
            for part in line.parts:
                if isinstance(part, Count):
                    yield part.counter
