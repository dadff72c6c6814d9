"""What each host shall enforce: the revision that last changed its view, and the view's digest, for every snapshot.

Pure but for the cache. A change finds the hosts it touches by the snapshot's index, and computes what is new once for
all hosts that are alike; views themselves are not kept, for they can be resolved from the snapshot.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from ringfence.policy.evolving import Evolving, differing
from ringfence.policy.facts import (
    AssertionsSet,
    Fact,
    GroupCreated,
    GroupTakenOff,
    GroupWorn,
    HostAdded,
    HostInvited,
    HostJoined,
    HostRemoved,
    InstanceCreated,
    InstanceObserved,
    InstancePlaced,
    InstanceReleased,
    InstanceRemoved,
    LimitSet,
    OrganisationCreated,
    OrganisationRemoved,
    TrialBegun,
    TrialEnded,
)
from ringfence.policy.index import is_port, named_groups
from ringfence.policy.model import Group, Instance
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import GroupId, HostName, InstanceId, Revision
from ringfence.policy.view import HostView, resolve_view
from ringfence.policy.view_changes import (
    Digest,
    ViewChange,
    add_digests,
    diff_peer,
    diff_rules,
    diff_views,
    digest_difference,
    digest_endpoint,
    digest_peer,
    digest_peer_difference,
    digest_rules,
    digest_rules_difference,
    move_digests,
)


class Wanted(NamedTuple):
    """``revision`` is the last one that changed what the host must enforce, ``digest`` that of its view."""

    revision: Revision
    digest: Digest


@dataclass(frozen=True, slots=True)
class Views:
    """What is wanted of every host, as two mappings, so that updating very many hosts takes few steps."""

    revisions: Evolving[HostName, Revision]
    digests: Evolving[HostName, Digest]

    def evolve(self, revision: Revision, digests: Mapping[HostName, Digest], gone: frozenset[HostName]) -> "Views":
        """The views without the hosts ``gone``, and with new ``digests`` at ``revision``."""
        revisions = self.revisions.evolve(dict.fromkeys(digests, revision), gone)
        return Views(revisions, self.digests.evolve(digests, gone))

    def __getitem__(self, host: HostName) -> Wanted:
        return Wanted(self.revisions[host], self.digests[host])

    def __contains__(self, host: HostName) -> bool:
        return host in self.revisions


@dataclass(frozen=True, slots=True)
class Change:
    """The views of ``snapshot``; ``touched`` has the hosts that must enforce something else, with what is new.

    Hosts for which the same is new share one tuple. ``removed`` are hosts that no longer exist.
    """

    snapshot: Snapshot
    views: Views
    touched: Mapping[HostName, tuple[ViewChange, ...]]
    removed: frozenset[HostName] = frozenset()


def resolve_views(snapshot: Snapshot, wanted: Mapping[HostName, Revision]) -> Views:
    """The views of all hosts; ``wanted`` has the revision that last touched each. O(everything that is enforced)."""
    index = index_of(snapshot)
    worn = {
        group: digest_rules(group, snapshot.groups[group].rules) for group in index.worn_on if group in snapshot.groups
    }
    named = {group: digest_peer(group, index.peer(group)) for group in index.naming}

    def digest(host: HostName) -> Digest:
        view = resolve_view(snapshot, host)
        parts = [*map(digest_endpoint, view.endpoints), *(worn[group] for group in view.rules)]
        return add_digests([*parts, *(named[group] for group in view.peers)])

    hosts = snapshot.hosts
    return Views(Evolving({host: wanted[host] for host in hosts}), Evolving({host: digest(host) for host in hosts}))


def wanted_view(snapshot: Snapshot, views: Views, host: HostName) -> HostView:
    """The whole view of ``host``, at the revision that last touched it."""
    return replace(resolve_view(snapshot, host), revision=views[host].revision)


def change_views(views: Views, before: Snapshot, after: Snapshot, facts: Iterable[Fact]) -> Change:
    """The views of ``after``, given those of ``before`` and the facts between. O(what changed + hosts touched)."""
    subjects = _Subjects.of(facts)
    added = {host for host in subjects.hosts if host in after.hosts and host not in views}
    gone = frozenset(host for host in subjects.hosts if host not in after.hosts)
    touched: dict[HostName, tuple[ViewChange, ...]] = dict.fromkeys(added, ())
    digests = dict.fromkeys(added, Digest(0))
    for hosts, news in _Step(before, after, subjects).news():
        known = views.digests.some(hosts) | {host: digests[host] for host in added.intersection(hosts)}
        for host in gone:
            known.pop(host, None)
        digests |= move_digests(known, news.digest)
        touched |= dict.fromkeys(known, news.changes)
    return Change(after, views.evolve(after.revision, digests, gone), MappingProxyType(touched), gone)


def find_touched(before: Snapshot, after: Snapshot) -> list[HostName]:
    """The hosts that have to enforce something else after a change than before it, by name."""
    groups, instances = differing(before.groups, after.groups), differing(before.instances, after.instances)
    news = _Step(before, after, _Subjects(groups, instances, set())).news()
    return sorted(host for hosts, _ in news for host in hosts)


@dataclass(frozen=True, slots=True)
class _Subjects:
    """The groups, instances and hosts that facts are about."""

    groups: set[GroupId]
    instances: set[InstanceId]
    hosts: set[HostName]

    @classmethod
    def of(cls, facts: Iterable[Fact]) -> "_Subjects":
        found = cls(set(), set(), set())
        for fact in facts:
            found._note(fact)
        return found

    def _note(self, fact: Fact) -> None:
        match fact:
            case OrganisationCreated() | OrganisationRemoved() | LimitSet() | AssertionsSet():
                pass
            case TrialBegun() | TrialEnded():
                pass
            case HostInvited() | HostJoined():
                pass
            case HostAdded(host):
                self.hosts.add(host.name)
            case HostRemoved(name):
                self.hosts.add(name)
            case InstanceCreated(instance):
                self.instances.add(instance.id)
            case InstancePlaced(instance=id_) | InstanceObserved(instance=id_) | InstanceRemoved(instance=id_):
                self.instances.add(id_)
            case InstanceReleased():
                pass
            case GroupWorn(id_) | GroupTakenOff(id_):
                self.instances.add(id_)
            case _:
                self.groups.add(fact.group.id if isinstance(fact, GroupCreated) else fact.group)


@dataclass(frozen=True, slots=True)
class _News:
    """What is new for a host, and what that adds to its digest."""

    changes: tuple[ViewChange, ...]
    digest: Digest


class _Turn(Enum):
    """How a group may change in the views of hosts whose own instances do not."""

    RULES = "it is worn there, and has other rules"
    PEER = "it is named there, and has other addresses"
    NAMED = "it is named there, and was not"
    UNNAMED = "it is named there no more"


_Turns = dict[tuple[_Turn, GroupId], set[HostName]]  # on which hosts


class _Step:
    """Finds, between two snapshots, for which hosts what is new."""

    def __init__(self, before: Snapshot, after: Snapshot, subjects: _Subjects) -> None:
        self._before, self._after = before, after
        self._old, self._new = index_of(before), index_of(after)
        self._subjects = subjects
        self._known: dict[frozenset[tuple[_Turn, GroupId]], _News] = {}

    def news(self) -> Iterator[tuple[Iterable[HostName], _News]]:
        """All hosts that must enforce something else, each once, grouped by what is new for them."""
        instances = [
            found
            for id_ in self._subjects.instances
            for index in (self._old, self._new)
            if (found := index.instances.get(id_))
        ]
        movers = {instance.host for instance in instances if instance.host is not None}
        for host in movers:
            before, after = resolve_view(self._before, host), resolve_view(self._after, host)
            changes = diff_views(before, after)
            if changes:
                yield (host,), _News(changes, digest_difference(before, after))
        for turns, hosts in _alike(self._turns(instances)):
            if (news := self._turned(turns)).changes:
                yield hosts - movers if movers else hosts, news

    def _turns(self, instances: list[Instance]) -> _Turns:
        """What changes on which hosts because of groups."""
        found: _Turns = {}
        for group in self._subjects.groups:
            old, new = self._old.groups.get(group), self._new.groups.get(group)
            if old is not None and new is not None and old.rules is not new.rules:
                self._turn_rules(old, new, found)
        for group in self._subjects.groups.union(*(instance.groups for instance in instances)):
            old_peer, new_peer = self._old.peer(group), self._new.peer(group)
            if old_peer is not new_peer and old_peer != new_peer:
                naming = self._old.naming_of(group) | self._new.naming_of(group)
                hosts = set[HostName]().union(*map(self._new.hosts_of, naming))
                for turn in (_Turn.NAMED, _Turn.UNNAMED):
                    hosts -= found.get((turn, group), set())
                found[(_Turn.PEER, group)] = hosts
        return found

    def _turn_rules(self, old: Group, new: Group, found: _Turns) -> None:
        named_before, named_after = named_groups(old), named_groups(new)
        found[(_Turn.RULES, new.id)] = set(self._new.hosts_of(new.id))
        for peer in named_after - named_before:
            hosts = self._naming_nowhere_else(self._old.naming_of(peer), new.id)
            found.setdefault((_Turn.NAMED, peer), set()).update(hosts)
        for peer in named_before - named_after:
            hosts = self._naming_nowhere_else(self._new.naming_of(peer), new.id)
            found.setdefault((_Turn.UNNAMED, peer), set()).update(hosts)

    def _naming_nowhere_else(self, naming: AbstractSet[GroupId], group: GroupId) -> Iterator[HostName]:
        """The hosts on which ``group`` is worn and none of the groups ``naming`` is."""
        for host in self._new.hosts_of(group):
            if not naming or not any(
                worn in naming for one in self._new.on(host) if is_port(one) for worn in one.groups
            ):
                yield host

    def _turned(self, turns: frozenset[tuple[_Turn, GroupId]]) -> _News:
        if turns not in self._known:
            changes, digests = [], []
            for turn, group in sorted(turns, key=lambda each: (each[0].name, each[1])):
                change, digest = self._part(turn, group)
                if change is not None:
                    changes.append(change)
                    digests.append(digest)
            self._known[turns] = _News(tuple(changes), add_digests(digests))
        return self._known[turns]

    def _part(self, turn: _Turn, group: GroupId) -> tuple[ViewChange | None, Digest]:
        if turn is _Turn.RULES:
            rules = self._before.groups[group].rules, self._after.groups[group].rules
            return diff_rules(group, *rules), digest_rules_difference(group, *rules)
        before = None if turn is _Turn.NAMED else self._old.peer(group)
        after = None if turn is _Turn.UNNAMED else self._new.peer(group)
        return diff_peer(group, before, after), digest_peer_difference(group, before, after)


def _alike(turns: _Turns) -> Iterator[tuple[frozenset[tuple[_Turn, GroupId]], set[HostName]]]:
    """The hosts grouped by what changes for them."""
    if len(turns) == 1:  # as in most changes, perhaps on every host
        yield from ((frozenset({turn}), hosts) for turn, hosts in turns.items())
        return
    of_host: dict[HostName, set[tuple[_Turn, GroupId]]] = defaultdict(set)
    for turn, hosts in turns.items():
        for host in hosts:
            of_host[host].add(turn)
    found: dict[frozenset[tuple[_Turn, GroupId]], set[HostName]] = defaultdict(set)
    for host, its in of_host.items():
        found[frozenset(its)].add(host)
    yield from found.items()


class ViewCache:
    """The views of the published snapshot and of those made from it, looked up by the snapshot.

    Used in the writer's thread. A snapshot whose commit failed is never asked for again.
    """

    def __init__(self, published: Callable[[], Snapshot], views: Views) -> None:
        self._published = published
        self._kept = deque([(published(), views)])

    def change(self, before: Snapshot, after: Snapshot, facts: Iterable[Fact]) -> Change:
        """As ``change_views``, with the views of ``before`` from memory."""
        change = change_views(self.views_of(before), before, after, facts)
        oldest = self._published().revision
        while self._kept[0][0].revision < oldest:
            self._kept.popleft()
        self._kept.append((after, change.views))
        return change

    def views_of(self, snapshot: Snapshot) -> Views:
        """The views of a snapshot that is published or followed from it."""
        return next(views for kept, views in reversed(self._kept) if kept is snapshot)
