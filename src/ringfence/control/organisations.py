"""Decisions of the server's operator on organisations: create, remove, set quotas. Pure."""

from collections.abc import Sequence

from ringfence.control.lookup import name_some
from ringfence.policy.errors import Conflict, Invalid
from ringfence.policy.facts import Fact, GroupCreated, LimitSet, OrganisationCreated, OrganisationRemoved
from ringfence.policy.model import Group, Organisation
from ringfence.policy.quota import UNLIMITED, Quota
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import GroupId, OrganisationId, parse_label


def decide_found(snapshot: Snapshot, name: str, id_: OrganisationId, default_group: GroupId) -> tuple[Fact, ...]:
    """A new organisation with its group ``default``, which has no rules; its name must be free."""
    parse_label(name, field="$.name")
    if any(organisation.name == name for organisation in snapshot.organisations.values()):
        raise Conflict(f"an organisation named {name} already exists")
    return (
        OrganisationCreated(Organisation(id_, name, default_group)),
        GroupCreated(Group(default_group, id_, "default", "Default Security Group")),
    )


def decide_end(snapshot: Snapshot, organisation: Organisation) -> tuple[Fact, ...]:
    """Removes an organisation that has nothing but its default group and keys, which go with it.

    The first organisation stays: public groups, and what names no organisation, belong to it.
    """
    if organisation.id == next(iter(snapshot.organisations)):
        raise Conflict(f"organisation {organisation.name} is the server's first and stays")
    left = [text for text in _what_is_left(snapshot, organisation) if text]
    if left:
        raise Conflict(f"organisation {organisation.name} cannot be removed: it has {' and '.join(left)}")
    return (OrganisationRemoved(organisation.id),)


def decide_limit(organisation: Organisation, quota: Quota, limit: int | None) -> tuple[Fact, ...]:
    """Sets a limit, or the default again (None); what exceeds a lower limit stays. No facts when it is already so."""
    if limit is not None and limit < UNLIMITED:
        raise Invalid(f"expected a number from 0, or {UNLIMITED} for no limit, got {limit}", field=f"$.{quota.value}")
    return () if organisation.limits.get(quota) == limit else (LimitSet(organisation.id, quota, limit),)


def _what_is_left(snapshot: Snapshot, organisation: Organisation) -> tuple[str, str, str]:
    id_ = organisation.id
    hosts = [host.name for host in snapshot.hosts.values() if host.organisation == id_]
    instances = [one.name for one in snapshot.instances.values() if one.organisation == id_]
    groups = [
        group.name
        for group in snapshot.groups.values()
        if group.organisation == id_ and group.id != organisation.default_group
    ]
    return _counted("host", hosts), _counted("instance", instances), _counted("group", groups)


def _counted(noun: str, names: Sequence[str]) -> str:
    return f"{noun}{'s' if len(names) > 1 else ''} {name_some(names)}" if names else ""
