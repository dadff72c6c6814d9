"""Redundant rules: others allow all that they do. All rules found redundant can be deleted together.

Input: the grants of one version. Whether a rule is redundant depends on the rules that stay, so they are decided in a
fixed order, the last rule first; only the rules asked about, and those they depend on, are decided.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from ringfence.policy.insight.boxes import Box, left_of, meets
from ringfence.policy.insight.grants import Grants
from ringfence.policy.insight.lint import lasts_as_long, shadowed_by
from ringfence.policy.insight.population import NOBODY
from ringfence.policy.model import Rule
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import Direction, GroupId
from ringfence.policy.verdict import Allowance

Allowed = list[tuple[Allowance, Box]]


class Companions:
    """For each group, the groups that some instance wears together with it."""

    def __init__(self, grants: Grants) -> None:
        self._population = grants.population
        self._version = grants.version
        self._found: dict[GroupId, frozenset[GroupId]] = {}

    def of(self, group: GroupId) -> frozenset[GroupId]:
        """The groups worn together with ``group``, itself included, if anybody wears it. O(wearers), then cached."""
        if group not in self._found:
            wearers = self._population.chosen(self._population.worn[self._version].get(group, NOBODY))
            worn = {role.groups for one in wearers if (role := one.roles[self._version]) is not None}
            self._found[group] = frozenset(one for groups in worn for one in groups)
        return self._found[group]


class Redundancy:
    """The redundant rules of one version of a population."""

    def __init__(self, grants: Grants) -> None:
        self.grants = grants
        self.companions = Companions(grants)
        self._ways = {direction: _Way(grants, direction, self.companions) for direction in Direction}

    @property
    def snapshot(self) -> Snapshot:
        return self.grants.population.snapshots[self.grants.version]

    def needless(self, groups: Iterable[GroupId], direction: Direction) -> Iterator[tuple[Allowance, tuple[Rule, ...]]]:
        """Each redundant rule of ``groups``, with the rules that allow what it does; the last rule first."""
        return self._ways[direction].needless(groups)


class _Way:
    """The same among the rules of one direction."""

    def __init__(self, grants: Grants, direction: Direction, companions: Companions) -> None:
        self._grants = grants
        self._snapshot = grants.population.snapshots[grants.version]
        self._direction = direction
        self._companions = companions
        self._own: dict[GroupId, dict[Allowance, Allowed]] = {}
        self._place: dict[Allowance, tuple[GroupId, int]] = {}  # the order in which rules are decided, last first
        self._near: dict[GroupId, Allowed] = {}
        self._shadowed: dict[GroupId, frozenset[Rule]] = {}
        self._by: dict[Allowance, tuple[Rule, ...]] = {}  # what a decided rule is covered by; empty if it has to stay

    def needless(self, groups: Iterable[GroupId]) -> Iterator[tuple[Allowance, tuple[Rule, ...]]]:
        """As ``Redundancy.needless``."""
        wanted = [one for group in sorted(groups, reverse=True) for one in reversed([*self._boxes(group)])]
        self._decide(wanted)
        return ((one, by) for one in wanted if (by := self._by[one]))

    def _decide(self, wanted: Iterable[Allowance]) -> None:
        open_, doubtful = [*wanted], set[Allowance]()
        while open_:
            one = open_.pop()
            if one in self._by or one in doubtful:
                continue
            if covering := self._covering(one):
                doubtful.add(one)
                open_ += (other for other in covering if self._place[other] > self._place[one])
            else:
                self._by[one] = ()
        for one in sorted(doubtful, key=self._place.__getitem__, reverse=True):
            self._by[one] = tuple(dict.fromkeys(other.rule for other in self._covering(one)))

    def _covering(self, one: Allowance) -> list[Allowance]:
        """The rules that together allow all that ``one`` does, for as long; none if it is needed."""
        found: list[Allowance] = []
        for _, box in () if one.rule in self._shadows(one.group) else self._boxes(one.group)[one]:
            parts = [
                near
                for near in self._around(one.group)
                if meets(near[1], box) and near[0].rule.id != one.rule.id and self._may_replace(near[0], one)
            ]
            if next(left_of(box, [other for _, other in parts]), None) is not None:
                return []
            found += [other for other, _ in parts]
        return found

    def _may_replace(self, other: Allowance, one: Allowance) -> bool:
        is_gone = bool(self._by.get(other)) and self._place[other] > self._place[one]
        return not is_gone and lasts_as_long(other.rule, one.rule)

    def _boxes(self, group: GroupId) -> dict[Allowance, Allowed]:
        if group not in self._own:
            own: dict[Allowance, Allowed] = defaultdict(list)
            for allowance, box in self._grants.of_rules(self._direction, group):
                own[allowance].append((allowance, box))
            self._own[group] = own
            self._place |= {allowance: (group, place) for place, allowance in enumerate(own)}
        return self._own[group]

    def _around(self, group: GroupId) -> Allowed:
        """What the rules of a group's companions allow, without the shadowed ones."""
        if group not in self._near:
            self._near[group] = [
                one
                for other in sorted(self._companions.of(group))
                for allowance, boxes in self._boxes(other).items()
                if allowance.rule not in self._shadows(other)
                for one in boxes
            ]
        return self._near[group]

    def _shadows(self, group: GroupId) -> frozenset[Rule]:
        if group not in self._shadowed:
            self._shadowed[group] = frozenset(shadowed_by(self._snapshot.groups[group]))
        return self._shadowed[group]
