"""A snapshot: everything that policy depends on, whole at one revision, with the index of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ringfence.policy.evolving import evolving
from ringfence.policy.index import Index, next_index
from ringfence.policy.model import Group, Host, Instance, Organisation, Rule
from ringfence.policy.values import GroupId, HostName, InstanceId, OrganisationId, Revision


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that policy depends on, whole at one revision; its mappings are never changed in place."""

    revision: Revision = Revision(0)  # noqa: RUF009  an int, immutable
    organisations: Mapping[OrganisationId, Organisation] = field(default_factory=lambda: MappingProxyType({}))
    groups: Mapping[GroupId, Group] = field(default_factory=lambda: MappingProxyType({}))
    instances: Mapping[InstanceId, Instance] = field(default_factory=lambda: MappingProxyType({}))
    hosts: Mapping[HostName, Host] = field(default_factory=lambda: MappingProxyType({}))
    index: Index | None = field(default=None, compare=False, repr=False)  # to be read by ``index_of`` only


def index_of(snapshot: Snapshot) -> Index:
    """The snapshot's own index; a snapshot that was put together by hand has none and gets one, in O(everything)."""
    kept = snapshot.index
    if kept is not None and kept.groups is snapshot.groups and kept.instances is snapshot.instances:
        return kept
    groups = [(id_, None, group) for id_, group in snapshot.groups.items()]
    instances = [(id_, None, instance) for id_, instance in snapshot.instances.items()]
    return next_index(Index({}, {}), (snapshot.groups, snapshot.instances), groups, instances)


def indexed(snapshot: Snapshot) -> Snapshot:
    """The same snapshot with an index, from which ``apply_facts`` makes others in O(what changes). O(everything)."""
    whole = replace(
        snapshot,
        organisations=evolving(snapshot.organisations),
        groups=evolving(snapshot.groups),
        instances=evolving(snapshot.instances),
        hosts=evolving(snapshot.hosts),
    )
    return replace(whole, index=index_of(whole))


def forked(snapshot: Snapshot) -> Snapshot:
    """A copy of the snapshot from which another thread may make others (see ``Evolving``). O(everything)."""
    return indexed(
        replace(
            snapshot,
            organisations=dict(snapshot.organisations),
            groups=dict(snapshot.groups),
            instances=dict(snapshot.instances),
            hosts=dict(snapshot.hosts),
            index=None,
        )
    )


def expiring_rules(snapshot: Snapshot) -> Iterator[tuple[Group, Rule, int]]:
    """The rules that expire, with their group and expiry in seconds since 1970. O(rules of groups with such rules)."""
    for id_ in index_of(snapshot).expiring:
        group = snapshot.groups[id_]
        yield from ((group, rule, rule.expires_at) for rule in group.rules if rule.expires_at is not None)
