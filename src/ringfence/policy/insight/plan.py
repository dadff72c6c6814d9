"""What a change opens and closes, exactly: the first packets that pass only after it, and those only before it.

Input: two snapshots. Output: parts without overlap, over one population of both. Only boxes in which grants differ are
looked at, whatever the size of the rest. An instance that exists in one snapshot only reaches nobody in the other, and
nobody reaches it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from ringfence.policy.insight.boxes import Box, hull_of
from ringfence.policy.insight.ends import End
from ringfence.policy.insight.grants import Flow, Grants, Question
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.population import Population, bits_of, numbers_of
from ringfence.policy.insight.reach import Part, meets_another
from ringfence.policy.named import ANY
from ringfence.policy.snapshot import Snapshot

_Services = dict[Intervals, int]  # services -> the sources (set of classes) that may ask for them


@dataclass(frozen=True, slots=True)
class Plan:
    """What a change ``opens`` and what it ``closes``; classes are those of ``after.population``."""

    before: Grants
    after: Grants
    opens: tuple[Part, ...]
    closes: tuple[Part, ...]

    def __bool__(self) -> bool:
        return bool(self.opens or self.closes)

    @property
    def population(self) -> Population:
        return self.after.population


def compare(before: Snapshot, after: Snapshot) -> Plan:
    """What the change between two snapshots does. O(n log n) for the population, then as ``compare_grants``."""
    population = Population(before, after)
    return compare_grants(Grants(population, 0), Grants(population, 1))


def compare_grants(before: Grants, after: Grants) -> Plan:
    """As ``compare``, for two versions of one population. O(grants + flows where grants differ)."""
    population = before.population
    opens: list[Part] = []
    closes: list[Part] = []
    for box, along_sources in _regions(before.differences(after)):
        question = Question(box.sources, box.destinations, box.services)
        flows, new_flows = [*before.flows(question)], [*after.flows(question)]
        if along_sources:
            flows, new_flows = [flow.turned for flow in flows], [flow.turned for flow in new_flows]
        for parts, found in ((opens, _only(new_flows, flows)), (closes, _only(flows, new_flows))):
            parts.extend(map(_turned, found) if along_sources else found)
    return Plan(before, after, _merged(population, opens), _merged(population, closes))


def _regions(boxes: Iterable[Box]) -> Iterator[tuple[Box, bool]]:
    """A few boxes without overlap that contain all ``boxes``; True: compare by sources, which are fewer."""
    to_few: list[Box] = []
    from_few: list[Box] = []
    for box in boxes:
        is_to_few = box.destinations.bit_count() <= box.sources.bit_count()
        (to_few if is_to_few else from_few).append(box)
    first, second = hull_of(to_few), hull_of(from_few)
    if first:
        yield first, False
    if second:
        yield from ((box, True) for box in second.without(second & first))


def _only(flows: Iterable[Flow], others: Iterable[Flow]) -> Iterator[Part]:
    """What is in ``flows`` and in none of the ``others``."""
    mine, theirs = _by_destinations(flows), _by_destinations(others)
    for held, destinations in _alike([*(mine.keys() | theirs.keys())]):
        here, there = _services(mine, held), _services(theirs, held)
        if here != there:
            found = [flow for bits in held for flow in mine.get(bits, ())]
            for sources, services in _per_source(_left(here, there)):
                yield _with_reasons(Part(sources, destinations, services, frozenset()), found)


def _by_destinations(flows: Iterable[Flow]) -> dict[int, list[Flow]]:
    found: dict[int, list[Flow]] = defaultdict(list)
    for flow in flows:
        found[flow.destinations].append(flow)
    return found


def _alike(sets: list[int]) -> Iterator[tuple[list[int], int]]:
    """The partition of all classes by the ``sets`` that contain them: those sets, and the classes."""
    held_by: dict[int, list[int]] = defaultdict(list)
    for at, bits in enumerate(sets):
        for number in numbers_of(bits):
            held_by[number].append(at)
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, held in held_by.items():
        alike[tuple(held)].append(number)
    return (([sets[at] for at in held], bits_of(numbers)) for held, numbers in alike.items())


def _services(flows: Mapping[int, list[Flow]], held: list[int]) -> _Services:
    found: _Services = defaultdict(int)
    for flow in chain.from_iterable(flows.get(bits, ()) for bits in held):
        found[flow.services] |= flow.sources
    return found


def _left(here: _Services, there: _Services) -> dict[int, Intervals]:
    """Set of sources -> the services that they may ask for ``here`` but not ``there``."""
    points = sorted({point for services in chain(here, there) for point in services.toggles})
    place = {point: number for number, point in enumerate(points)}
    mine, theirs = _spread(here, place), _spread(there, place)
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, sources in enumerate(mine):
        if left := sources & ~theirs[number]:
            found[left].append((points[number], points[number + 1] - 1))
    return {sources: Intervals.union(spans) for sources, spans in found.items()}


def _per_source(left: Mapping[int, Intervals]) -> Iterator[tuple[int, Intervals]]:
    """The same as pairs in which each source occurs once, with all its services."""
    if len(left) <= 1:
        yield from left.items()
        return
    for held, sources in _alike([*left]):
        yield sources, Intervals.joined(left[bits] for bits in held)


def _spread(by_services: _Services, place: Mapping[int, int]) -> list[int]:
    """For each interval between a point and the next, the sources that may ask for it."""
    found = [0] * len(place)
    for services, sources in by_services.items():
        for first, last in services:
            for number in range(place[first], place[last + 1]):
                found[number] |= sources
    return found


def _with_reasons(part: Part, flows: Iterable[Flow]) -> Part:
    """The part with every pair of reasons that implies some of it."""
    reasons = {
        (flow.egress, flow.ingress) for flow in flows if flow.sources & part.sources and flow.services & part.services
    }
    return part._replace(reasons=frozenset(reasons))


def _turned(part: Part) -> Part:
    return part._replace(sources=part.destinations, destinations=part.sources)


def _merged(population: Population, parts: Iterable[Part]) -> tuple[Part, ...]:
    """The same in fewer parts, without those within one instance."""
    anybody = End(ANY, population.everybody)
    found = [part for part in parts if meets_another(population, part, anybody, anybody)]
    for key in _TWO_OF_THREE:
        alike: dict[tuple[object, ...], list[Part]] = defaultdict(list)
        for part in found:
            alike[key(part)].append(part)
        found = [_joined(same) for same in alike.values()]
    return tuple(found)


_TWO_OF_THREE: Final[tuple[Callable[[Part], tuple[object, ...]], ...]] = (
    lambda part: (part.sources, part.destinations),
    lambda part: (part.sources, part.services),
    lambda part: (part.destinations, part.services),
)


def _joined(parts: Sequence[Part]) -> Part:
    """Parts that differ in one of the three sides only, as one."""
    hull = hull_of(parts)
    return Part(hull.sources, hull.destinations, hull.services, frozenset().union(*(part.reasons for part in parts)))
