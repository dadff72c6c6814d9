"""Dispatches every command to its decision, and names the group that its operation refers to. Pure."""

from collections.abc import Sequence
from typing import assert_never

from ringfence.control.actor import Actor
from ringfence.control.decide_groups import (
    Given,
    decide_add_rule,
    decide_add_source,
    decide_create_group,
    decide_delete_group,
    decide_delete_rule,
    decide_remove_source,
)
from ringfence.control.decide_instances import (
    decide_add_instance,
    decide_attach,
    decide_detach,
    decide_observe,
    decide_release,
    decide_remove_instance,
)
from ringfence.policy.commands import (
    AddInstance,
    AddRule,
    AddSource,
    Attach,
    CreateGroup,
    DeleteGroup,
    DeleteRule,
    Detach,
    Edit,
    GroupCommand,
    InstanceCommand,
    Observe,
    ReleaseInstance,
    RemoveInstance,
    RemoveSource,
)
from ringfence.policy.errors import CallerError, RingfenceError
from ringfence.policy.facts import Fact, apply_facts
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import GroupId, InstanceId


def decide(snapshot: Snapshot, command: GroupCommand | InstanceCommand, actor: Actor, given: Given) -> tuple[Fact, ...]:
    """The facts that follow from ``command``; none when everything it asks for is already so.

    Raises:
        Invalid, NotFound, Conflict, Denied: as the functions of ``decide_groups`` and ``decide_instances`` say.
    """
    match command:
        case Attach():
            return decide_attach(snapshot, command, actor)
        case Detach():
            return decide_detach(snapshot, command, actor)
        case AddInstance() | Observe() | ReleaseInstance() | RemoveInstance():
            return _decide_on_instance(snapshot, command, actor, given)
        case _:
            return _decide_on_group(snapshot, command, actor, given)


def decide_edits(
    snapshot: Snapshot, edits: Sequence[Edit], actor: Actor, *, now_s: int, offer_all: bool
) -> tuple[Fact, ...]:
    """The facts that follow from all edits, each decided over the result of those before it.

    Raises:
        Invalid, NotFound, Conflict, Denied: as ``decide``; among several edits the text says which one it was.
    """
    facts: tuple[Fact, ...] = ()
    working = snapshot
    for n, edit in enumerate(edits):
        try:
            decided = decide(working, edit.command, actor, Given(edit.new_id, now_s, offer_all))
        except RingfenceError as error:
            place = edit.field or (f"$.edits[{n}]" if len(edits) > 1 else None)
            raise error if place is None else _placed(error, place) from error
        facts += decided
        if decided and n + 1 < len(edits):
            working = apply_facts(working, decided, revision=snapshot.revision)
    return facts


def _placed(error: RingfenceError, place: str) -> RingfenceError:
    """The same refusal, with the place of its edit."""
    if not isinstance(error, CallerError):
        return type(error)(f"{place}: {error}")
    if error.field is None:
        return type(error)(str(error), field=place)
    return type(error)(str(error).removeprefix(f"{error.field}: "), field=place + error.field.removeprefix("$"))


def _decide_on_instance(snapshot: Snapshot, command: InstanceCommand, actor: Actor, given: Given) -> tuple[Fact, ...]:
    match command:
        case AddInstance():
            new_id = InstanceId(given.new_id)
            return decide_add_instance(snapshot, command, actor, new_id=new_id, now_s=given.now_s)
        case Observe():
            return decide_observe(snapshot, command, actor)
        case ReleaseInstance():
            return decide_release(snapshot, command, actor)
        case RemoveInstance():
            return decide_remove_instance(snapshot, command, actor)
        case _:
            assert_never(command)


def _decide_on_group(
    snapshot: Snapshot,
    command: CreateGroup | DeleteGroup | AddRule | DeleteRule | AddSource | RemoveSource,
    actor: Actor,
    given: Given,
) -> tuple[Fact, ...]:
    match command:
        case CreateGroup():
            return decide_create_group(snapshot, command, actor, new_id=given.new_id)
        case DeleteGroup():
            return decide_delete_group(snapshot, command, actor)
        case AddRule():
            return decide_add_rule(snapshot, command, actor, given)
        case DeleteRule():
            return decide_delete_rule(snapshot, command, actor)
        case AddSource():
            return decide_add_source(snapshot, command, actor)
        case RemoveSource():
            return decide_remove_source(snapshot, command, actor)
        case _:
            assert_never(command)


def referred_group(snapshot: Snapshot, edit: Edit, actor: Actor) -> GroupId:
    """The group that the operation of ``edit`` refers to, as with Exoscale, whatever in it is changed."""
    match edit.command:
        case CreateGroup():
            return GroupId(edit.new_id)
        case AddInstance() | Observe() | ReleaseInstance() | RemoveInstance():
            return snapshot.organisations[actor.organisation].default_group
        case command:
            return command.group


def subject_of(command: GroupCommand | InstanceCommand, referred: GroupId) -> str:
    """The subject of the audit line: the group, and what in it is changed."""
    match command:
        case CreateGroup() | AddInstance():
            name = command.name if isinstance(command, CreateGroup) else command.instance.name
            return f"{referred} {name}"
        case Observe() | ReleaseInstance() | RemoveInstance():
            return _instances_of(command)
        case DeleteRule():
            return f"{referred} rule {command.rule}"
        case AddSource() | RemoveSource():
            return f"{referred} source {command.source.text}"
        case Attach() | Detach():
            return f"{referred} instance {command.instance}"
        case _:
            return str(referred)


def _instances_of(command: Observe | ReleaseInstance | RemoveInstance) -> str:
    if not isinstance(command, Observe):
        return f"instance {command.instance}"
    many = len(command.instances)
    who = f"instance {command.instances[0]}" if many == 1 else f"{many} instances"
    return f"{who} {'observed' if command.observe else 'enforced'}"
