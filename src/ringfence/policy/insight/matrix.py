"""The whole group x group matrix: what some member of the one can ask of some member of the other, and by which rules.

Rows that see the same of a column share one cell, so that a thousand groups that all may reach one cost what one does.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import or_

from ringfence.policy.insight.grants import Flow, Grants, Question
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.population import bits_of, numbers_of
from ringfence.policy.insight.reach import Reasons
from ringfence.policy.values import GroupId

INTERNET_ROW = 0  # groups follow from 1, in the order of ``Matrix.groups``


@dataclass(frozen=True, slots=True)
class Cell:
    """Services that pass between some of the row and some of the column, by the ``flows`` that cells share."""

    services: Intervals
    flows: tuple[list[Flow], ...]

    @property
    def reasons(self) -> Reasons:
        """Every pair of reasons that implies one of the services. O(flows)."""
        return frozenset((flow.egress, flow.ingress) for shared in self.flows for flow in shared)


@dataclass(frozen=True, slots=True)
class Matrix:
    """``columns[n]`` holds the cells of a column that are not empty, each with its rows as a set of numbers."""

    groups: tuple[GroupId, ...]
    columns: tuple[tuple[tuple[int, Cell], ...], ...]

    def cells(self) -> Iterator[tuple[int, int, Cell]]:
        """Every cell that is not empty: row, column, and what is in it."""
        for column, cells in enumerate(self.columns):
            for rows, cell in cells:
                yield from ((row, column, cell) for row in numbers_of(rows))


class _Membership:
    """Which rows a set of classes concerns."""

    def __init__(self, grants: Grants, version: int) -> None:
        population = grants.population
        self.groups = tuple(sorted(population.snapshots[version].groups))
        ends = [population.internet, *(population.peers[version].get(group, 0) for group in self.groups)]
        self._rows: dict[int, int] = defaultdict(int)
        self._ends = ends
        for row, bits in enumerate(ends):
            for number in numbers_of(bits):
                self._rows[number] |= 1 << row
        self._known: dict[int, int] = {}

    def rows_of(self, bits: int) -> int:
        """The rows of which somebody is in ``bits``."""
        if bits not in self._known:
            few = bits.bit_count() < len(self._ends)
            self._known[bits] = (
                reduce(or_, (self._rows.get(number, 0) for number in numbers_of(bits)), 0)
                if few
                else sum(1 << row for row, end in enumerate(self._ends) if end & bits)
            )
        return self._known[bits]


def draw_matrix(grants: Grants, version: int = 0) -> Matrix:
    """The matrix of one snapshot of the grants' population, the internet's row and column first."""
    membership = _Membership(grants, version)
    columns: list[dict[int, list[Flow]]] = [defaultdict(list) for _ in range(len(membership.groups) + 1)]
    for flow in grants.flows(Question()):
        if not _is_lonely(grants, flow):
            rows = membership.rows_of(flow.sources)
            for column in numbers_of(membership.rows_of(flow.destinations)) if rows else ():
                columns[column][rows].append(flow)
    return Matrix(membership.groups, tuple(tuple(_cells(column)) for column in columns))


def _is_lonely(grants: Grants, flow: Flow) -> bool:
    """Whether it leads only from an instance to itself."""
    if flow.sources != flow.destinations or flow.sources.bit_count() > 1:
        return False
    [kind] = grants.population.chosen(flow.sources)
    return len({one.instance for one in kind.dwellers}) == 1


def _cells(column: dict[int, list[Flow]]) -> Iterator[tuple[int, Cell]]:
    entries = [(rows, _services(flows), flows) for rows, flows in column.items()]
    held_by: dict[int, list[int]] = defaultdict(list)
    for n, (rows, _, _) in enumerate(entries):
        for row in numbers_of(rows):
            held_by[row].append(n)
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, held in held_by.items():
        alike[tuple(held)].append(row)
    for held_alike, same in alike.items():
        services = Intervals.joined({entries[n][1] for n in held_alike})
        yield bits_of(same), Cell(services, tuple(entries[n][2] for n in held_alike))


def _services(flows: list[Flow]) -> Intervals:
    return Intervals.joined({flow.services for flow in flows})
