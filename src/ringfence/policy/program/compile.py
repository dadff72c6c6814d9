"""A host's view -> the abstract program that enforces it. Pure and total: every policy that the API accepts compiles.

The way of a packet: base chain ``origin`` (prerouting, before conntrack) drops spoofed sources; ``leave`` (prerouting)
evaluates the sender's groups; ``arrive`` (postrouting) the receiver's. A packet passes when both sides, as far as they
are managed, accept it. The flow is then stamped with the generation, and its packets pass at once until the generation
moves; then the next packet, in whichever direction, is judged again.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from types import MappingProxyType
from typing import TypeVar

from ringfence.policy.addresses import FAMILIES, Family
from ringfence.policy.evolving import Evolving, EvolvingSet, differing
from ringfence.policy.local import LocalPorts
from ringfence.policy.model import NOBODY
from ringfence.policy.program.model import Chain, NamedSet, Program
from ringfence.policy.program.parts import (
    NO_PEER,
    GroupPart,
    PeerPart,
    PortPart,
    ProfilePart,
    change_peer,
    change_ports,
    compile_group,
    compile_ports,
    compile_profile,
    exchanged,
    named_peers,
)
from ringfence.policy.values import GroupId, Kind, Revision
from ringfence.policy.view import Endpoint, HostView

_K = TypeVar("_K")
_V = TypeVar("_V")
_Groups = tuple[GroupId, ...]
_ChainPart = GroupPart | ProfilePart | PortPart


def compile_program(view: HostView, ports: LocalPorts) -> Program:
    """The program that enforces ``view``. O(endpoints + rules + members).

    A managed interface stays closed when no endpoint has it, or more than one; a bridged one also when its endpoint has
    no MAC address, or an address that another endpoint has too.
    """
    return Compiler().compile(view, ports)


class Compiler:
    """Compiles one view after another. The result depends on the view alone, the cost on what changed since the last.

    Unchanged parts are the same objects in the next program, and its mappings are made from the last one's, which is
    what makes ``diff_programs`` cheap.
    """

    def __init__(self) -> None:
        self._known: _Known | None = None

    def compile(self, view: HostView, ports: LocalPorts) -> Program:
        """As ``compile_program``; after the first, O(what changed), and O(endpoints) when one of those did."""
        known = self._known
        if known is None or ports.kind is not known.ports.local.kind:
            known = _nothing(ports)
        # Kept only whole: a compilation that fails half-way must leave no part that the next one would believe.
        changes = _find_changes(known, view, ports)
        self._known = None
        self._known = _carry_out(known, changes, view)
        return self._known.program


@dataclass(frozen=True, slots=True)
class _Known:
    """The last program: its view, the parts it is made of, and which part depends on which.

    The dictionaries are patched in place, because only the newest ``_Known`` is ever used.
    """

    view: HostView
    ports: PortPart
    sets: Evolving[str, NamedSet]
    chains: Evolving[str, Chain]
    counters: EvolvingSet[str]
    peers: dict[GroupId, PeerPart] = field(default_factory=dict)
    groups: dict[GroupId, GroupPart] = field(default_factory=dict)
    profiles: dict[_Groups, ProfilePart] = field(default_factory=dict)
    naming: dict[GroupId, set[GroupId]] = field(default_factory=dict)  # peer -> groups with a rule that names it
    wearing: dict[GroupId, set[_Groups]] = field(default_factory=dict)  # group -> the profiles that contain it
    wearers: Counter[_Groups] = field(default_factory=Counter)  # profile -> how many endpoints have it

    @property
    def program(self) -> Program:
        return Program(self.counters, self.sets, MappingProxyType(self.ports.maps), self.chains)


@dataclass(frozen=True, slots=True)
class _Changes:
    """The parts that changed; None for one that is gone."""

    peers: Mapping[GroupId, PeerPart | None]
    groups: Mapping[GroupId, GroupPart | None]
    profiles: Mapping[_Groups, ProfilePart | None]
    ports: PortPart
    wearers: Counter[_Groups]  # how many more, or fewer, endpoints have each profile


def _nothing(local: LocalPorts) -> _Known:
    ports = compile_ports((), frozenset(), LocalPorts(kind=local.kind))
    counters = EvolvingSet(Evolving(dict.fromkeys(ports.counters)))
    return _Known(HostView(Revision(0)), ports, Evolving(ports.sets), Evolving(ports.chains), counters)


def _find_changes(known: _Known, view: HostView, local: LocalPorts) -> _Changes:
    peers = {group: _changed_peer(known, view, group) for group in differing(known.view.peers, view.peers)}
    groups = _changed_groups(known, view, peers, local.kind)
    ports, wearers = known.ports, Counter[_Groups]()
    if view.endpoints is not known.view.endpoints or local != ports.local:
        programmed, closed = _programmed(view, local)
        exchange = exchanged(ports.programmed, programmed)
        ports = change_ports(ports, programmed, closed, local, exchange)
        wearers = _changed_wearers(*exchange)
    return _Changes(peers, groups, _changed_profiles(known, groups, wearers), ports, wearers)


def _changed_peer(known: _Known, view: HostView, group: GroupId) -> PeerPart | None:
    if group not in view.peers:
        return None
    before = known.view.peers.get(group, NOBODY)
    return change_peer(known.peers.get(group, NO_PEER), group, before, view.peers[group])


def _changed_wearers(gone: tuple[Endpoint, ...], come: tuple[Endpoint, ...]) -> Counter[_Groups]:
    changed = Counter(tuple(sorted(endpoint.groups)) for endpoint in come)
    changed.subtract(tuple(sorted(endpoint.groups)) for endpoint in gone)
    return changed


def _changed_groups(
    known: _Known, view: HostView, peers: Mapping[GroupId, PeerPart | None], kind: Kind
) -> dict[GroupId, GroupPart | None]:
    """The parts of groups whose rules changed, or that name a peer whose sets (not elements) changed."""

    def sets_of(group: GroupId, family: Family) -> tuple[str, ...]:
        part = peers[group] if group in peers else known.peers.get(group)
        return part.names[family] if part else ()

    stale = differing(known.view.rules, view.rules)
    for peer, part in peers.items():
        before = known.peers.get(peer)
        if (before and before.names) != (part and part.names):
            stale |= known.naming.get(peer, set())
    found: dict[GroupId, GroupPart | None] = dict.fromkeys(stale)
    for group in stale & view.rules.keys():
        rules = view.rules[group]
        asked = {(peer, family): sets_of(peer, family) for peer in named_peers(rules) for family in FAMILIES}
        found[group] = compile_group(group, rules, asked, kind)
    return found


def _changed_profiles(
    known: _Known, groups: Mapping[GroupId, GroupPart | None], wearers: Counter[_Groups]
) -> dict[_Groups, ProfilePart | None]:
    """The parts of profiles that come or go, and of those with a group whose chains (not lines) changed."""
    worn = {combined: known.wearers[combined] + more for combined, more in wearers.items()}
    found: dict[_Groups, ProfilePart | None] = {
        combined: None for combined, count in worn.items() if not count and combined in known.profiles
    }
    stale = {combined for combined, count in worn.items() if count and combined not in known.profiles}
    for group, part in groups.items():
        before = known.groups.get(group)
        if (before.chains.keys() if before else set()) != (part.chains.keys() if part else set()):
            stale |= known.wearing.get(group, set()) - found.keys()
    for combined in stale:
        asked = (groups[group] if group in groups else known.groups.get(group) for group in combined)
        present = frozenset(name for part in asked if part for name in part.chains)
        found[combined] = compile_profile(combined, present)
    return found


def _carry_out(known: _Known, changes: _Changes, view: HostView) -> _Known:
    before: list[_ChainPart] = [*_old(known.groups, changes.groups), *_old(known.profiles, changes.profiles)]
    after: list[_ChainPart] = [*_new(changes.groups), *_new(changes.profiles)]
    sets = known.sets
    if changes.ports is not known.ports:
        before, after = [*before, known.ports], [*after, changes.ports]
        sets = sets.evolve(changes.ports.sets)
    sets = sets.evolve(
        {name: set_ for part in _new(changes.peers) for name, set_ in part.sets.items()},
        {name for part in _old(known.peers, changes.peers) for name in part.sets},
    )
    chains = known.chains.evolve(
        {name: chain for part in after for name, chain in part.chains.items()},
        {name for part in before for name in part.chains},
    )
    counters = known.counters.evolve(
        {name for part in after for name in part.counters}, {name for part in before for name in part.counters}
    )
    _point_anew(known.naming, known.groups, changes.groups, lambda _, part: set(part.named))
    _point_anew(known.wearing, known.profiles, changes.profiles, lambda combined, _: set(combined))
    _patch(known.peers, changes.peers)
    _patch(known.groups, changes.groups)
    _patch(known.profiles, changes.profiles)
    known.wearers.update(changes.wearers)
    for combined in changes.wearers:
        if not known.wearers[combined]:
            del known.wearers[combined]
    return replace(known, view=view, ports=changes.ports, sets=sets, chains=chains, counters=counters)


def _old(parts: Mapping[_K, _V], changed: Iterable[_K]) -> list[_V]:
    return [parts[key] for key in changed if key in parts]


def _new(changed: Mapping[_K, _V | None]) -> list[_V]:
    return [part for part in changed.values() if part is not None]


def _point_anew(
    index: dict[GroupId, set[_K]],
    parts: Mapping[_K, _V],
    changed: Mapping[_K, _V | None],
    groups_of: Callable[[_K, _V], set[GroupId]],
) -> None:
    """Updates an index from a group to the keys of the parts that depend on it."""
    for key, part in changed.items():
        before = groups_of(key, parts[key]) if key in parts else set()
        after = groups_of(key, part) if part is not None else set()
        for group in before - after:
            index[group].discard(key)
        for group in after - before:
            index.setdefault(group, set()).add(key)


def _patch(parts: dict[_K, _V], changed: Mapping[_K, _V | None]) -> None:
    for key, part in changed.items():
        if part is None:
            parts.pop(key, None)
        else:
            parts[key] = part


def _programmed(view: HostView, ports: LocalPorts) -> tuple[tuple[Endpoint, ...], frozenset[str]]:
    """The endpoints that are programmed, and the names of the managed interfaces that are closed.

    An uplink of a self host that is not programmed is closed but for its lifelines and traffic of the link itself.
    """
    programmed = _programmable(view.endpoints, ports.kind)
    others, _ = exchanged(view.endpoints, programmed)
    return programmed, ports.names | {str(endpoint.interface) for endpoint in others}


def _programmable(endpoints: tuple[Endpoint, ...], kind: Kind) -> tuple[Endpoint, ...]:
    """The endpoints whose packets can be told from all others': by interface, behind a bridge by MAC and address."""
    interfaces, alone = Counter(map(attrgetter("interface"), endpoints)), endpoints
    if len(interfaces) < len(endpoints):
        alone = tuple(endpoint for endpoint in endpoints if interfaces[endpoint.interface] == 1)
    if kind is not Kind.BRIDGED:
        return alone
    addresses = Counter(address for endpoint in endpoints for address in endpoint.own_addresses)
    return tuple(
        endpoint
        for endpoint in alone
        if endpoint.mac is not None and all(addresses[address] == 1 for address in endpoint.own_addresses)
    )
