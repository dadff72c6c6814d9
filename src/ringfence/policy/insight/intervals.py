"""Sets of integers in one canonical form: the points at which membership changes. The ground of every exact answer.

Addresses, ports and ICMP types are laid out on lines of integers (``address_axis``, ``services``); equal
sets are equal values.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Intervals:
    """``toggles`` ascend strictly; ``begins_in`` says whether the set holds what lies below the first of them.

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
        toggles: list[int] = []
        for first, last in sorted(spans):
            if toggles and first <= toggles[-1]:
                toggles[-1] = max(toggles[-1], last + 1)
            else:
                toggles += (first, last + 1)
        return cls(tuple(toggles))

    @classmethod
    def joined(cls, sets: Iterable["Intervals"]) -> "Intervals":
        """All of many bounded sets together; cheaper than one after the other, and than the same ones once more."""
        return _joined(frozenset(sets))

    def __bool__(self) -> bool:
        return self.begins_in or bool(self.toggles)

    def __contains__(self, point: int) -> bool:
        return self.begins_in != bool(bisect_right(self.toggles, point) % 2)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The spans (first, last) of a set that is bounded, ascending and apart from each other."""
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
    if len(sets) == 1:
        return next(iter(sets))
    return Intervals.union(span for one in sets for span in one)


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
