"""The lint findings that a change brings: only the groups that it concerns are linted, before and after.

Input: both versions of one population. Output: the findings after the change that were not there before.
"""

from collections.abc import Iterable
from itertools import chain

from ringfence.policy.evolving import differing
from ringfence.policy.index import named_groups
from ringfence.policy.insight.boxes import Box, meets
from ringfence.policy.insight.grants import Grants
from ringfence.policy.insight.lint import Finding
from ringfence.policy.insight.lint_reach import lint_groups
from ringfence.policy.insight.redundancy import Redundancy
from ringfence.policy.model import Group
from ringfence.policy.rule_words import describe_rule, group_name
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import Direction, GroupId


def new_findings(before: Grants, after: Grants) -> list[Finding]:
    """What ``lint`` finds after a change and not before; a rule replaced by an equal one counts as the same.

    O(groups that the change touches, and rules of other groups that it may make redundant or needed).
    """
    was, will = Redundancy(before), Redundancy(after)
    about, around = _concerned(was, will)
    known = {_about(was.snapshot, finding) for finding in lint_groups(was, about, around)}
    return [one for one in lint_groups(will, about, around) if _about(will.snapshot, one) not in known]


def _about(snapshot: Snapshot, finding: Finding) -> tuple[object, ...]:
    rules = snapshot.groups[finding.group].rules if finding.rule else ()
    said = next((describe_rule(snapshot, rule) for rule in rules if rule.id == finding.rule), finding.what)
    return finding.code, group_name(snapshot, finding.group), said


def _concerned(was: Redundancy, will: Redundancy) -> tuple[set[GroupId], set[GroupId]]:
    """The groups for which findings may differ, and those for whose wearers findings may differ.

    What lint finds about any other group follows from what did not change.
    """
    both = was.snapshot, will.snapshot
    changed = differing(was.snapshot.groups, will.snapshot.groups)
    worn = _worn_by_changed(*both)
    others = {one for one in changed if _is_other_peer(*(snapshot.groups.get(one) for snapshot in both))}
    naming = {group for snapshot in both for one in worn | others for group in index_of(snapshot).naming_of(one)}
    touched = changed | worn | naming
    found = touched | _turned(was, will, touched)
    named = {
        one
        for snapshot in both
        for id_ in changed & snapshot.groups.keys()
        for one in named_groups(snapshot.groups[id_])
    }
    names = {snapshot.groups[one].name for snapshot in both for one in found & snapshot.groups.keys()}
    alike = {group.id for snapshot in both for name in names for group in index_of(snapshot).groups_named(name)}
    return found | named | alike, _companions(was, will, touched)


def _worn_by_changed(before: Snapshot, after: Snapshot) -> set[GroupId]:
    moved = differing(before.instances, after.instances)
    known = (snapshot.instances.get(one) for snapshot in (before, after) for one in moved)
    return {group for instance in known if instance is not None for group in instance.groups}


def _is_other_peer(before: Group | None, after: Group | None) -> bool:
    """Whether rules that name the group as peer mean other addresses, or read differently."""
    return before is None or after is None or (before.name, before.sources) != (after.name, after.sources)


def _companions(was: Redundancy, will: Redundancy, groups: Iterable[GroupId]) -> set[GroupId]:
    return {one for redundancy in (was, will) for group in groups for one in redundancy.companions.of(group)}


def _turned(was: Redundancy, will: Redundancy, touched: set[GroupId]) -> set[GroupId]:
    """Groups besides ``touched`` with a rule that may have become redundant or needed, directly or through another."""
    found: set[GroupId] = set()
    for direction in Direction:
        groups = touched
        boxes = [box for group in touched for box in _differing(was, will, group, direction)]
        while boxes:
            near = _companions(was, will, groups) - found - touched
            groups = {group for group in near if _is_near(was, will, group, direction, boxes)}
            boxes = [box for group in groups for box in _flipped(was, will, group, direction)]
            found |= groups
    return found


def _differing(was: Redundancy, will: Redundancy, group: GroupId, direction: Direction) -> list[Box]:
    """What rules of a group allow in only one of the two versions."""
    before, after = ({*one.grants.of_rules(direction, group)} for one in (was, will))
    return [box for _, box in before ^ after]


def _is_near(was: Redundancy, will: Redundancy, group: GroupId, direction: Direction, boxes: list[Box]) -> bool:
    """Whether a rule of a group allows something that is in one of ``boxes``."""
    known = chain.from_iterable(one.grants.of_rules(direction, group) for one in (was, will))
    return any(meets(box, other) for _, box in known for other in boxes)


def _flipped(was: Redundancy, will: Redundancy, group: GroupId, direction: Direction) -> list[Box]:
    """What the rules of a group allow that are redundant in only one of the two versions."""
    before, after = ({one.rule.id for one, _ in each.needless([group], direction)} for each in (was, will))
    known = chain.from_iterable(one.grants.of_rules(direction, group) for one in (was, will))
    return [box for one, box in known if one.rule.id in before ^ after]
