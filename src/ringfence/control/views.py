"""Each host's view of a snapshot, kept from one snapshot to the next and resolved anew only where a change may matter.

Pure but for the cache. A view's revision is the newest one that changed what its host must enforce, so a host that a
change does not touch has nothing to do.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import assert_never

from ringfence.policy.facts import (
    Fact,
    GroupCreated,
    GroupDeleted,
    GroupTakenOff,
    GroupWorn,
    HostAdded,
    HostRemoved,
    InstanceCreated,
    InstanceObserved,
    InstancePlaced,
    LimitSet,
    OrganisationCreated,
    OrganisationRemoved,
    RuleAdded,
    RuleDeleted,
    SourceAdded,
    SourceRemoved,
)
from ringfence.policy.model import GroupPeer, Instance, Snapshot
from ringfence.policy.values import GroupId, HostName, InstanceId, Revision
from ringfence.policy.view import HostView, PeerAddresses, resolve_members, resolve_view

Views = Mapping[HostName, HostView]


@dataclass(frozen=True, slots=True)
class Change:
    """The views after a change, and the hosts that must enforce something else by it."""

    views: Views
    touched: frozenset[HostName]


def resolve_views(snapshot: Snapshot, wanted: Mapping[HostName, Revision]) -> Views:
    """The view of every host, as of the revision that last touched it. O(instances + members named + rules worn)."""
    resolver = Resolver(snapshot)
    return MappingProxyType({host: replace(resolver.view(host), revision=wanted[host]) for host in snapshot.hosts})


class Resolver:
    """``resolve_view`` for many hosts of one snapshot: each instance is looked at once, each peer resolved once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._on_host: dict[HostName | None, dict[InstanceId, Instance]] = defaultdict(dict)
        self._wearing: dict[GroupId, dict[InstanceId, Instance]] = defaultdict(dict)
        self._peers: dict[GroupId, PeerAddresses] = {}
        for instance in snapshot.instances.values():
            self._on_host[instance.host][instance.id] = instance
            for group in instance.groups:
                self._wearing[group][instance.id] = instance

    def view(self, host: HostName) -> HostView:
        """What ``resolve_view`` says of the host. O(its instances + their rules), and its peers' members once."""
        view = resolve_view(self._only(self._on_host.get(host, {})), host)
        return replace(view, peers=MappingProxyType({group: self._peer(group) for group in view.peers}))

    def _peer(self, group: GroupId) -> PeerAddresses:
        if group not in self._peers:
            wearers = self._only(self._wearing.get(group, {}))
            self._peers[group] = resolve_members(wearers, frozenset([group]))[group]
        return self._peers[group]

    def _only(self, instances: dict[InstanceId, Instance]) -> Snapshot:
        return replace(self._snapshot, instances=MappingProxyType(instances))


def change_views(views: Views, before: Snapshot, after: Snapshot, facts: Iterable[Fact]) -> Change:
    """The views of ``after``, given those of ``before`` and the facts between.

    O(rules + instances) for finding the hosts, the place for a reverse index; then as ``Resolver`` for each.
    """
    changed = dict(views)
    touched = set()
    resolver = Resolver(after)
    for host in affected_hosts(before, after, facts):
        if host not in after.hosts:
            changed.pop(host, None)
            continue
        view = resolver.view(host)
        if host not in changed or not view.same_policy(changed[host]):
            changed[host] = view
            touched.add(host)
    return Change(MappingProxyType(changed), frozenset(touched))


def affected_hosts(before: Snapshot, after: Snapshot, facts: Iterable[Fact]) -> frozenset[HostName]:
    """Every host whose view may differ, and some whose view does not: wearers of what changed, and of what names it."""
    groups: set[GroupId] = set()
    instances: set[InstanceId] = set()
    hosts: set[HostName] = set()
    for fact in facts:
        match fact:
            case OrganisationCreated() | OrganisationRemoved() | LimitSet():
                pass
            case HostAdded(host):
                hosts.add(host.name)
            case HostRemoved(name):
                hosts.add(name)
            case InstanceCreated(instance):
                instances.add(instance.id)
            case InstancePlaced(instance=id_) | InstanceObserved(instance=id_):
                instances.add(id_)
            case GroupWorn(id_, group) | GroupTakenOff(id_, group):
                instances.add(id_)
                groups.add(group)
            case GroupCreated() | GroupDeleted() | RuleAdded() | RuleDeleted() | SourceAdded() | SourceRemoved():
                groups.add(fact.group.id if isinstance(fact, GroupCreated) else fact.group)
            case _:
                assert_never(fact)
    for snapshot in (before, after):
        hosts |= _hosts_around(snapshot, groups, instances)
    return frozenset(hosts)


def _hosts_around(snapshot: Snapshot, groups: set[GroupId], instances: set[InstanceId]) -> set[HostName]:
    changed = [snapshot.instances[id_] for id_ in instances if id_ in snapshot.instances]
    as_peer = groups.union(*(instance.groups for instance in changed))
    naming = {
        group.id
        for group in snapshot.groups.values()
        if any(isinstance(rule.peer, GroupPeer) and rule.peer.group in as_peer for rule in group.rules)
    }
    worn = groups | naming
    wearers = (instance for instance in snapshot.instances.values() if not worn.isdisjoint(instance.groups))
    return {instance.host for instance in (*changed, *wearers) if instance.host is not None}


class ViewCache:
    """The views of the published snapshot and of those that came after it, found by the snapshot itself.

    Used in the writer's thread. A snapshot that was thrown away, because its commit failed, is never asked for again.
    """

    def __init__(self, published: Callable[[], Snapshot], views: Views) -> None:
        self._published = published
        self._kept: list[tuple[Snapshot, Views]] = [(published(), views)]

    def change(self, before: Snapshot, after: Snapshot, facts: Iterable[Fact]) -> Change:
        """As ``change_views``, with the views of ``before`` from memory."""
        change = change_views(self.views_of(before), before, after, facts)
        oldest = self._published().revision
        self._kept = [(kept, views) for kept, views in self._kept if kept.revision >= oldest]
        self._kept.append((after, change.views))
        return change

    def views_of(self, snapshot: Snapshot) -> Views:
        """The views of a snapshot that is published or followed from it."""
        return next(views for kept, views in reversed(self._kept) if kept is snapshot)
