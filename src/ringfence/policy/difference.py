"""A snapshot and a policy document -> the edits that make the snapshot as the document says.

The edits are in an order in which each can be decided after the one before; there are none when nothing differs.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from uuid import UUID

from ringfence.policy.commands import (
    AddRule,
    AddSource,
    Attach,
    CreateGroup,
    DeleteGroup,
    DeleteRule,
    Detach,
    Edit,
    GroupCommand,
    GroupReference,
    InstanceCommand,
    Observe,
    RemoveSource,
    RuleDraft,
)
from ringfence.policy.desired import (
    DEFAULT,
    DEFAULT_KEY,
    DesiredGroup,
    DesiredInstance,
    Document,
    GroupKey,
    find_id,
    peer_field,
    rule_field,
)
from ringfence.policy.errors import Denied, Invalid
from ringfence.policy.export import desired_group, draft_of, meaning_of
from ringfence.policy.model import Group, GroupPeer, Instance, Rule
from ringfence.policy.named import find_instance_named
from ringfence.policy.rule_words import describe_rule
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import GroupId, InstanceId, OrganisationId, Visibility
from ringfence.policy.wording import shown


@dataclass(frozen=True, slots=True)
class Difference:
    """The edits, and in ``kept`` a sentence for each thing that stays although the document does not have it."""

    edits: tuple[Edit, ...]
    kept: tuple[str, ...] = ()


def difference(
    snapshot: Snapshot,
    organisation: OrganisationId,
    document: Document,
    new_id: Callable[[], UUID],
    *,
    prune: bool,
) -> Difference:
    """The edits after which everything that the document names exists, and with ``prune`` nothing else.

    Pruning deletes rules, sources and groups of the organisation, and detaches groups from the instances that the
    document names; other instances stay as they are. A rule that differs only in its description is replaced.
    O(groups + rules + instances).

    Raises:
        NotFound: a rule or an instance names a group, or the document an instance, that there is not.
        Denied: a public group of another organisation is not as the document says.
        Invalid: an instance is named twice, by its name and its id.
    """
    context = _context(snapshot, organisation, document, prune=prune, new_id=new_id)
    groups = document.groups
    if prune and all(group.key != DEFAULT_KEY for group in groups):
        groups = (*groups, DesiredGroup(DEFAULT))  # which cannot be deleted
    steps = list(
        chain(
            *(_settle_group(context, group) for group in groups),
            _settle_instances(context, document),
            _end_groups(context, document),
        )
    )
    done = [step for step in steps if step.kept is None or (prune and step.command)]
    edits = (
        Edit(step.command, step.new_id or new_id(), step.field) for step in sorted(done, key=_turn) if step.command
    )
    return Difference(tuple(edits), tuple(step.kept for step in steps if step.kept and not (prune and step.command)))


@dataclass(frozen=True, slots=True)
class _Step:
    """One edit, and the path in the document that asks for it. What ``goes`` (is deleted) is done before the rest.

    ``kept``: the edit is done only when pruning, and otherwise this sentence says what stays; a step without a
    command is never done and its sentence always said.
    """

    command: GroupCommand | InstanceCommand | None
    field: str
    goes: bool = False
    kept: str | None = None
    new_id: UUID | None = None


def _turn(step: _Step) -> int:
    """Deletions come first, so that quotas count what will be left; then new groups, because rules may name them."""
    return 0 if step.goes else 1 if isinstance(step.command, CreateGroup) else 2


@dataclass(frozen=True, slots=True)
class _Context:
    """What exists: the organisation's and all public groups, and in ``ids`` every group that the document may name."""

    snapshot: Snapshot
    organisation: OrganisationId
    present: dict[GroupKey, Group]
    ids: dict[GroupKey, GroupId]


def _context(
    snapshot: Snapshot, organisation: OrganisationId, document: Document, *, prune: bool, new_id: Callable[[], UUID]
) -> _Context:
    present = {
        (group.visibility, group.name): group
        for group in snapshot.groups.values()
        if group.organisation == organisation or group.visibility is Visibility.PUBLIC
    }
    named = {group.key for group in document.groups}
    default = snapshot.organisations[organisation].default_group
    ids = {
        key: group.id
        for key, group in present.items()
        if not prune or key in named or group.id == default or group.organisation != organisation
    }
    ids |= {group.key: GroupId(new_id()) for group in document.groups if group.key not in ids}
    return _Context(snapshot, organisation, present, ids)


def _settle_group(context: _Context, wanted: DesiredGroup) -> Iterator[_Step]:
    present = context.present.get(wanted.key)
    if present is not None and present.organisation != context.organisation:
        _require_alike(context, present, wanted)
        return
    if present is None:
        yield _creation(context, wanted)
        present = Group(context.ids[wanted.key], context.organisation, wanted.name, wanted.description)
    if wanted.description is not None and wanted.description != (present.description or ""):
        kept = f"group {shown(wanted.name)} keeps its description, which is given at birth and never changed"
        yield _Step(None, wanted.field, kept=kept)
    yield from _settle_sources(present, wanted)
    yield from _settle_rules(context, present, wanted)


def _creation(context: _Context, wanted: DesiredGroup) -> _Step:
    first = next(iter(context.snapshot.organisations.values()))
    if wanted.visibility is Visibility.PUBLIC and first.id != context.organisation:
        raise Denied(f"public groups belong to organisation {shown(first.name)}", field=wanted.field)
    command = CreateGroup(wanted.name, wanted.description, wanted.visibility)
    return _Step(command, wanted.field, new_id=context.ids[wanted.key])


def _require_alike(context: _Context, present: Group, wanted: DesiredGroup) -> None:
    def meant(group: DesiredGroup) -> tuple[object, object]:
        return {source.network for source in group.sources}, {meaning_of(rule) for rule in group.rules}

    if meant(desired_group(context.snapshot, present)) != meant(wanted):
        owner = shown(context.snapshot.organisations[present.organisation].name)
        told = f"belongs to organisation {owner} and is not as the file says: leave it out, or apply it there"
        raise Denied(f"public group {shown(wanted.name)} {told}", field=wanted.field)


def _settle_sources(present: Group, wanted: DesiredGroup) -> Iterator[_Step]:
    there = {source.network for source in present.sources}
    for n, source in enumerate(wanted.sources):
        if source.network not in there:
            yield _Step(AddSource(present.id, source), f"{wanted.field}.sources[{n}]")
    named = {source.network for source in wanted.sources}
    for source in present.sources:
        if source.network not in named:
            kept = f"group {shown(wanted.name)} keeps source {source.text}"
            yield _Step(RemoveSource(present.id, source), wanted.field, goes=True, kept=kept)


def _settle_rules(context: _Context, present: Group, wanted: DesiredGroup) -> Iterator[_Step]:
    """Keeps the rules that are wanted, replaces those whose description differs, deletes the rest.

    Rules with an expiry are left alone: a file cannot say them.
    """
    there: dict[object, dict[object, Rule]] = defaultdict(dict)
    surplus: list[Rule] = []
    for rule in (rule for rule in present.rules if rule.expires_at is None):
        *said, description = meaning_of(draft_of(context.snapshot, rule))
        if there[tuple(said)].setdefault(description, rule) is not rule:
            surplus.append(rule)
    named: dict[object, dict[object, int]] = defaultdict(dict)
    for n, draft in enumerate(wanted.rules):
        *said, description = meaning_of(draft)
        named[tuple(said)].setdefault(description, n)
    for key, numbers in named.items():
        alike = there.pop(key, {})
        others = [rule for description, rule in alike.items() if description not in numbers]
        for n in (number for description, number in numbers.items() if description not in alike):
            if others:
                yield _Step(DeleteRule(present.id, others.pop(0).id), rule_field(wanted, n), goes=True)
            yield _Step(AddRule(present.id, _named_by_id(context, wanted, n)), rule_field(wanted, n))
        surplus += others
    for rule in chain(surplus, *(alike.values() for alike in there.values())):
        kept = f"group {shown(wanted.name)} keeps rule {rule.id}, {describe_rule(context.snapshot, rule)}"
        yield _Step(DeleteRule(present.id, rule.id), wanted.field, goes=True, kept=kept)


def _named_by_id(context: _Context, wanted: DesiredGroup, index: int) -> RuleDraft:
    draft = wanted.rules[index]
    if not isinstance(draft.peer, GroupReference):
        return draft
    key = draft.peer.visibility, draft.peer.name or ""
    id_ = find_id(context.ids, key, peer_field(wanted, index))
    return replace(draft, peer=GroupReference(id_, draft.peer.name, draft.peer.visibility))


def _settle_instances(context: _Context, document: Document) -> Iterator[_Step]:
    own = {id_: one for id_, one in context.snapshot.instances.items() if one.organisation == context.organisation}
    snapshot = replace(context.snapshot, instances=own)
    named: dict[str, list[Instance]] = defaultdict(list)
    for one in own.values():
        named[one.name].append(one)
        named[str(one.id)].append(one)
    settled: set[InstanceId] = set()
    for wanted in document.instances:
        found = named.get(wanted.name, [])
        present = found[0] if len(found) == 1 else find_instance_named(snapshot, wanted.name, field=wanted.field)
        if present.id in settled:
            raise Invalid(f"instance {shown(present.name)} is named above, too", field=wanted.field)
        settled.add(present.id)
        yield from _settle_worn(context, present, wanted)
        if wanted.observe is not None and wanted.observe is not present.observe:
            yield _Step(Observe((present.id,), wanted.observe), f"{wanted.field}.observe")


def _settle_worn(context: _Context, present: Instance, wanted: DesiredInstance) -> Iterator[_Step]:
    if wanted.groups is None:
        return
    ids = {find_id(context.ids, key, field): field for field, key in wanted.worn.items()}
    for id_, field in ids.items():
        if id_ not in present.groups:
            yield _Step(Attach(id_, present.id), field)
    for id_ in present.groups:
        if id_ not in ids:
            kept = f"instance {shown(present.name)} keeps wearing group {shown(context.snapshot.groups[id_].name)}"
            yield _Step(Detach(id_, present.id), f"{wanted.field}.groups", goes=True, kept=kept)


def _end_groups(context: _Context, document: Document) -> Iterator[_Step]:
    """Deletes groups. They may name each other, so the rules by which they do are deleted first."""
    named = {group.key for group in document.groups}
    default = context.snapshot.organisations[context.organisation].default_group
    ended = [
        group
        for key, group in context.present.items()
        if key not in named and group.organisation == context.organisation and group.id != default
    ]
    for group in ended:
        for rule in group.rules:
            if isinstance(rule.peer, GroupPeer) and rule.peer.group != group.id:
                yield _Step(DeleteRule(group.id, rule.id), "$.groups", goes=True, kept="")
    for group in ended:
        kept = f"group {shown(group.name)} stays"
        yield _Step(DeleteGroup(group.id), "$.groups", goes=True, kept=kept)
