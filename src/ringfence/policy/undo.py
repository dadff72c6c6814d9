"""PURE: what undoes a change, how much of that is still possible later, and how two states of a policy differ.

An organisation's policy is its groups with rules and external sources, which instances wear them, and which instances
are observed. Hosts, instances and quotas are no part of it and stay untouched. A restored rule or source comes last in
its group.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import assert_never

from ringfence.policy.errors import Conflict
from ringfence.policy.evolving import Draft, evolving
from ringfence.policy.facts import (
    Fact,
    GroupCreated,
    GroupDeleted,
    GroupFact,
    GroupTakenOff,
    GroupWorn,
    InstanceObserved,
    OrganisationCreated,
    RuleAdded,
    RuleDeleted,
    RuleExpires,
    SourceAdded,
    SourceRemoved,
    apply_facts,
    change_group,
    change_instance,
)
from ringfence.policy.index import named_groups
from ringfence.policy.model import Group, GroupPeer, Instance, Rule
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import GroupId, OrganisationId

WornFact = GroupWorn | GroupTakenOff | InstanceObserved
PolicyFact = GroupFact | WornFact


def undo_of(before: Snapshot, facts: Iterable[Fact]) -> tuple[PolicyFact, ...]:
    """The facts that lead back to ``before``, in the order to apply them. O(facts + rules of their groups).

    The creation of an organisation, and what came with it, cannot be undone: no facts.
    """
    facts = tuple(facts)
    if any(isinstance(fact, OrganisationCreated) for fact in facts):
        return ()
    groups = Draft(evolving(before.groups))
    found: list[PolicyFact] = []
    for fact in facts:
        match fact:
            case GroupWorn(instance, group):
                found.append(GroupTakenOff(instance, group))
            case GroupTakenOff(instance, group):
                found.append(GroupWorn(instance, group))
            case InstanceObserved(instance, observe):
                found.append(InstanceObserved(instance, not observe))
            case _ if isinstance(fact, GroupFact):
                found.append(_undo_of_group(groups, fact))
                change_group(groups, fact)
            case _:
                continue
    return tuple(reversed(found))


def _undo_of_group(groups: Draft[GroupId, Group], fact: GroupFact) -> GroupFact:
    match fact:
        case GroupCreated(group):
            return GroupDeleted(group.id)
        case GroupDeleted(id_):
            return GroupCreated(groups[id_])
        case RuleAdded(id_, rule):
            return RuleDeleted(id_, rule.id)
        case RuleDeleted(id_, rule_id) | RuleExpires(id_, rule_id):
            rule = next(rule for rule in groups[id_].rules if rule.id == rule_id)
            is_gone = isinstance(fact, RuleDeleted)
            return RuleAdded(id_, rule) if is_gone else RuleExpires(id_, rule_id, rule.expires_at)
        case SourceAdded(id_, source):
            return SourceRemoved(id_, source)
        case SourceRemoved(id_, source):
            return SourceAdded(id_, source)
        case _:
            assert_never(fact)


def still_undone(snapshot: Snapshot, undo: Iterable[Fact], *, now_s: int) -> tuple[PolicyFact, ...]:
    """The facts of ``undo`` that are still possible in ``snapshot``.

    What others did since stays: what they removed does not come back, what they added or have come to use stays.
    """
    state = _State(snapshot, now_s)
    facts: list[PolicyFact] = []
    for fact in undo:
        if isinstance(fact, GroupCreated):
            fact = state.without_impossible(fact)  # noqa: PLW2901
        if isinstance(fact, PolicyFact) and state.allows(fact):
            state.make_true(fact)
            facts.append(fact)
    return tuple(facts)


def rewind(snapshot: Snapshot, undo: Sequence[Fact]) -> Snapshot:
    """The snapshot as it was before the changes that ``undo`` undoes, the newest change first.

    What an instance wore that was removed since is passed over.

    Raises:
        Conflict: not all of it can be undone, because another organisation has come to use what would go.
    """
    facts = still_undone(snapshot, undo, now_s=0)
    if _about_groups(facts) < _about_groups(undo):
        raise Conflict("that policy cannot be had back whole: another organisation uses a group that would have to go")
    return apply_facts(snapshot, facts, revision=snapshot.revision) if facts else snapshot


def _about_groups(facts: Iterable[Fact]) -> int:
    return sum(isinstance(fact, GroupFact) for fact in facts)


class _State:
    """A snapshot while facts that undo something are made true in it."""

    def __init__(self, snapshot: Snapshot, now_s: int) -> None:
        self._index = index_of(snapshot)
        self._groups = Draft(evolving(snapshot.groups))
        self._instances = Draft(evolving(snapshot.instances))
        self._now_s = now_s

    def make_true(self, fact: PolicyFact) -> None:
        if isinstance(fact, WornFact):
            change_instance(self._instances, fact)
        else:
            change_group(self._groups, fact)

    def allows(self, fact: PolicyFact) -> bool:
        if isinstance(fact, WornFact):
            return self._allows_instance(fact)
        if isinstance(fact, GroupCreated):
            return self._is_free(fact.group)
        group = self._groups.find(fact.group)
        return group is not None and self._allows_in(group, fact)

    def without_impossible(self, fact: GroupCreated) -> GroupCreated:
        """The fact without the group's rules that cannot come back."""
        group = fact.group
        rules = tuple(rule for rule in group.rules if rule.peer == GroupPeer(group.id) or self._is_possible(rule))
        return GroupCreated(replace(group, rules=rules))

    def _allows_instance(self, fact: WornFact) -> bool:
        instance = self._instances.find(fact.instance)
        if instance is None:
            return False
        match fact:
            case InstanceObserved(observe=observe):
                return instance.observe is not observe
            case GroupWorn(group=group):
                return group not in instance.groups and self._groups.find(group) is not None
            case GroupTakenOff(group=group):
                return group in instance.groups
            case _:
                assert_never(fact)

    def _allows_in(self, group: Group, fact: GroupFact) -> bool:
        match fact:
            case GroupDeleted():
                return not (group.rules or group.sources or self._is_worn(group.id) or self._is_named(group.id))
            case RuleAdded(rule=rule):
                is_new = all(rule.id != one.id and not rule.same_as(one) for one in group.rules)
                return is_new and self._is_possible(rule)
            case RuleDeleted(rule=rule_id) | RuleExpires(rule=rule_id):
                return any(rule.id == rule_id for rule in group.rules)
            case SourceAdded(source=source):
                return all(one.network != source.network for one in group.sources)
            case SourceRemoved(source=source):
                return source in group.sources
            case _:
                return False

    def _is_possible(self, rule: Rule) -> bool:
        """Whether the peer group exists and the rule has not expired."""
        is_over = rule.expires_at is not None and rule.expires_at <= self._now_s
        return not is_over and (not isinstance(rule.peer, GroupPeer) or self._groups.find(rule.peer.group) is not None)

    def _is_free(self, group: Group) -> bool:
        """Whether no group has its id, and none of its kind its name."""
        known = {one.id for one in self._index.groups_named(group.name)} | {id_ for id_, _, _ in self._groups.changes()}
        others = [one for id_ in known if (one := self._groups.find(id_)) is not None]
        taken = (group.organisation, group.visibility, group.name)
        return self._groups.find(group.id) is None and all(
            (one.organisation, one.visibility, one.name) != taken for one in others
        )

    def _is_worn(self, group: GroupId) -> bool:
        ids = {*self._index.wearers_of(group), *(id_ for id_, _, _ in self._instances.changes())}
        return any(group in self._instances[id_].groups for id_ in ids)

    def _is_named(self, group: GroupId) -> bool:
        ids = {*self._index.naming_of(group), *(id_ for id_, _, _ in self._groups.changes())}
        naming = (one for id_ in ids if id_ != group and (one := self._groups.find(id_)) is not None)
        return any(group in named_groups(one) for one in naming)


def policy_difference(before: Snapshot, after: Snapshot, organisation: OrganisationId) -> tuple[PolicyFact, ...]:
    """The facts that turn the organisation's policy in ``before`` into that in ``after``. O(both).

    Deletions come first, groups last among them; then additions, groups first: so each can be made true in turn.
    """
    gone: list[PolicyFact] = []
    come: list[PolicyFact] = []
    old = {id_: group for id_, group in before.groups.items() if group.organisation == organisation}
    new = {id_: group for id_, group in after.groups.items() if group.organisation == organisation}
    for id_, group in old.items():
        kept = new.get(id_)
        if kept is not group:
            gone += _contents_lost(group, kept)
    for id_, group in new.items():
        known = old.get(id_)
        if known is not group:
            come += _contents_gained(known, group)
    for instance in after.instances.values():
        worn_before = before.instances.get(instance.id)
        if instance.organisation == organisation and worn_before is not None and worn_before is not instance:
            gone += [GroupTakenOff(instance.id, worn) for worn in worn_before.groups if worn not in instance.groups]
            come += _worn(worn_before, instance)
    created = [GroupCreated(replace(group, rules=(), sources=())) for id_, group in new.items() if id_ not in old]
    return (*gone, *(GroupDeleted(id_) for id_ in old if id_ not in new), *created, *come)


def _contents_lost(group: Group, kept: Group | None) -> Iterator[GroupFact]:
    rules = {rule.id for rule in kept.rules} if kept else set()
    sources = kept.sources if kept else ()
    yield from (RuleDeleted(group.id, rule.id) for rule in group.rules if rule.id not in rules)
    yield from (SourceRemoved(group.id, source) for source in group.sources if source not in sources)


def _contents_gained(known: Group | None, group: Group) -> Iterator[GroupFact]:
    rules = {rule.id: rule for rule in known.rules} if known else {}
    sources = known.sources if known else ()
    for rule in group.rules:
        if rule.id not in rules:
            yield RuleAdded(group.id, rule)
        elif rules[rule.id].expires_at != rule.expires_at:
            yield RuleExpires(group.id, rule.id, rule.expires_at)
    yield from (SourceAdded(group.id, source) for source in group.sources if source not in sources)


def _worn(known: Instance, instance: Instance) -> Iterator[WornFact]:
    yield from (GroupWorn(instance.id, worn) for worn in instance.groups if worn not in known.groups)
    if known.observe is not instance.observe:
        yield InstanceObserved(instance.id, instance.observe)
