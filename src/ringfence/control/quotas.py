"""Whether an organisation's quotas leave room for one more of something, and what it uses of each. Pure.

A count over everything is taken only when all organisations together have reached the limit of one: below it there is
room whatever the count would say, so that a change costs the same however much there is.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from ringfence.policy.errors import NotFound
from ringfence.policy.model import Group, Host, Instance, Organisation
from ringfence.policy.quota import UNLIMITED, Quota, require_room
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import GroupId, HostName, InstanceId, OrganisationId


@dataclass(frozen=True, slots=True)
class Usage:
    """``used`` of a limit that counts in groups or instances is that of the fullest one."""

    quota: Quota
    used: int
    limit: int


def require_room_for_group(snapshot: Snapshot, organisation: OrganisationId) -> None:
    """``QuotaReached`` when the organisation may have no further group; public ones count too."""
    _require(snapshot, Quota.GROUPS, organisation, snapshot.groups)


def room_for_instances(snapshot: Snapshot, organisation: OrganisationId, wanted: int) -> int:
    """How many of ``wanted`` further instances there may be."""
    limit = _owner(snapshot, organisation).limit(Quota.INSTANCES)
    if limit == UNLIMITED or len(snapshot.instances) + wanted <= limit:
        return wanted
    return max(0, limit - sum(one.organisation == organisation for one in snapshot.instances.values()))


def require_room_for_instance(snapshot: Snapshot, organisation: OrganisationId) -> None:
    """``QuotaReached`` when there may be no further instance."""
    _require(snapshot, Quota.INSTANCES, organisation, snapshot.instances)


def require_room_for_host(snapshot: Snapshot, organisation: OrganisationId) -> None:
    """``QuotaReached`` when there may be no further host."""
    _require(snapshot, Quota.HOSTS, organisation, snapshot.hosts)


def require_room_in_group(snapshot: Snapshot, group: Group, quota: Quota, used: int) -> None:
    """``QuotaReached`` when the group may have no further rule or source."""
    limit = snapshot.organisations[group.organisation].limit(quota)
    require_room(quota, limit, used, of=f"group {group.name}")


def require_room_to_wear(snapshot: Snapshot, instance: Instance, group: Group) -> None:
    """``QuotaReached`` when the instance may wear no further group, or the group have no further member.

    At birth it is not asked: what an instance is born with, the limit of instances bounds.
    """
    limits = snapshot.organisations[instance.organisation]
    require_room(Quota.WORN, limits.limit(Quota.WORN), len(instance.groups), of=f"instance {instance.name}")
    limit = limits.limit(Quota.MEMBERS)
    if UNLIMITED < limit <= len(snapshot.instances):
        require_room(Quota.MEMBERS, limit, len(index_of(snapshot).wearers_of(group.id)), of=f"group {group.name}")


def require_room_for_key(organisation: Organisation, keys: int) -> None:
    """``QuotaReached`` when the organisation, which has so many keys, may have no further one."""
    require_room(Quota.KEYS, organisation.limit(Quota.KEYS), keys, of=f"organisation {organisation.name}")


def usage_of(snapshot: Snapshot, organisation: Organisation, keys: int) -> tuple[Usage, ...]:
    """What the organisation uses of every limit. O(groups + instances + hosts)."""
    groups = [group for group in snapshot.groups.values() if group.organisation == organisation.id]
    instances = [one for one in snapshot.instances.values() if one.organisation == organisation.id]
    members = Counter(chain.from_iterable(one.groups for one in instances))
    used = {
        Quota.GROUPS: len(groups),
        Quota.RULES: max((len(group.rules) for group in groups), default=0),
        Quota.SOURCES: max((len(group.sources) for group in groups), default=0),
        Quota.MEMBERS: max(members.values(), default=0),
        Quota.WORN: max((len(one.groups) for one in instances), default=0),
        Quota.INSTANCES: len(instances),
        Quota.HOSTS: sum(host.organisation == organisation.id for host in snapshot.hosts.values()),
        Quota.KEYS: keys,
    }
    return tuple(Usage(quota, used[quota], organisation.limit(quota)) for quota in Quota)


def _require(
    snapshot: Snapshot,
    quota: Quota,
    id_: OrganisationId,
    things: Mapping[GroupId, Group] | Mapping[InstanceId, Instance] | Mapping[HostName, Host],
) -> None:
    organisation = _owner(snapshot, id_)
    limit = organisation.limit(quota)
    if UNLIMITED < limit <= len(things):
        own = sum(thing.organisation == id_ for thing in things.values())
        require_room(quota, limit, own, of=f"organisation {organisation.name}")


def _owner(snapshot: Snapshot, id_: OrganisationId) -> Organisation:
    organisation = snapshot.organisations.get(id_)
    if organisation is None:
        raise NotFound("the organisation was removed")
    return organisation
