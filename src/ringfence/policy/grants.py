"""What each side allows, as products of classes: an egress grant meets an ingress grant, and that is a ``Flow``.

Input: a population. Output: flows, each with the two reasons that imply it; together they hold exactly the first
packets that ``verdict`` allows. What passes besides rules (discovery, DHCP, lifelines of a host) is no part of it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache, reduce
from operator import or_
from typing import Final, TypeVar

from ringfence.policy.address_axis import span_of
from ringfence.policy.addresses import FAMILIES, Family
from ringfence.policy.intervals import Intervals
from ringfence.policy.model import GroupPeer, Rule
from ringfence.policy.population import NOBODY, Population, Role, Span, bits_of, numbers_of
from ringfence.policy.services import ALL_SERVICES, FLOWS, REDIRECTS, services_of
from ringfence.policy.values import Direction, GroupId
from ringfence.policy.verdict import Allowance

_Key = TypeVar("_Key")
_FEW: Final = 64  # classes for which it pays to look up who could meet them


class Standing(Enum):
    """Why a side allows without a rule; the value completes "because …"."""

    OUTSIDE = "no instance is at that end"
    EGRESS_OPEN = "none of its groups has an egress rule"
    OBSERVED = "it is observed, and nothing of it is dropped"


Because = Allowance | Standing


@dataclass(frozen=True, slots=True)
class Flow:
    """First packets from any class of ``sources`` to any of ``destinations``, and what lets them out and in."""

    sources: int
    destinations: int
    services: Intervals
    egress: Because
    ingress: Because


@dataclass(frozen=True, slots=True)
class Question:
    """Which flows are wanted; None means all there are."""

    sources: int | None = None
    destinations: int | None = None
    services: Intervals | None = None


@dataclass(frozen=True, slots=True)
class _Grant:
    """``subjects`` may send to (egress) or receive from (ingress) ``peers``; ``naming`` is how the peers were named."""

    subjects: int
    peers: int
    services: Intervals
    because: Because
    naming: GroupId | Span | None = None


class Grants:
    """All grants of one snapshot of a population, indexed by whom they could meet."""

    def __init__(self, population: Population, version: int = 0) -> None:
        self.population = population
        self._version = version
        self._ingress = [*self._make(Direction.INGRESS)]
        self._egress = [*self._make(Direction.EGRESS)]
        self._standing = bits_of(n for n, grant in enumerate(self._egress) if grant.naming is None)
        self._by_worn = _index(
            (n, grant.because.group) for n, grant in enumerate(self._egress) if isinstance(grant.because, Allowance)
        )
        self._by_naming = _index((n, grant.naming) for n, grant in enumerate(self._egress) if grant.naming is not None)
        self._by_source = self._index_by_source()
        self._could_leave: dict[int, int] = {}
        self._could_go_to: dict[int, int] = {}

    def flows(self, question: Question) -> Iterator[Flow]:
        """Every flow of ``question``. O(ingress grants that concern it, each with the egress grants it could meet)."""
        everybody = self.population.everybody
        sources = everybody if question.sources is None else question.sources
        destinations = everybody if question.destinations is None else question.destinations
        for ingress in self._ingress:
            if not (comes := ingress.peers & sources) or not (arrives := ingress.subjects & destinations):
                continue
            wanted = ingress.services if question.services is None else ingress.services & question.services
            if wanted:
                yield from self._meeting(comes, arrives, wanted, ingress.because)

    def _meeting(self, comes: int, arrives: int, wanted: Intervals, because: Because) -> Iterator[Flow]:
        for number in numbers_of(self._candidates(comes, arrives)):
            egress = self._egress[number]
            if not (sources := egress.subjects & comes) or not (destinations := egress.peers & arrives):
                continue
            if because is Standing.OUTSIDE and egress.because is Standing.OUTSIDE:
                continue
            if services := _both(wanted, egress.services):
                yield Flow(sources, destinations, services, egress.because, because)

    def _candidates(self, comes: int, arrives: int) -> int:
        if not comes & ~self.population.outside:
            return self._standing
        found = (1 << len(self._egress)) - 1
        if comes.bit_count() <= _FEW:
            found &= self._standing | _union(self._leaving(number) for number in numbers_of(comes))
        if arrives.bit_count() <= _FEW:
            found &= self._standing | _union(self._going_to(number) for number in numbers_of(arrives))
        return found

    def _leaving(self, number: int) -> int:
        """The egress grants whose subjects may include a class."""
        if number not in self._could_leave:
            role = self._role(number)
            groups = () if role is None else role.groups
            self._could_leave[number] = _union(self._by_worn.get(group, 0) for group in groups)
        return self._could_leave[number]

    def _going_to(self, number: int) -> int:
        """The egress grants whose peers may include a class."""
        if number not in self._could_go_to:
            role = self._role(number)
            found = _union(self._by_naming.get(group, 0) for group in (() if role is None else role.member_of))
            for span in self.population.regions_around(number):
                found |= self._by_naming.get(span, 0) | self._by_source.get(span, 0)
            self._could_go_to[number] = found
        return self._could_go_to[number]

    def _index_by_source(self) -> dict[Span, int]:
        found: dict[Span, int] = {}
        for group in self.population.snapshots[self._version].groups.values():
            for source in group.sources:
                span = span_of(source.network)
                found[span] = found.get(span, 0) | self._by_naming.get(group.id, 0)
        return found

    def _role(self, number: int) -> Role | None:
        roles = self.population.classes[number].roles
        return roles[self._version] if roles else None

    def _playing(self, holds: Callable[[Role], bool]) -> int:
        numbers = range(len(self.population.classes))
        return bits_of(number for number in numbers if (role := self._role(number)) is not None and holds(role))

    def _make(self, direction: Direction) -> Iterator[_Grant]:
        population, version = self.population, self._version
        hosts = self._playing(lambda role: role.is_host)
        restricted = NOBODY
        for group, rules in population.views[version].rules.items():
            wearers = population.worn[version].get(group, NOBODY)
            for rule in rules:
                if rule.direction is direction:
                    restricted |= wearers
                    yield from self._of_rule(Allowance(group, rule), wearers, hosts)
        for family in FAMILIES:
            yield from self._without_rules(direction, family, restricted)

    def _of_rule(self, allowance: Allowance, wearers: int, hosts: int) -> Iterator[_Grant]:
        peers, naming = self._peers(allowance.rule)
        for family in FAMILIES:
            services = services_of(allowance.rule, family)
            subjects, known = (bits & self.population.family[family] for bits in (wearers, peers))
            if not (services and subjects and known):
                continue
            if allowance.rule.direction is Direction.EGRESS and services & REDIRECTS:
                yield _Grant(subjects & hosts, known, services, allowance, naming)
                subjects, services = subjects & ~hosts, services - REDIRECTS
            yield _Grant(subjects, known, services, allowance, naming)

    def _peers(self, rule: Rule) -> tuple[int, GroupId | Span]:
        if isinstance(rule.peer, GroupPeer):
            return self.population.peers[self._version].get(rule.peer.group, NOBODY), rule.peer.group
        span = span_of(rule.peer.network)
        return self.population.within(span), span

    def _without_rules(self, direction: Direction, family: Family, restricted: int) -> Iterator[_Grant]:
        here, everything = self.population.family[family], ALL_SERVICES[family]
        yield _Grant(here & self.population.outside, here, everything, Standing.OUTSIDE)
        yield _Grant(here & self._playing(lambda role: role.observe), here, everything, Standing.OBSERVED)
        if direction is Direction.EGRESS:
            open_ = here & self._playing(lambda _: True) & ~restricted
            yield _Grant(open_, here, FLOWS[family], Standing.EGRESS_OPEN)


@lru_cache(maxsize=1 << 16)
def _both(one: Intervals, two: Intervals) -> Intervals:
    return one & two


def _union(sets: Iterable[int]) -> int:
    return reduce(or_, sets, 0)


def _index(entries: Iterable[tuple[int, _Key]]) -> dict[_Key, int]:
    found: dict[_Key, list[int]] = defaultdict(list)
    for number, key in entries:
        found[key].append(number)
    return {key: bits_of(numbers) for key, numbers in found.items()}
