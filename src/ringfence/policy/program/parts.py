"""The parts of a program: what each peer, each group, each profile (combination of groups) and the ports compile to.

There may be a hundred thousand of them, so they hold only what the program, and finding dependents, needs.
"""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final, assert_never

from ringfence.policy.addresses import FAMILIES, Family, merge_networks
from ringfence.policy.evolving import Evolving, change_members, common_ends, differing_members, evolving
from ringfence.policy.local import LocalPorts
from ringfence.policy.model import GroupPeer, Rule
from ringfence.policy.program import base_chains, frames, names, self_host
from ringfence.policy.program.branches import branch_out
from ringfence.policy.program.lines import PeerSets, rule_lines, untracked_rule_lines
from ringfence.policy.program.model import (
    Chain,
    Count,
    ElementType,
    Goto,
    Jump,
    Line,
    Match,
    NamedSet,
    Scalar,
    VerdictMap,
)
from ringfence.policy.program.refusal import Refusal, refuse
from ringfence.policy.values import Address, Direction, GroupId, Kind
from ringfence.policy.view import Endpoint, PeerAddresses

_DENIED: Final = {Direction.INGRESS: Refusal.DENIED_IN, Direction.EGRESS: Refusal.DENIED_OUT}
_ADDRESS_TYPE: Final = {4: ElementType.IPV4, 6: ElementType.IPV6}
_MEMBERS: Final = {family: NamedSet((_ADDRESS_TYPE[family],)) for family in FAMILIES}
_SOURCES: Final = {family: NamedSet((_ADDRESS_TYPE[family],), interval=True) for family in FAMILIES}


@dataclass(frozen=True, slots=True)
class PeerPart:
    """A group as a peer: its sets, and their names by family."""

    sets: Mapping[str, NamedSet]
    names: Mapping[Family, tuple[str, ...]]


NO_PEER: Final = PeerPart({}, {})


@dataclass(frozen=True, slots=True)
class GroupPart:
    """The chains of a group; valid as long as its rules are the same and the ``named`` peers have the same sets."""

    named: tuple[GroupId, ...]
    chains: Mapping[str, Chain]
    counters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProfilePart:
    """The chains of a combination of groups; valid as long as the groups have the same chains."""

    chains: Mapping[str, Chain]
    counters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PortPart:
    """What the programmed endpoints, the closed interfaces, and the host's own ``local`` wishes compile to."""

    programmed: tuple[Endpoint, ...]
    closed: frozenset[str]
    local: LocalPorts
    sets: Mapping[str, NamedSet]
    maps: Mapping[str, VerdictMap]
    chains: Mapping[str, Chain]
    counters: tuple[str, ...]


def change_peer(known: PeerPart, group: GroupId, before: PeerAddresses, after: PeerAddresses) -> PeerPart:
    """The part of peer ``after``, from the part ``known`` of the peer ``before``. O(what differs), or O(sources).

    Members are in hash sets (adding one takes constant time), which are one set of all groups in the kernel
    (``names.MEMBERS``); sources in interval sets, each by itself. None is made while it is empty, and no line refers to
    it: the first address of a group in a family changes lines, every further one only adds an element.
    """
    moved = differing_members(before.members, after.members)
    sets: dict[str, NamedSet] = {}
    found: dict[Family, tuple[str, ...]] = {}
    for family in FAMILIES:
        name = names.member_set(group, family)
        mine = {name: _changed_members(known.sets.get(name, _MEMBERS[family]), moved, after, family)}
        name = names.source_set(group, family)
        same = before.sources == after.sources
        mine[name] = known.sets.get(name, _SOURCES[family]) if same else _source_set(after, family)
        present = {name: set_ for name, set_ in mine.items() if set_.elements}
        sets |= present
        found[family] = tuple(present)
    return PeerPart(sets, found)


def _changed_members(set_: NamedSet, moved: AbstractSet[Address], after: PeerAddresses, family: Family) -> NamedSet:
    mine = [address for address in moved if address.version == family]
    if not mine:
        return set_
    put = [(address,) for address in mine if address in after.members]
    gone = [(address,) for address in mine if address not in after.members]
    return replace(set_, elements=change_members(set_.elements, put, gone))


def _source_set(peer: PeerAddresses, family: Family) -> NamedSet:
    return replace(_SOURCES[family], elements=merge_networks(peer.sources, family))


def compile_group(group: GroupId, rules: tuple[Rule, ...], asked: PeerSets, kind: Kind) -> GroupPart:
    """The part of a group; ``asked`` are the sets of the peers that its rules name.

    A group with rules in a direction has a chain for it even if no line can match, for it still restricts egress. Every
    rule has its counter, even without lines, so that counts survive while a peer is empty.
    """
    chains: dict[str, Chain] = {}
    for direction in Direction:
        mine = [rule for rule in rules if rule.direction is direction]
        if mine:
            lines = tuple(line for rule in mine for line in rule_lines(rule, asked, kind))
            chains |= branch_out(names.group_chain(group, direction), lines)
        untracked = tuple(line for rule in mine for line in untracked_rule_lines(rule, asked))
        if untracked:
            chains |= branch_out(names.untracked_group_chain(group, direction), untracked)
    return GroupPart(tuple(named_peers(rules)), chains, tuple(names.rule_counter(rule.id) for rule in rules))


def named_peers(rules: Iterable[Rule]) -> list[GroupId]:
    """The groups that rules name as peers, in a stable order."""
    return sorted({rule.peer.group for rule in rules if isinstance(rule.peer, GroupPeer)})


def compile_profile(groups: tuple[GroupId, ...], present: AbstractSet[str]) -> ProfilePart:
    """The chains that jump to each of ``groups`` in turn; ``present`` names the chains that the groups have."""
    chains = dict(_profile_chains(groups, present))
    return ProfilePart(chains, _counters(chains))


def compile_ports(programmed: tuple[Endpoint, ...], closed: frozenset[str], local: LocalPorts) -> PortPart:
    """The base chains, the sets for anti-spoofing, and the maps from interface or address to profile."""
    match local.kind:
        case Kind.ROUTED:
            chains, sets = dict(base_chains.routed_chains(local.prefixes)), base_chains.port_sets(programmed, closed)
        case Kind.BRIDGED:
            chains = {**dict(base_chains.bridged_chains(local.prefixes)), **dict(frames.frame_chains(local.prefixes))}
            sets = {**base_chains.instance_sets(programmed, closed), **frames.frame_sets(programmed, closed)}
        case Kind.SELF:
            chains, sets = dict(self_host.self_chains(local)), self_host.port_sets(programmed, closed, local)
        case _:
            assert_never(local.kind)
    maps = _address_maps(programmed) if local.kind is Kind.BRIDGED else _port_maps(programmed)
    return PortPart(programmed, closed, local, sets, maps, chains, _counters(chains))


Exchange = tuple[tuple[Endpoint, ...], tuple[Endpoint, ...]]  # endpoints that are gone, and new ones


def exchanged(before: tuple[Endpoint, ...], after: tuple[Endpoint, ...]) -> Exchange:
    """The endpoints that only ``before``, and that only ``after`` has, compared by identity. O(endpoints), but fast."""
    if before is after:
        return (), ()
    first, last = common_ends(before, after)
    gone, come = before[first : len(before) - last], after[first : len(after) - last]
    old, new = set(map(id, gone)), set(map(id, come))
    return tuple(one for one in gone if id(one) not in new), tuple(one for one in come if id(one) not in old)


def change_ports(
    known: PortPart,
    programmed: tuple[Endpoint, ...],
    closed: frozenset[str],
    local: LocalPorts,
    exchange: Exchange,
) -> PortPart:
    """As ``compile_ports``, from the ``known`` part and how its endpoints differ from ``programmed``."""
    # Behind a bridge, and at a self host, an endpoint's elements do not follow from that endpoint alone.
    if (closed, local) != (known.closed, known.local) or local.kind is not Kind.ROUTED:
        return compile_ports(programmed, closed, local)
    gone, come = exchange
    less, more = base_chains.port_sets(gone, frozenset()), base_chains.port_sets(come, closed)
    sets = {name: _changed_set(set_, less[name], more[name]) for name, set_ in known.sets.items()}
    come_maps, left = _port_maps(come), [str(endpoint.interface) for endpoint in gone]
    maps = {
        name: VerdictMap(evolving(map_.targets).evolve(come_maps[name].targets, left), map_.type)
        for name, map_ in known.maps.items()
    }
    return replace(known, programmed=programmed, sets=sets, maps=maps)


def _changed_set(set_: NamedSet, less: NamedSet, more: NamedSet) -> NamedSet:
    if less.elements == more.elements:  # usually both empty
        return set_
    return replace(set_, elements=change_members(set_.elements, more.elements, less.elements))


def _profile_chains(groups: tuple[GroupId, ...], present: AbstractSet[str]) -> Iterator[tuple[str, Chain]]:
    profile = names.profile_of(groups)
    for direction in Direction:
        refusal, denied = _DENIED[direction], names.denied_counter(profile, direction)
        untracked = [names.untracked_group_chain(group, direction) for group in groups]
        aside = _jumps(untracked, present, base_chains.NO_FLOW)
        jumps = _jumps([names.group_chain(group, direction) for group in groups], present)
        if direction is Direction.EGRESS and not jumps:
            last = Line((Count(names.open_counter(profile)), Goto(base_chains.ALLOW)))
        else:
            jumps, last = [*jumps, Line((Jump(names.late_chain(direction)),))], refuse(refusal, denied)
        lines = (*aside, refuse(refusal, denied, base_chains.NO_FLOW), *jumps, last)
        yield names.profile_chain(profile, direction), Chain(lines)


def _jumps(wanted: list[str], present: AbstractSet[str], *matches: Match) -> list[Line]:
    return [Line((*matches, Jump(chain))) for chain in wanted if chain in present]


def _port_maps(programmed: tuple[Endpoint, ...]) -> dict[str, VerdictMap]:
    """Interface -> profile, for each direction."""
    by_interface: list[tuple[Scalar, Endpoint]] = [(str(one.interface), one) for one in programmed]
    return {
        names.EGRESS_MAP: _profile_map(by_interface, Direction.EGRESS),
        names.INGRESS_MAP: _profile_map(by_interface, Direction.INGRESS),
    }


def _address_maps(programmed: tuple[Endpoint, ...]) -> dict[str, VerdictMap]:
    """Address -> profile, for each direction and family."""
    by_address = [(address, one) for one in programmed for address in one.own_addresses]
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
    return VerdictMap(Evolving(targets), type_)


def _counters(chains: Mapping[str, Chain]) -> tuple[str, ...]:
    parts = (part for chain in chains.values() for line in chain.lines for part in line.parts)
    return tuple({part.counter for part in parts if isinstance(part, Count)})
