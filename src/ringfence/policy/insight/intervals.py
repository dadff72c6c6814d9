"""Sets of integers in canonical form, as the points at which membership changes: equal sets are equal values.

Addresses, ports and ICMP types are mapped to integers by ``address_axis`` and ``services``.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain


@dataclass(frozen=True, slots=True)
class Intervals:
    """A set. ``toggles`` ascend strictly; ``begins_in`` says whether integers below the first of them are members.

    A Boolean algebra: ``|``, ``&``, ``-`` and ``~`` cost O(toggles of both).
    """

    toggles: tuple[int, ...] = ()
    begins_in: bool = False

    @classmethod
    def of(cls, *spans: tuple[int, int]) -> "Intervals":
        """The integers of all ``spans`` (first, last), both ends included; they may overlap and come in any order."""
        return cls.union(spans)

    @classmethod
    def union(cls, spans: Iterable[tuple[int, int]]) -> "Intervals":
        """As ``of``, for many. O(n log n)."""
        return _closed_up(sorted((first, last + 1) for first, last in spans))

    @classmethod
    def joined(cls, sets: Iterable["Intervals"]) -> "Intervals":
        """The union of many bounded sets; cheaper than one by one, and cached."""
        alike = frozenset(sets)
        return next(iter(alike)) if len(alike) == 1 else _joined(alike)

    def __bool__(self) -> bool:
        return self.begins_in or bool(self.toggles)

    def __contains__(self, point: int) -> bool:
        return self.begins_in != bool(bisect_right(self.toggles, point) % 2)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The spans (first, last) of a bounded set, ascending and not adjacent."""
        ends = iter(self.toggles)
        return ((first, after - 1) for first, after in zip(ends, ends, strict=True))

    def __or__(self, other: "Intervals") -> "Intervals":
        return _merge(self, other, lambda one, two: one or two)

    def __and__(self, other: "Intervals") -> "Intervals":
        return _merge(self, other, lambda one, two: one and two)

    def __sub__(self, other: "Intervals") -> "Intervals":
        return _merge(self, other, lambda one, two: one and not two)

    def __invert__(self) -> "Intervals":
        return Intervals(self.toggles, not self.begins_in)

    def __le__(self, other: "Intervals") -> bool:
        """Whether this is a subset of ``other``."""
        return not self - other

    @property
    def first(self) -> int:
        """The least integer of a set that is bounded and not empty."""
        return self.toggles[0]

    @property
    def size(self) -> int:
        """How many integers a bounded set holds."""
        return sum(last - first + 1 for first, last in self)


EMPTY = Intervals()


@lru_cache(maxsize=1 << 15)
def _joined(sets: frozenset[Intervals]) -> Intervals:
    return _closed_up(sorted(chain.from_iterable(zip(it := iter(one.toggles), it, strict=True) for one in sets)))


def _closed_up(spans: Iterable[tuple[int, int]]) -> Intervals:
    """The set of spans (first, first integer after it), which ascend and may overlap."""
    toggles: list[int] = []
    end = None
    for first, after in spans:
        if end is None or first > end:
            toggles += (first, after)
            end = after
        elif after > end:
            toggles[-1] = end = after
    return Intervals(tuple(toggles))


def _merge(one: Intervals, two: Intervals, keeps: Callable[[bool, bool], bool]) -> Intervals:
    in_one, in_two = one.begins_in, two.begins_in
    begins_in = inside = keeps(in_one, in_two)
    turns_one, turns_two = frozenset(one.toggles), frozenset(two.toggles)
    toggles = []
    for point in sorted(turns_one | turns_two):
        in_one ^= point in turns_one
        in_two ^= point in turns_two
        if keeps(in_one, in_two) != inside:
            inside = not inside
            toggles.append(point)
    return Intervals(tuple(toggles), begins_in)
