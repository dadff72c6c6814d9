"""The whole group x group matrix: what some member of the one can ask of some member of the other, and by which rules.

Rows that see the same of a column share one cell, so that a thousand groups that all may reach one cost what one does.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
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

    def rows_of(self, number: int, bits: int) -> int:
        """The rows of which somebody is in ``bits``, a set known by ``number``."""
        if number not in self._known:
            few = bits.bit_count() < len(self._ends)
            self._known[number] = (
                reduce(or_, (self._rows.get(number, 0) for number in numbers_of(bits)), 0)
                if few
                else sum(1 << row for row, end in enumerate(self._ends) if end & bits)
            )
        return self._known[number]


class _Joins:
    """Services known by numbers, sets of those numbers as integers, and each set joined once."""

    def __init__(self) -> None:
        self._known: list[Intervals] = []
        self._numbers: dict[Intervals, int] = {}
        self._joined: dict[int, Intervals] = {}

    def mask(self, flows: Iterable[Flow]) -> int:
        """Which services some flows have."""
        return reduce(or_, (1 << self._number(flow.services) for flow in flows))

    def joined(self, mask: int) -> Intervals:
        """All that a set of services holds."""
        if mask not in self._joined:
            self._joined[mask] = Intervals.joined(self._known[number] for number in numbers_of(mask))
        return self._joined[mask]

    def _number(self, services: Intervals) -> int:
        if services not in self._numbers:
            self._numbers[services] = len(self._known)
            self._known.append(services)
        return self._numbers[services]


def draw_matrix(grants: Grants, version: int = 0) -> Matrix:
    """The matrix of one snapshot of the grants' population, the internet's row and column first."""
    membership, joins = _Membership(grants, version), _Joins()
    columns: list[dict[int, list[Flow]]] = [defaultdict(list) for _ in range(len(membership.groups) + 1)]
    for flow in grants.flows(Question()):
        if not _is_lonely(grants, flow):
            rows = membership.rows_of(flow.ends[0], flow.sources)
            for column in numbers_of(membership.rows_of(flow.ends[1], flow.destinations)) if rows else ():
                columns[column][rows].append(flow)
    return Matrix(membership.groups, tuple(tuple(_cells(column, joins)) for column in columns))


def _is_lonely(grants: Grants, flow: Flow) -> bool:
    """Whether it leads only from an instance to itself."""
    if flow.sources != flow.destinations or flow.sources.bit_count() > 1:
        return False
    [kind] = grants.population.chosen(flow.sources)
    return len({one.instance for one in kind.dwellers}) == 1


def _cells(column: dict[int, list[Flow]], joins: _Joins) -> Iterator[tuple[int, Cell]]:
    """The cells of a column: rows that the very same of its flows concern share one."""
    atoms: list[tuple[int, int, tuple[list[Flow], ...]]] = []  # rows, their services, their flows; none overlap
    for rows, flows in sorted(column.items(), key=lambda entry: -entry[0].bit_count()):
        mask = joins.mask(flows)
        for place in range(len(atoms)):
            known, services, held = atoms[place]
            if not (both := known & rows):
                continue
            atoms[place] = both, services | mask, (*held, flows)
            if rest := known ^ both:
                atoms.append((rest, services, held))
            if not (rows := rows ^ both):
                break
        if rows:
            atoms.append((rows, mask, (flows,)))
    return ((rows, Cell(joins.joined(services), held)) for rows, services, held in atoms)
