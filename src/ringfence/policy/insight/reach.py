"""Exact answers to who reaches whom, on which services, by which rules.

Input: a snapshot, and two ends in words (``ends``). Output: parts that together are exactly what passes.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ringfence.policy.insight.ends import End, parse_end
from ringfence.policy.insight.grant import Because
from ringfence.policy.insight.grants import Flow, Grants, Question
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.population import Population
from ringfence.policy.snapshot import Snapshot

Reasons = frozenset[tuple[Because, Because]]  # why it is let out, and why it is let in


class Part(NamedTuple):
    """Everything in ``sources`` reaches everything in ``destinations`` (sets of classes) on ``services``."""

    sources: int
    destinations: int
    services: Intervals
    reasons: Reasons


@dataclass(frozen=True, slots=True)
class Reach:
    """An answer: its parts, and the two ends, which narrow the classes to the addresses that were asked about."""

    source: End
    destination: End
    parts: tuple[Part, ...]


class Reachability:
    """One snapshot prepared for questions. Making it costs O(n log n), so keep it as long as the snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.population = Population(snapshot)
        self.grants = Grants(self.population)

    def ask(self, source: str = "any", destination: str = "any", services: Intervals | None = None) -> Reach:
        """What of ``source`` reaches what of ``destination``, on which of ``services``.

        Raises:
            NotFound, Invalid: as ``parse_end``.
        """
        ends = [
            parse_end(self.population, text, field=field) for text, field in ((source, "from"), (destination, "to"))
        ]
        question = Question(ends[0].bits, ends[1].bits, services)
        flows = [flow for flow in self.grants.flows(question) if meets_another(self.population, flow, *ends)]
        return Reach(ends[0], ends[1], merge(flows))


def meets_another(population: Population, flow: Flow | Part, source: End, destination: End) -> bool:
    """Whether it is more than an instance reaching itself, which no packet on the wire does."""
    if flow.sources != flow.destinations or not (both := flow.sources & ~population.outside):
        return True
    dwellers = [one for end in (source, destination) for kind in population.chosen(both) for one in end.dwellers(kind)]
    return len({one.instance for one in dwellers}) > 1


def merge(flows: Iterable[Flow]) -> tuple[Part, ...]:
    """The flows in fewer parts: joins services of the same two ends, then ends that differ on one side only."""
    by_ends: dict[tuple[int, int], list[Flow]] = defaultdict(list)
    for flow in flows:
        by_ends[flow.ends].append(flow)
    alike: dict[tuple[Intervals, Reasons], list[Flow]] = defaultdict(list)
    for same in by_ends.values():
        services = Intervals.joined(flow.services for flow in same)
        alike[services, frozenset((flow.egress, flow.ingress) for flow in same)].append(same[0])
    return tuple(
        Part(sources, destinations, services, reasons)
        for (services, reasons), same in alike.items()
        for sources, destinations in _boxes_of(same)
    )


def _boxes_of(flows: list[Flow]) -> Iterable[tuple[int, int]]:
    """The pairs of ends of flows that are alike in all else, joined where one side is equal."""
    if len(flows) == 1:
        return [flows[0][:2]]
    by_destinations: dict[int, int] = defaultdict(int)
    for flow in flows:
        by_destinations[flow.destinations] |= flow.sources
    by_sources: dict[int, int] = defaultdict(int)
    for destinations, sources in by_destinations.items():
        by_sources[sources] |= destinations
    return by_sources.items()
