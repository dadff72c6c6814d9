"""Exact answers: which first packets pass, from whom, to whom, asking for what, and by which rules.

Input: a snapshot, ends in words (``ends``). Output: parts that together hold all that passes and nothing else.
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
from ringfence.policy.model import Snapshot

Reasons = frozenset[tuple[Because, Because]]  # what lets it out, and what lets it in


class Part(NamedTuple):
    """Whoever is in ``sources`` reaches whoever is in ``destinations`` on ``services``; both are sets of classes."""

    sources: int
    destinations: int
    services: Intervals
    reasons: Reasons


@dataclass(frozen=True, slots=True)
class Reach:
    """An answer: its parts, and the ends that narrow the classes to the addresses that were asked about."""

    source: End
    destination: End
    parts: tuple[Part, ...]


class Reachability:
    """One snapshot, made ready to be asked. Making it costs O(n log n), so keep it as long as the snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.population = Population(snapshot)
        self.grants = Grants(self.population)

    def ask(self, source: str = "any", destination: str = "any", services: Intervals | None = None) -> Reach:
        """Who of ``source`` reaches whom of ``destination``, on which of ``services``.

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
    """Whether two different ends are in it: what an instance sends to itself never leaves it."""
    if flow.sources != flow.destinations or not (both := flow.sources & ~population.outside):
        return True
    dwellers = [one for end in (source, destination) for kind in population.chosen(both) for one in end.dwellers(kind)]
    return len({one.instance for one in dwellers}) > 1


def merge(flows: Iterable[Flow]) -> tuple[Part, ...]:
    """The same flows in fewer parts: services of the same two ends together, then ends that differ on one side only."""
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
    """The ends of flows that are alike in all else, as few as it takes."""
    if len(flows) == 1:
        return [flows[0][:2]]
    by_destinations: dict[int, int] = defaultdict(int)
    for flow in flows:
        by_destinations[flow.destinations] |= flow.sources
    by_sources: dict[int, int] = defaultdict(int)
    for destinations, sources in by_destinations.items():
        by_sources[sources] |= destinations
    return by_sources.items()
