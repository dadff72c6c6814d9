"""The parts of a program: what one peer, one group, one combination of groups, and the ports compile to.

Each part carries what it was made from, so that whoever keeps it can tell whether it still holds.
"""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, assert_never

from ringfence.policy import frames, link, names, self_host
from ringfence.policy.addresses import FAMILIES, Family, merge_networks
from ringfence.policy.lines import PeerSets, rule_lines, untracked_rule_lines
from ringfence.policy.local import LocalPorts
from ringfence.policy.model import GroupPeer, Rule
from ringfence.policy.program import (
    Chain,
    Count,
    Element,
    ElementType,
    Goto,
    InState,
    Jump,
    Line,
    NamedSet,
    Scalar,
    State,
    VerdictMap,
)
from ringfence.policy.refusal import Refusal, refuse
from ringfence.policy.values import Direction, GroupId, Kind
from ringfence.policy.view import Endpoint, PeerAddresses

_NO_FLOW: Final = InState(frozenset({State.INVALID, State.UNTRACKED}))
_DENIED: Final = {Direction.INGRESS: Refusal.DENIED_IN, Direction.EGRESS: Refusal.DENIED_OUT}
_ADDRESS_TYPE: Final = {4: ElementType.IPV4, 6: ElementType.IPV6}


@dataclass(frozen=True, slots=True)
class PeerPart:
    """A group as a peer: its sets, and their names by family."""

    addresses: PeerAddresses
    sets: Mapping[str, NamedSet]
    names: Mapping[Family, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class GroupPart:
    """The chains of a group; valid as long as its rules are these and their peers have the sets in ``asked``."""

    rules: tuple[Rule, ...]
    asked: PeerSets
    chains: Mapping[str, Chain]
    counters: frozenset[str]


@dataclass(frozen=True, slots=True)
class ProfilePart:
    """The chains of a combination of groups; valid as long as of the chains it could ask these are ``present``."""

    present: frozenset[str]
    chains: Mapping[str, Chain]
    counters: frozenset[str]


@dataclass(frozen=True, slots=True)
class PortPart:
    """What follows from the programmed endpoints, the closed interfaces, and what the host says of itself."""

    programmed: tuple[Endpoint, ...]
    closed: frozenset[str]
    local: LocalPorts
    sets: Mapping[str, NamedSet]
    maps: Mapping[str, VerdictMap]
    chains: Mapping[str, Chain]
    counters: frozenset[str]


def compile_peer(group: GroupId, addresses: PeerAddresses) -> PeerPart:
    """Members in hash sets (an element is added in constant time), sources in interval sets, and only where there are.

    The kernel finds a set by walking the list of all sets, so one that could only be empty is not made, and no line
    asks for it. The first address of a group in a family is therefore a change of lines, every further one an element.
    """
    sets: dict[str, NamedSet] = {}
    found: dict[Family, tuple[str, ...]] = {}
    for family in FAMILIES:
        mine = dict(_address_sets(group, addresses, family))
        sets.update(mine)
        found[family] = tuple(mine)
    return PeerPart(addresses, sets, found)


def compile_group(group: GroupId, rules: tuple[Rule, ...], asked: PeerSets, kind: Kind) -> GroupPart:
    """A group with rules of a direction has a chain for it even if no line can match: it still restricts egress.

    Every rule has its counter, with or without lines, so that a count outlives a moment in which a peer is empty.
    """
    chains: dict[str, Chain] = {}
    for direction in Direction:
        mine = [rule for rule in rules if rule.direction is direction]
        if mine:
            lines = tuple(line for rule in mine for line in rule_lines(rule, asked, kind))
            chains[names.group_chain(group, direction)] = Chain(lines)
        untracked = tuple(line for rule in mine for line in untracked_rule_lines(rule, asked))
        if untracked:
            chains[names.untracked_group_chain(group, direction)] = Chain(untracked)
    return GroupPart(rules, asked, chains, frozenset(names.rule_counter(rule.id) for rule in rules))


def named_peers(rules: Iterable[Rule]) -> list[GroupId]:
    """The groups that rules name as peers, in a stable order."""
    return sorted({rule.peer.group for rule in rules if isinstance(rule.peer, GroupPeer)})


def compile_profile(groups: tuple[GroupId, ...], present: AbstractSet[str]) -> ProfilePart:
    """What asks each of ``groups`` in turn; ``present`` names the chains of those that have something to say."""
    chains = dict(_profile_chains(groups, present))
    return ProfilePart(asked_chains(groups) & present, chains, _counters(chains))


def asked_chains(groups: tuple[GroupId, ...]) -> frozenset[str]:
    """Every chain that the groups could have."""
    kinds = (names.group_chain, names.untracked_group_chain)
    return frozenset(kind(group, direction) for kind in kinds for group in groups for direction in Direction)


def compile_ports(programmed: tuple[Endpoint, ...], closed: frozenset[str], local: LocalPorts) -> PortPart:
    """Base chains, what may be sent from each interface, and which profile judges it."""
    match local.kind:
        case Kind.ROUTED:
            chains, sets = dict(link.base_chains(local.prefixes)), link.port_sets(programmed, closed)
        case Kind.BRIDGED:
            chains = {**dict(link.bridged_chains(local.prefixes)), **dict(frames.frame_chains(local.prefixes))}
            sets = {**link.instance_sets(programmed, closed), **frames.frame_sets(programmed, closed)}
        case Kind.SELF:
            chains, sets = dict(self_host.base_chains(local)), self_host.port_sets(programmed, closed, local)
        case _:
            assert_never(local.kind)
    maps = _address_maps(programmed) if local.kind is Kind.BRIDGED else _port_maps(programmed)
    return PortPart(programmed, closed, local, sets, maps, chains, _counters(chains))


def _address_sets(group: GroupId, peer: PeerAddresses, family: Family) -> Iterator[tuple[str, NamedSet]]:
    type_ = (_ADDRESS_TYPE[family],)
    members: frozenset[Element] = frozenset((member,) for member in peer.members if member.version == family)
    if members:
        yield names.member_set(group, family), NamedSet(type_, members)
    intervals = merge_networks(peer.sources, family)
    if intervals:
        yield names.source_set(group, family), NamedSet(type_, frozenset(intervals), interval=True)


def _profile_chains(groups: tuple[GroupId, ...], present: AbstractSet[str]) -> Iterator[tuple[str, Chain]]:
    profile = names.profile_of(groups)
    for direction in Direction:
        deny = refuse(_DENIED[direction], names.denied_counter(profile, direction))
        jumps = _jumps([names.group_chain(group, direction) for group in groups], present)
        if direction is Direction.EGRESS and not jumps:
            last = Line((Count(names.open_counter(profile)), Goto(link.ALLOW)))
        else:
            last = deny
        aside = names.untracked_profile_chain(profile, direction)
        yield names.profile_chain(profile, direction), Chain((Line((_NO_FLOW, Goto(aside))), *jumps, last))
        jumps = _jumps([names.untracked_group_chain(group, direction) for group in groups], present)
        yield aside, Chain((*jumps, deny))


def _jumps(wanted: list[str], present: AbstractSet[str]) -> list[Line]:
    return [Line((Jump(chain),)) for chain in wanted if chain in present]


def _port_maps(programmed: tuple[Endpoint, ...]) -> dict[str, VerdictMap]:
    """Interface -> profile, for each direction."""
    by_interface: list[tuple[Scalar, Endpoint]] = [(str(one.interface), one) for one in programmed]
    return {
        names.EGRESS_MAP: _profile_map(by_interface, Direction.EGRESS),
        names.INGRESS_MAP: _profile_map(by_interface, Direction.INGRESS),
    }


def _address_maps(programmed: tuple[Endpoint, ...]) -> dict[str, VerdictMap]:
    """Address -> profile, for each direction and family."""
    by_address = [(address, one) for one in programmed for address in link.own_addresses(one)]
    by_family: dict[int, list[tuple[Scalar, Endpoint]]] = {4: [], 6: []}
    for address, one in by_address:
        by_family[address.version].append((address, one))
    return {
        name: _profile_map(by_family[family], direction, _ADDRESS_TYPE[family])
        for name, family, direction in (
            (names.EGRESS4_MAP, 4, Direction.EGRESS),
            (names.EGRESS6_MAP, 6, Direction.EGRESS),
            (names.INGRESS4_MAP, 4, Direction.INGRESS),
            (names.INGRESS6_MAP, 6, Direction.INGRESS),
        )
    }


def _profile_map(
    endpoints: list[tuple[Scalar, Endpoint]], direction: Direction, type_: ElementType = ElementType.INTERFACE
) -> VerdictMap:
    profiles = {groups: names.profile_of(groups) for groups in {one.groups for _, one in endpoints}}
    targets = {key: names.profile_chain(profiles[one.groups], direction) for key, one in endpoints}
    return VerdictMap(MappingProxyType(targets), type_)


def _counters(chains: Mapping[str, Chain]) -> frozenset[str]:
    parts = (part for chain in chains.values() for line in chain.lines for part in line.parts)
    return frozenset(part.counter for part in parts if isinstance(part, Count))
