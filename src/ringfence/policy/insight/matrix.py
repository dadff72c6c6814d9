"""The group x group matrix: which services pass from some member of one to some member of the other, by which rules.

Rows with the same content in a column share one cell, so that a thousand groups that may all reach one cost one cell.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ringfence.policy.insight.grants import Flow, Grants, Question
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.population import bits_of, numbers_of, union_of
from ringfence.policy.insight.reach import Reasons
from ringfence.policy.values import GroupId

_FEW_ROWS: Final = 16  # so few rows are cheaper to look at one by one
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

    def reasons_of(self, services: Intervals) -> Reasons:
        """Every pair of reasons that implies one of ``services``. O(flows)."""
        return frozenset(
            (flow.egress, flow.ingress) for shared in self.flows for flow in shared if flow.services & services
        )


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
    """The rows that a set of classes belongs to."""

    def __init__(self, grants: Grants) -> None:
        population = grants.population
        self.groups = tuple(sorted(population.snapshots[grants.version].groups))
        ends = [population.internet, *(population.peers[grants.version].get(group, 0) for group in self.groups)]
        self._rows: dict[int, int] = defaultdict(int)
        self._ends = ends
        for row, bits in enumerate(ends):
            for number in numbers_of(bits):
                self._rows[number] |= 1 << row
        self._known: dict[int, int] = {}

    def rows_of(self, number: int, bits: int) -> int:
        """The rows with a class in ``bits``, whose number as a ``Crowd`` is ``number``; cached by it."""
        if number not in self._known:
            few = bits.bit_count() < len(self._ends)
            self._known[number] = (
                union_of(self._rows.get(number, 0) for number in numbers_of(bits))
                if few
                else sum(1 << row for row, end in enumerate(self._ends) if end & bits)
            )
        return self._known[number]


class _Joins:
    """Gives each set of services a bit, so that a set of them is an integer, whose union is computed once."""

    def __init__(self) -> None:
        self._known: list[Intervals] = []
        self._bits: dict[Intervals, int] = {}
        self._joined: dict[int, Intervals] = {}

    def bit(self, services: Intervals) -> int:
        if services not in self._bits:
            self._bits[services] = 1 << len(self._known)
            self._known.append(services)
        return self._bits[services]

    def joined(self, mask: int) -> Intervals:
        """The union of the services whose bits are in ``mask``."""
        if mask not in self._joined:
            self._joined[mask] = Intervals.joined(self._known[number] for number in numbers_of(mask))
        return self._joined[mask]


@dataclass(slots=True)
class _Entry:
    """The flows of a column that concern the very same rows, and the set of their services."""

    rows: int
    mask: int
    flows: list[Flow]


_Atom = tuple[int, int, tuple[list[Flow], ...]]  # rows that the same flows concern, those flows' services, the flows


def draw_matrix(grants: Grants) -> Matrix:
    """The matrix of the grants' snapshot, the internet's row and column first."""
    membership, joins = _Membership(grants), _Joins()
    columns: list[dict[int, _Entry]] = [{} for _ in range(len(membership.groups) + 1)]
    columns_of: dict[int, list[int]] = {}
    for flow in grants.flows(Question()):
        source, destination = flow.ends
        rows = 0 if _is_lonely(grants, flow) else membership.rows_of(source, flow.sources)
        if rows and destination not in columns_of:
            columns_of[destination] = [*numbers_of(membership.rows_of(destination, flow.destinations))]
        mask = joins.bit(flow.services)
        for column in columns_of[destination] if rows else ():
            if (entry := columns[column].get(rows)) is None:
                columns[column][rows] = _Entry(rows, mask, [flow])
            else:
                entry.mask |= mask
                entry.flows.append(flow)
    return Matrix(membership.groups, tuple(tuple(_cells([*column.values()], joins)) for column in columns))


def _is_lonely(grants: Grants, flow: Flow) -> bool:
    """Whether it only leads from an instance to itself."""
    if flow.sources != flow.destinations or flow.sources.bit_count() > 1:
        return False
    [kind] = grants.population.chosen(flow.sources)
    return len({one.instance for one in kind.dwellers}) == 1


def _cells(column: list[_Entry], joins: _Joins) -> Iterator[tuple[int, Cell]]:
    """The cells of a column: rows that the same flows concern share one."""
    wide = [entry for entry in column if entry.rows.bit_count() > _FEW_ROWS]
    narrow: dict[int, list[int]] = defaultdict(list)
    for place, entry in enumerate(column):
        if entry.rows.bit_count() <= _FEW_ROWS:
            for row in numbers_of(entry.rows):
                narrow[row].append(place)
    for rows, mask, held in _refined(_split(wide, bits_of(narrow)), column, narrow):
        yield rows, Cell(joins.joined(mask), held)


def _split(wide: list[_Entry], others: int) -> list[_Atom]:
    """The rows of ``wide`` and the ``others``, partitioned by the entries that contain them."""
    covered = union_of(entry.rows for entry in wide)
    atoms: list[_Atom] = [(covered | others, 0, ())]
    for entry in wide:
        for place in range(len(atoms)):
            rows, mask, held = atoms[place]
            if both := rows & entry.rows:
                atoms[place] = both, mask | entry.mask, (*held, entry.flows)
                if rest := rows ^ both:
                    atoms.append((rest, mask, held))
    return atoms


def _refined(atoms: list[_Atom], column: list[_Entry], narrow: dict[int, list[int]]) -> Iterator[_Atom]:
    """The atoms, further partitioned by the entries with few rows; ``narrow`` has the places of those by row."""
    touched = bits_of(narrow)
    for rows, mask, held in atoms:
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for row in numbers_of(rows & touched):
            alike[tuple(narrow[row])].append(row)
        for places, same in alike.items():
            found = [column[place] for place in places]
            services = mask | union_of(entry.mask for entry in found)
            yield bits_of(same), services, (*held, *(entry.flows for entry in found))
        if left := rows & ~touched:
            yield left, mask, held
