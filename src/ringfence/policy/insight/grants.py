"""What each side allows, as products of classes: where an egress grant meets an ingress grant, packets flow.

Input: a population. Output: flows, each with the two reasons that imply it; together they are exactly the first packets
that ``verdict`` allows. What passes regardless of rules (discovery, DHCP, lifelines) is left out.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

from ringfence.policy.addresses import FAMILIES, Family
from ringfence.policy.insight.address_axis import span_of
from ringfence.policy.insight.boxes import Box
from ringfence.policy.insight.candidates import Candidates
from ringfence.policy.insight.crowds import Crowd, Crowds
from ringfence.policy.insight.grant import Because, Grant, Standing
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.population import NOBODY, Population, Role, Span, bits_of, numbers_of
from ringfence.policy.insight.services import ALL_SERVICES, FLOWS, REDIRECTS, services_of
from ringfence.policy.model import GroupPeer, Rule
from ringfence.policy.values import Direction, GroupId
from ringfence.policy.verdict import Allowance

_Sides = tuple[Callable[[GroupId, Family], Crowd], Callable[[GroupId | Span, Family], Crowd]]  # wearers, peers


class Flow(NamedTuple):
    """First packets from any class of ``sources`` to any of ``destinations``, and why they are let out and in.

    ``ends`` are the numbers of the two sets as ``Crowd``s: within one answer, equal numbers mean equal sets.
    """

    sources: int
    destinations: int
    services: Intervals
    egress: Because
    ingress: Because
    ends: tuple[int, int]

    @property
    def turned(self) -> "Flow":
        """The flow with source and destination exchanged, for algorithms that go by destinations."""
        return self._replace(sources=self.destinations, destinations=self.sources, ends=self.ends[::-1])


@dataclass(frozen=True, slots=True)
class Question:
    """Which flows are wanted: sets of classes and of services; None means all."""

    sources: int | None = None
    destinations: int | None = None
    services: Intervals | None = None


class Grants:
    """All grants of one snapshot of a population."""

    def __init__(self, population: Population, version: int = 0) -> None:
        self.population = population
        self.version = version
        self._crowds = population.crowds
        self.observed = self._playing(lambda role: role.observe)
        sides = cache(self._of_group), cache(self._of_peers)  # many rules have the same group or peer
        self._ingress = [*self._make(Direction.INGRESS, sides)]
        self._egress = [*self._make(Direction.EGRESS, sides)]
        self._candidates = Candidates(population, version, self._egress)
        self._by_peers: dict[Crowd, list[Grant]] = defaultdict(list)
        for grant in self._ingress:
            self._by_peers[grant.peers].append(grant)
        self._by_group: dict[Direction, dict[GroupId, list[tuple[Allowance, Grant]]]] = {}
        self._keyed: dict[Direction, dict[tuple[object, ...], Grant]] = {}

    def flows(self, question: Question) -> Iterator[Flow]:
        """Every flow that ``question`` asks for. O(ingress grants concerned * egress grants that each could meet)."""
        crowds, everybody = self._crowds.fork(), self.population.everybody
        sources = crowds.of(everybody if question.sources is None else question.sources)
        destinations = crowds.of(everybody if question.destinations is None else question.destinations)
        find = self._candidates.finder()
        for peers, grants in self._by_peers.items():
            if not (comes := crowds.common(peers, sources)):
                continue
            for ingress in grants:
                if not (arrives := crowds.common(ingress.subjects, destinations)):
                    continue
                wanted = ingress.services if question.services is None else _both(ingress.services, question.services)
                if wanted:
                    asked = Grant(arrives, comes, wanted, ingress.because, ingress.family)
                    meeting = numbers_of(find(comes, arrives, wanted))
                    yield from _meet(crowds, asked, map(self._egress.__getitem__, meeting))

    def of_rules(self, direction: Direction, group: GroupId) -> Iterator[tuple[Allowance, Box]]:
        """What each rule of a group in that direction allows: boxes from wearers (as sources) to peers."""
        if direction not in self._by_group:
            grants = self._ingress if direction is Direction.INGRESS else self._egress
            by_group = self._by_group[direction] = defaultdict(list)
            for grant in grants:
                if isinstance(grant.because, Allowance):
                    by_group[grant.because.group].append((grant.because, grant))
        for because, grant in self._by_group[direction].get(group, ()):
            yield because, Box(grant.subjects.classes, grant.peers.classes, grant.services)

    def differences(self, other: "Grants") -> Iterator[Box]:
        """Boxes outside of which both versions of the population allow the same. O(grants)."""
        for direction in Direction:
            one, two = self._by_key(direction), other._by_key(direction)  # noqa: SLF001  it is of this class
            for key, grant in one.items():
                yield from _difference(grant, two.get(key), direction)
            for key in two.keys() - one.keys():
                yield from _difference(two[key], None, direction)

    def _by_key(self, direction: Direction) -> dict[tuple[object, ...], Grant]:
        if direction not in self._keyed:
            grants = self._ingress if direction is Direction.INGRESS else self._egress
            self._keyed[direction] = {grant.key: grant for grant in grants}
        return self._keyed[direction]

    def _role(self, number: int) -> Role | None:
        roles = self.population.classes[number].roles
        return roles[self.version] if roles else None

    def _playing(self, holds: Callable[[Role], bool]) -> int:
        numbers = range(len(self.population.classes))
        return bits_of(number for number in numbers if (role := self._role(number)) is not None and holds(role))

    def _make(self, direction: Direction, sides: _Sides) -> Iterator[Grant]:
        population, version = self.population, self.version
        hosts = self._playing(lambda role: role.is_host)
        restricted = NOBODY
        for group, rules in population.views[version].rules.items():
            wearers = population.worn[version].get(group, NOBODY)
            for rule in rules:
                if rule.direction is direction:
                    restricted |= wearers
                    yield from self._of_rule(Allowance(group, rule), hosts, sides)
        for family in FAMILIES:
            yield from self._without_rules(direction, family, restricted)

    def _of_rule(self, allowance: Allowance, hosts: int, sides: _Sides) -> Iterator[Grant]:
        naming = _naming(allowance.rule)
        wearers, named = sides
        for family in FAMILIES:
            services = services_of(allowance.rule, family)
            subjects, peers = wearers(allowance.group, family), named(naming, family)
            if not (services and subjects and peers):
                continue
            if allowance.rule.direction is Direction.EGRESS and services & REDIRECTS:
                if of_hosts := self._crowds.of(subjects.classes & hosts):
                    yield Grant(of_hosts, peers, services, allowance, family, naming)
                subjects, services = self._crowds.of(subjects.classes & ~hosts), services - REDIRECTS
            if subjects and services:
                yield Grant(subjects, peers, services, allowance, family, naming)

    def _of_group(self, group: GroupId, family: Family) -> Crowd:
        return self._crowds.of(self.population.worn[self.version].get(group, NOBODY) & self.population.family[family])

    def _of_peers(self, naming: GroupId | Span, family: Family) -> Crowd:
        population = self.population
        bits = (
            population.within(naming)
            if isinstance(naming, tuple)
            else population.peers[self.version].get(naming, NOBODY)
        )
        return self._crowds.of(bits & population.family[family])

    def _without_rules(self, direction: Direction, family: Family, restricted: int) -> Iterator[Grant]:
        here, everything = self.population.family[family], ALL_SERVICES[family]
        everybody, outside = self._crowds.of(here), self._crowds.of(here & self.population.outside)
        yield Grant(outside, everybody, everything, Standing.OUTSIDE, family)
        observed = self._crowds.of(here & self.observed)
        yield Grant(observed, everybody, everything, Standing.OBSERVED, family)
        if direction is Direction.EGRESS:
            open_ = self._crowds.of(here & self._playing(lambda _: True) & ~restricted)
            yield Grant(open_, everybody, FLOWS[family], Standing.EGRESS_OPEN, family)


def _naming(rule: Rule) -> GroupId | Span:
    return rule.peer.group if isinstance(rule.peer, GroupPeer) else span_of(rule.peer.network)


def _meet(crowds: Crowds, asked: Grant, egress: Iterable[Grant]) -> Iterator[Flow]:
    """The flows that an ingress grant and each of ``egress`` have in common."""
    for grant in egress:
        if grant.family != asked.family:
            continue
        sources, destinations = crowds.common(grant.subjects, asked.peers), crowds.common(grant.peers, asked.subjects)
        if not (sources and destinations) or asked.because is grant.because is Standing.OUTSIDE:
            continue
        if services := _both(asked.services, grant.services):
            ends = sources.number, destinations.number
            yield Flow(sources.classes, destinations.classes, services, grant.because, asked.because, ends)


def _difference(one: Grant, two: Grant | None, direction: Direction) -> Iterator[Box]:
    """What only one of two grants of the same key allows."""
    subjects, peers = one.subjects.classes, one.peers.classes
    others, their_peers = (two.subjects.classes, two.peers.classes) if two else (NOBODY, NOBODY)
    if subjects != others:
        yield one.box(subjects ^ others, peers | their_peers, direction)
    if peers != their_peers and (both := subjects & others):
        yield one.box(both, peers ^ their_peers, direction)


@lru_cache(maxsize=1 << 16)
def _both(one: Intervals, two: Intervals) -> Intervals:
    return one & two
