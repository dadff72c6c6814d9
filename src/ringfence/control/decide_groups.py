"""Decisions on groups, their rules and their external sources: pure, one function per command.

Input: a snapshot, a command, who asks, and an id for what is new. Output: the facts that follow (none when all is
already so), or an error. The store then makes them durable.
"""

from dataclasses import dataclass, replace
from uuid import UUID

from ringfence.control.actor import Actor
from ringfence.control.lookup import find_group_to_change, find_peer, name_some
from ringfence.control.quotas import require_room_for_group, require_room_in_group
from ringfence.policy.commands import (
    AddRule,
    AddSource,
    CreateGroup,
    DeleteGroup,
    DeleteRule,
    GroupReference,
    RemoveSource,
    RuleDraft,
)
from ringfence.policy.errors import Conflict, Denied, Invalid, NotFound
from ringfence.policy.facts import (
    Fact,
    GroupCreated,
    GroupDeleted,
    RuleAdded,
    RuleDeleted,
    RuleExpires,
    SourceAdded,
    SourceRemoved,
)
from ringfence.policy.model import Group, GroupPeer, Rule
from ringfence.policy.quota import Quota
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import Cidr, GroupId, OrganisationId, Protocol, RuleId, Visibility


@dataclass(frozen=True, slots=True)
class Given:
    """What a pure decision cannot get by itself: a new id, the time, a setting."""

    new_id: UUID  # of the group, rule or instance that it may create
    now_s: int  # seconds since the epoch
    offer_all: bool = False  # whether rules may have protocol "all"


def decide_create_group(snapshot: Snapshot, command: CreateGroup, actor: Actor, *, new_id: UUID) -> tuple[Fact, ...]:
    """A new group. Names are unique among an organisation's groups of one visibility; a retried create conflicts.

    Official clients look groups up by name and fail when two are found (egoscale, FindSecurityGroup).
    """
    if command.visibility is Visibility.PUBLIC and not actor.is_operator:
        raise Denied("public security groups are made by the operator of the server")
    if actor.scope is not None:
        raise Denied(f"key {actor.name} is limited to groups that there are: use one without a scope")
    for group in index_of(snapshot).groups_named(command.name):
        is_alike = group.visibility is command.visibility
        if is_alike and (group.organisation == actor.organisation or group.visibility is Visibility.PUBLIC):
            raise Conflict(f"a security group named {command.name} already exists")
    require_room_for_group(snapshot, actor.organisation)
    created = Group(GroupId(new_id), actor.organisation, command.name, command.description, command.visibility)
    return (GroupCreated(created),)


def decide_delete_group(snapshot: Snapshot, command: DeleteGroup, actor: Actor) -> tuple[Fact, ...]:
    """Deletes the group, unless it is ``default``, worn, or named by a rule of another group.

    Exoscale: "Cannot delete group when it's in use by virtual machines".
    """
    group = find_group_to_change(snapshot, command.group, actor)
    if any(organisation.default_group == group.id for organisation in snapshot.organisations.values()):
        raise Conflict(f"security group {group.name} cannot be deleted: new instances without a group wear it")
    dependents = _dependents(snapshot, group)
    if dependents:
        raise Conflict(f"security group {group.name} cannot be deleted: {' and '.join(dependents)}")
    return (GroupDeleted(group.id),)


def decide_add_rule(snapshot: Snapshot, command: AddRule, actor: Actor, given: Given) -> tuple[Fact, ...]:
    """Adds a rule, last in its group. If the group has an equal one, only prolongs that one, if need be.

    Terraform gives two equal rules the same id, and CloudStack, the service's ancestor, adds no second one.
    """
    group = find_group_to_change(snapshot, command.group, actor)
    if command.rule.protocol is Protocol.ALL and not given.offer_all:
        raise Invalid("protocol all is not offered here: add a rule per protocol", field="$.protocol")
    expires_at = None if command.lasts_s is None else given.now_s + command.lasts_s
    rule = _complete_rule(snapshot, command.rule, actor.organisation, RuleId(given.new_id))
    for present in group.rules:
        if rule.same_as(present):
            lasts = present.expires_at is None or (expires_at is not None and expires_at <= present.expires_at)
            return () if lasts else (RuleExpires(group.id, present.id, expires_at),)
    rule = replace(rule, expires_at=expires_at)
    require_room_in_group(snapshot, group, Quota.RULES, len(group.rules))
    return (RuleAdded(group.id, rule),)


def decide_delete_rule(snapshot: Snapshot, command: DeleteRule, actor: Actor) -> tuple[Fact, ...]:
    group = find_group_to_change(snapshot, command.group, actor)
    if all(rule.id != command.rule for rule in group.rules):
        raise NotFound(f"security group {group.name} has no rule {command.rule}")
    return (RuleDeleted(group.id, command.rule),)


def decide_add_source(snapshot: Snapshot, command: AddSource, actor: Actor) -> tuple[Fact, ...]:
    """Adds an external source, unless the group has that network already, in whatever spelling."""
    group = find_group_to_change(snapshot, command.group, actor)
    if _find_source(group, command.source):
        return ()
    require_room_in_group(snapshot, group, Quota.SOURCES, len(group.sources))
    return (SourceAdded(group.id, command.source),)


def decide_remove_source(snapshot: Snapshot, command: RemoveSource, actor: Actor) -> tuple[Fact, ...]:
    """Removes an external source, given in any spelling of its network."""
    group = find_group_to_change(snapshot, command.group, actor)
    present = _find_source(group, command.source)
    if present is None:
        raise NotFound(f"security group {group.name} has no external source {command.source.network}")
    return (SourceRemoved(group.id, present),)


def _find_source(group: Group, source: Cidr) -> Cidr | None:
    return next((present for present in group.sources if present.network == source.network), None)


def _complete_rule(snapshot: Snapshot, draft: RuleDraft, organisation: OrganisationId, id_: RuleId) -> Rule:
    if isinstance(draft.peer, GroupReference):
        peer: Cidr | GroupPeer = GroupPeer(find_peer(snapshot, draft.peer, organisation).id)
    else:
        peer = draft.peer
    return Rule(
        id=id_,
        direction=draft.direction,
        protocol=draft.protocol,
        peer=peer,
        start_port=draft.start_port,
        end_port=draft.end_port,
        icmp=draft.icmp,
        description=draft.description,
    )


def _dependents(snapshot: Snapshot, group: Group) -> list[str]:
    index = index_of(snapshot)
    wearers = [snapshot.instances[id_].name for id_ in index.wearers_of(group.id)]
    referring = [snapshot.groups[id_].name for id_ in index.naming_of(group.id) if id_ != group.id]
    found = []
    if wearers:
        found.append(f"in use by {_plural('instance', wearers)} {name_some(wearers)}")
    if referring:
        found.append(f"referenced by rules of {_plural('group', referring)} {name_some(referring)}")
    return found


def _plural(noun: str, counted: list[str]) -> str:
    return noun if len(counted) == 1 else f"{noun}s"
