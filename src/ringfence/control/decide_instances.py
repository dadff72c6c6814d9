"""Decisions on instances: attach and detach groups, add an instance without a host, observe. Pure."""

from ringfence.control.actor import Actor
from ringfence.control.lookup import find_group_to_change, find_instance
from ringfence.control.quotas import require_room_for_instance, require_room_to_wear
from ringfence.policy.commands import (
    AddInstance,
    Attach,
    Detach,
    InstanceClaim,
    Observe,
    ReleaseInstance,
    RemoveInstance,
)
from ringfence.policy.errors import Conflict, Denied
from ringfence.policy.facts import (
    Fact,
    GroupTakenOff,
    GroupWorn,
    InstanceCreated,
    InstanceObserved,
    InstanceReleased,
    InstanceRemoved,
)
from ringfence.policy.model import Instance
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import HostName, InstanceId, OrganisationId


def decide_attach(snapshot: Snapshot, command: Attach, actor: Actor) -> tuple[Fact, ...]:
    """The instance wears the group; no facts when it already does."""
    group = find_group_to_change(snapshot, command.group, actor)
    instance = find_instance(snapshot, command.instance, actor.organisation)
    if group.id in instance.groups:
        return ()
    require_room_to_wear(snapshot, instance, group)
    return (GroupWorn(instance.id, group.id),)


def decide_detach(snapshot: Snapshot, command: Detach, actor: Actor) -> tuple[Fact, ...]:
    """The instance wears the group no longer. After the last one it wears none: ingress closed, egress open."""
    group = find_group_to_change(snapshot, command.group, actor)
    instance = find_instance(snapshot, command.instance, actor.organisation)
    return (GroupTakenOff(instance.id, group.id),) if group.id in instance.groups else ()


def decide_add_instance(
    snapshot: Snapshot, command: AddInstance, actor: Actor, *, new_id: InstanceId, now_s: int
) -> tuple[Fact, ...]:
    """An instance without a host, which one host may claim later by its id.

    Its id, its name among the instances that no host is bound to, and its addresses must be free.
    """
    claim = command.instance
    id_ = claim.id or new_id
    if id_ in snapshot.instances:
        raise Conflict(f"an instance with id {id_} already exists")
    for other in index_of(snapshot).instances_named(claim.name):
        if other.organisation == actor.organisation and other.bound_to is None:
            raise Conflict(f"an instance named {claim.name} already exists")
    _require_free_addresses(snapshot, claim)
    require_room_for_instance(snapshot, actor.organisation)
    return (InstanceCreated(born_instance(snapshot, claim, actor.organisation, id_, host=None, now_s=now_s)),)


def decide_observe(snapshot: Snapshot, command: Observe, actor: Actor) -> tuple[Fact, ...]:
    """The instances are observed, or enforced again; no facts for those that already are."""
    if not actor.is_operator:
        raise Denied("only the operator of the server may have an instance observed")
    instances = [find_instance(snapshot, id_, actor.organisation) for id_ in command.instances]
    return tuple(InstanceObserved(one.id, command.observe) for one in instances if one.observe is not command.observe)


def decide_release(snapshot: Snapshot, command: ReleaseInstance, actor: Actor) -> tuple[Fact, ...]:
    """Another host may claim the instance, which keeps name and groups; no facts when no host is bound to it."""
    instance = _find_idle(snapshot, command.instance, actor)
    return () if instance.bound_to is None else (InstanceReleased(instance.id),)


def decide_remove_instance(snapshot: Snapshot, command: RemoveInstance, actor: Actor) -> tuple[Fact, ...]:
    """The instance is gone. A host that claims its id again has a new one, which wears the default group."""
    return (InstanceRemoved(_find_idle(snapshot, command.instance, actor).id),)


def born_instance(
    snapshot: Snapshot,
    claim: InstanceClaim,
    organisation: OrganisationId,
    id_: InstanceId,
    *,
    host: HostName | None,
    now_s: int,
) -> Instance:
    """A new instance: at birth, and only then, it wears the organisation's default group, and a host is observed."""
    return Instance(
        id=id_,
        organisation=organisation,
        name=claim.name,
        host=host,
        interfaces=claim.interfaces,
        groups=(snapshot.organisations[organisation].default_group,),
        realm=claim.realm,
        created_at=now_s,
        observe=claim.is_host,
        bound_to=host,
    )


def _find_idle(snapshot: Snapshot, id_: InstanceId, actor: Actor) -> Instance:
    """The instance; ``Conflict`` while a host runs it, which would claim it again with its next inventory."""
    if not actor.is_operator:
        raise Denied("only the operator of the server may release or remove an instance")
    instance = find_instance(snapshot, id_, actor.organisation)
    if instance.host is not None:
        raise Conflict(
            f"instance {instance.name} is on host {instance.host}: take it out of that host's inventory first"
            " (of a host that is lost: ringfence host remove)"
        )
    return instance


def _require_free_addresses(snapshot: Snapshot, claim: InstanceClaim) -> None:
    for address in sorted(claim.addresses, key=str):
        for other in index_of(snapshot).holding(address):
            if other.realm == claim.realm:
                raise Conflict(f"address {address} belongs to instance {other.name}")
    if len(set(claim.addresses)) < len(claim.addresses):
        raise Conflict("the same address is given twice")
