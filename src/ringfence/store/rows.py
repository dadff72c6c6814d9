"""What a batch of decisions writes: statements and their rows, gathered so that a statement is run for many rows.

Input: statements in the order in which decisions make them. Output: runs of equal statements. Rows of one part of the
store keep their order; the parts are ordered so that a row is written after the rows that it refers to.
"""

from collections.abc import Iterator
from enum import IntEnum

from ringfence.store.database import Values


class Part(IntEnum):
    """The parts of the store, in the order in which they are written."""

    POLICY = 0
    HOSTS = 1
    REVISION = 2
    OPERATION = 3
    RECORD = 4
    AUDIT = 5
    JOURNAL = 6


class Rows:
    """Filled by ``save_decision``, handed to ``Database.write``."""

    def __init__(self) -> None:
        self._runs: tuple[list[tuple[str, list[Values]]], ...] = tuple([] for _ in Part)

    def add(self, sql: str, values: Values, part: Part = Part.POLICY) -> None:
        runs = self._runs[part]
        if runs and runs[-1][0] == sql:
            runs[-1][1].append(values)
        else:
            runs.append((sql, [values]))

    def runs(self) -> Iterator[tuple[str, list[Values]]]:
        for part in self._runs:
            yield from part

    def __bool__(self) -> bool:
        return any(self._runs)
