"""Finds the egress grants that could meet an ingress grant by indexes over their ends, not by trying each with each.

A set of grants is an integer with one bit for each place in the list, as a set of classes is.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import accumulate
from operator import xor
from typing import Final, TypeVar

from ringfence.policy.insight.address_axis import span_of
from ringfence.policy.insight.crowds import Crowd
from ringfence.policy.insight.grant import Grant, Standing
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.population import Population, bits_of, numbers_of, union_of

_Key = TypeVar("_Key")
_FEW: Final = 64  # so few classes are cheaper to look up one by one


class Candidates:
    """The egress grants of one version of a population, indexed by the classes that they concern."""

    def __init__(self, population: Population, version: int, egress: Sequence[Grant]) -> None:
        self._population = population
        self._version = version
        self._inside = population.everybody & ~population.outside
        self._outside = bits_of(n for n, grant in enumerate(egress) if grant.because is Standing.OUTSIDE)
        self._standing = bits_of(n for n, grant in enumerate(egress) if grant.naming is None)
        self._by_subjects = _index((grant.subjects, n) for n, grant in enumerate(egress))
        self._points, self._at = _index_by_place(egress)
        self._by_class = self._index_by_class()
        self._by_naming = _index((grant.naming, n) for n, grant in enumerate(egress) if grant.naming is not None)
        self._by_source = self._index_by_source()
        self._to: dict[int, int] = {}

    def finder(self) -> Callable[[Crowd, Crowd, Intervals], int]:
        """A function (sources, destinations, services) -> a superset of the egress grants that allow some of it.

        It caches, so keep it for one question only.
        """
        leave, go_to, ask = cache(self._leave), cache(self._go_to), cache(self._ask)

        def find(sources: Crowd, destinations: Crowd, services: Intervals) -> int:
            if not sources.classes & self._inside:
                return self._outside
            found = ask(services)
            if _is_few(sources) or not _is_few(destinations):
                found &= leave(sources)
            return found & go_to(destinations) if _is_few(destinations) else found

        return find

    def _leave(self, sources: Crowd) -> int:
        """The grants that let some of ``sources`` send."""
        if _is_few(sources):
            return self._standing | union_of(self._by_class.get(number, 0) for number in numbers_of(sources.classes))
        return union_of(found for subjects, found in self._by_subjects.items() if subjects.classes & sources.classes)

    def _go_to(self, destinations: Crowd) -> int:
        """The grants that let somebody send to some of ``destinations``, which are few."""
        return self._standing | union_of(map(self._to_class, numbers_of(destinations.classes)))

    def _ask(self, services: Intervals) -> int:
        """The grants that allow some of ``services``."""
        return union_of(
            found
            for first, last in services
            for found in self._at[bisect_right(self._points, first) : bisect_right(self._points, last) + 1]
        )

    def _index_by_class(self) -> dict[int, int]:
        found: dict[int, int] = defaultdict(int)
        for subjects, grants in self._by_subjects.items():
            if named := grants & ~self._standing:
                for number in numbers_of(subjects.classes):
                    found[number] |= named
        return found

    def _to_class(self, number: int) -> int:
        if number not in self._to:
            roles = self._population.classes[number].roles
            role = roles[self._version] if roles else None
            found = union_of(self._by_naming.get(group, 0) for group in (() if role is None else role.member_of))
            for span in self._population.regions_around(number):
                found |= self._by_naming.get(span, 0) | self._by_source.get(span, 0)
            self._to[number] = found
        return self._to[number]

    def _index_by_source(self) -> dict[object, int]:
        found: dict[object, int] = {}
        for group in self._population.snapshots[self._version].groups.values():
            for source in group.sources:
                span = span_of(source.network)
                found[span] = found.get(span, 0) | self._by_naming.get(group.id, 0)
        return found


def _index_by_place(egress: Sequence[Grant]) -> tuple[list[int], list[int]]:
    """The places at which services begin or end, and the grants of those below the first, and from each one on."""
    turns: dict[int, int] = defaultdict(int)
    for number, grant in enumerate(egress):
        for place in grant.services.toggles:
            turns[place] ^= 1 << number
    points = sorted(turns)
    return points, [0, *accumulate((turns[place] for place in points), xor)]


def _is_few(crowd: Crowd) -> bool:
    return crowd.classes.bit_count() <= _FEW


def _index(entries: Iterable[tuple[_Key, int]]) -> dict[_Key, int]:
    found: dict[_Key, list[int]] = defaultdict(list)
    for key, number in entries:
        found[key].append(number)
    return {key: bits_of(numbers) for key, numbers in found.items()}
