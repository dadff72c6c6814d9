"""The reverse look-ups of a snapshot, e.g. from a group to its wearers, their hosts and the groups that name it.

``apply_facts`` carries it from snapshot to snapshot in O(what changed), so that neither a change nor a decision ever
has to walk over everything.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ringfence.policy.evolving import Draft, Evolving, EvolvingSet
from ringfence.policy.model import NOBODY, Group, GroupPeer, Instance, PeerAddresses
from ringfence.policy.values import Address, GroupId, HostName, InstanceId

_K = TypeVar("_K")
_M = TypeVar("_M")
_T = TypeVar("_T")

Sets = Evolving[_K, EvolvingSet[_M]]
Counts = Evolving[GroupId, Evolving[HostName, int]]
Indexed = tuple[Mapping[GroupId, Group], Mapping[InstanceId, Instance]]
Changed = Sequence[tuple[_K, _T | None, _T | None]]  # key, what stood there before, what stands there after


@dataclass(frozen=True, slots=True)
class Index:
    """The index of ``groups`` and ``instances``. A key with no members is absent from every mapping."""

    groups: Mapping[GroupId, Group]
    instances: Mapping[InstanceId, Instance]
    wearers: Sets[GroupId, InstanceId] = field(default_factory=Evolving)
    naming: Sets[GroupId, GroupId] = field(default_factory=Evolving)  # groups with a rule that names this one as peer
    on_host: Sets[HostName, InstanceId] = field(default_factory=Evolving)
    bound: Sets[HostName, InstanceId] = field(default_factory=Evolving)  # those that no other host may claim
    called: Sets[str, InstanceId] = field(default_factory=Evolving)  # instances by name, of every organisation
    holders: Sets[Address, InstanceId] = field(default_factory=Evolving)
    named: Sets[str, GroupId] = field(default_factory=Evolving)  # groups by name, of every organisation
    expiring: EvolvingSet[GroupId] = field(default_factory=EvolvingSet.of)  # groups with a rule that expires
    worn_on: Counts = field(default_factory=Evolving)  # group -> host -> how many filtered instances there wear it
    peers: Evolving[GroupId, PeerAddresses] = field(default_factory=Evolving)

    def wearers_of(self, group: GroupId) -> AbstractSet[InstanceId]:
        return self.wearers.get(group, frozenset())

    def naming_of(self, group: GroupId) -> AbstractSet[GroupId]:
        return self.naming.get(group, frozenset())

    def hosts_of(self, group: GroupId) -> Iterable[HostName]:
        """The hosts that enforce the rules of ``group``."""
        return self.worn_on.get(group, ())

    def peer(self, group: GroupId) -> PeerAddresses:
        """The addresses that ``group`` stands for as a peer."""
        return self.peers.get(group, NOBODY)

    def on(self, host: HostName) -> list[Instance]:
        """The instances that ``host`` runs."""
        return [self.instances[id_] for id_ in self.on_host.get(host, ())]

    def bound_to(self, host: HostName) -> list[Instance]:
        return [self.instances[id_] for id_ in self.bound.get(host, ())]

    def instances_named(self, name: str) -> list[Instance]:
        return [self.instances[id_] for id_ in self.called.get(name, ())]

    def holding(self, address: Address) -> list[Instance]:
        """The instances with a managed interface of that address."""
        return [self.instances[id_] for id_ in self.holders.get(address, ())]

    def groups_named(self, name: str) -> list[Group]:
        return [self.groups[id_] for id_ in self.named.get(name, ())]


def next_index(
    index: Index, after: Indexed, groups: Changed[GroupId, Group], instances: Changed[InstanceId, Instance]
) -> Index:
    """The index of ``after``, from the ``index`` before it and what changed between. O(what changed)."""
    holders = _members(index.holders, instances, lambda one: one.addresses)
    wearers = _members(index.wearers, instances, lambda one: one.groups)
    return Index(
        *after,
        wearers=wearers,
        naming=_members(index.naming, groups, named_groups),
        on_host=_members(index.on_host, instances, lambda one: () if one.host is None else (one.host,)),
        bound=_members(index.bound, instances, lambda one: () if one.bound_to is None else (one.bound_to,)),
        called=_members(index.called, instances, lambda one: (one.name,)),
        holders=holders,
        named=_members(index.named, groups, lambda one: (one.name,)),
        expiring=_expiring(index.expiring, groups),
        worn_on=_worn_on(index.worn_on, instances),
        peers=_peers(index.peers, after[1], holders, (groups, instances)),
    )


def named_groups(group: Group) -> set[GroupId]:
    """The groups that the rules of ``group`` name as peers."""
    return {rule.peer.group for rule in group.rules if isinstance(rule.peer, GroupPeer)}


def is_port(instance: Instance) -> bool:
    """Whether the instance has an interface that its host filters."""
    return any(interface.managed for interface in instance.interfaces)


def _expiring(known: EvolvingSet[GroupId], changed: Changed[GroupId, Group]) -> EvolvingSet[GroupId]:
    now = {id_ for id_, _, group in changed if group and any(rule.expires_at is not None for rule in group.rules)}
    return known.evolve(now, [id_ for id_, _, _ in changed if id_ in known and id_ not in now])


def _members(sets: Sets[_K, _M], changed: Changed[_M, _T], keys_of: Callable[[_T], Collection[_K]]) -> Sets[_K, _M]:
    """``sets`` after each ``changed`` thing moved from the keys that it had to the keys that it has."""
    if not changed:
        return sets
    come: dict[_K, list[_M]] = defaultdict(list)
    gone: dict[_K, list[_M]] = defaultdict(list)
    for id_, before, after in changed:
        old = set() if before is None else set(keys_of(before))
        new = set() if after is None else set(keys_of(after))
        for key in new - old:
            come[key].append(id_)
        for key in old - new:
            gone[key].append(id_)
    draft = Draft(sets)
    for key in come.keys() | gone.keys():
        known = sets.get(key)
        left = EvolvingSet.of(come[key]) if known is None else known.evolve(come.get(key, ()), gone.get(key, ()))
        if left:
            draft[key] = left
        else:
            del draft[key]
    return draft.finish()


def _worn_on(counts: Counts, instances: Changed[InstanceId, Instance]) -> Counts:
    if not instances:
        return counts
    moved: dict[GroupId, dict[HostName, int]] = defaultdict(lambda: defaultdict(int))
    for _, before, after in instances:
        for instance, step in ((before, -1), (after, 1)):
            if instance is not None and instance.host is not None and is_port(instance):
                for group in instance.groups:
                    moved[group][instance.host] += step
    draft = Draft(counts)
    for group, steps in moved.items():
        known: Evolving[HostName, int] = draft.find(group) or Evolving()
        new = {host: known.get(host, 0) + step for host, step in steps.items() if step}
        left = known.evolve({host: count for host, count in new.items() if count}, [h for h, n in new.items() if not n])
        if left:
            draft[group] = left
        elif group in counts:
            del draft[group]
    return draft.finish()


def _peers(
    peers: Evolving[GroupId, PeerAddresses],
    after: Mapping[InstanceId, Instance],
    holders: Sets[Address, InstanceId],
    changed: tuple[Changed[GroupId, Group], Changed[InstanceId, Instance]],
) -> Evolving[GroupId, PeerAddresses]:
    """``peers`` after the change. An address is a member while at least one instance that holds it wears the group."""
    groups, instances = changed
    sourced = [(id_, new) for id_, old, new in groups if (old.sources if old else ()) != (new.sources if new else ())]
    if not instances and not sourced:
        return peers
    asked = _addresses(before for _, before, _ in instances)
    held = _addresses(now for _, _, now in instances)
    draft = Draft(peers)
    for id_ in asked.keys() | held.keys():
        gone = {a for a in asked[id_] if not any(id_ in after[one].groups for one in holders.get(a, ()))}
        known = peers.get(id_)
        if known is None:
            draft[id_] = PeerAddresses(EvolvingSet.of(held[id_]))
        else:
            assert isinstance(known.members, EvolvingSet)  # noqa: S101  narrows the type; no others are put here
            draft[id_] = replace(known, members=known.members.evolve(held[id_], gone))
    for id_, new in sourced:
        sources = frozenset(source.network for source in new.sources) if new else frozenset()
        draft[id_] = replace(draft.find(id_) or PeerAddresses(EvolvingSet.of()), sources=sources)
    for id_, _, peer in draft.changes():
        if peer is not None and not peer.members and not peer.sources:
            del draft[id_]
    return draft.finish()


def _addresses(instances: Iterable[Instance | None]) -> dict[GroupId, set[Address]]:
    """Each group that one of ``instances`` wears, with the addresses of its wearers among them."""
    found: dict[GroupId, set[Address]] = defaultdict(set)
    for instance in instances:
        if instance is not None:
            for group in instance.groups:
                found[group].update(instance.addresses)
    return found
