"""What each side allows, as products of classes: an egress grant meets an ingress grant, and that is a ``Flow``.

Input: a population. Output: flows, each with the two reasons that imply it; together they hold exactly the first
packets that ``verdict`` allows. What passes besides rules (discovery, DHCP, lifelines of a host) is no part of it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache, reduce
from operator import or_
from typing import Final, TypeVar

from ringfence.policy.addresses import FAMILIES, Family
from ringfence.policy.insight.address_axis import span_of
from ringfence.policy.insight.boxes import Box
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.population import NOBODY, Population, Role, Span, bits_of, numbers_of
from ringfence.policy.insight.services import ALL_SERVICES, FLOWS, REDIRECTS, services_of
from ringfence.policy.model import GroupPeer, Rule
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

    @property
    def turned(self) -> "Flow":
        """The same with its ends changed round, for what works along destinations only."""
        return replace(self, sources=self.destinations, destinations=self.sources)


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
    family: Family
    naming: GroupId | Span | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What it is known by in another version: two of one key differ in subjects and peers alone.

        Plain numbers and words, because there are tens of thousands of them to be hashed.
        """
        because = self.because
        if isinstance(because, Allowance):
            return because.group.int, because.rule.id.int, self.family, self.services.toggles
        return because.value, self.family

    def box(self, subjects: int, peers: int, direction: Direction) -> Box:
        """What it allows between some of its subjects and peers."""
        ends = (peers, subjects) if direction is Direction.INGRESS else (subjects, peers)
        return Box(*ends, self.services)


class Grants:
    """All grants of one snapshot of a population, indexed by whom they could meet."""

    def __init__(self, population: Population, version: int = 0) -> None:
        self.population = population
        self.version = version
        self._ingress = [*self._make(Direction.INGRESS)]
        self._egress = [*self._make(Direction.EGRESS)]
        self._standing = bits_of(n for n, grant in enumerate(self._egress) if grant.naming is None)
        self._outside = bits_of(n for n, grant in enumerate(self._egress) if grant.because is Standing.OUTSIDE)
        self._inside = population.everybody & ~population.outside
        self._by_worn = _index(
            (n, grant.because.group) for n, grant in enumerate(self._egress) if isinstance(grant.because, Allowance)
        )
        self._by_naming = _index((n, grant.naming) for n, grant in enumerate(self._egress) if grant.naming is not None)
        self._by_source = self._index_by_source()
        self._keyed: dict[Direction, dict[tuple[object, ...], _Grant]] = {}
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

    def of_rules(self, direction: Direction) -> Iterator[tuple[Allowance, Box]]:
        """What each rule allows: the box's sources are those who wear it, in either direction, the others its peers."""
        for grant in self._ingress if direction is Direction.INGRESS else self._egress:
            if isinstance(grant.because, Allowance):
                yield grant.because, Box(grant.subjects, grant.peers, grant.services)

    def differences(self, other: "Grants") -> Iterator[Box]:
        """Boxes outside of which both versions of a population allow the same. O(grants)."""
        for direction in Direction:
            one, two = self._by_key(direction), other._by_key(direction)  # noqa: SLF001  it is of this class
            for key, grant in one.items():
                yield from _difference(grant, two.get(key), direction)
            for key in two.keys() - one.keys():
                yield from _difference(two[key], None, direction)

    def _by_key(self, direction: Direction) -> dict[tuple[object, ...], _Grant]:
        if direction not in self._keyed:
            grants = self._ingress if direction is Direction.INGRESS else self._egress
            self._keyed[direction] = {grant.key: grant for grant in grants}
        return self._keyed[direction]

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
        if not comes & self._inside:
            return self._outside
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
        for group in self.population.snapshots[self.version].groups.values():
            for source in group.sources:
                span = span_of(source.network)
                found[span] = found.get(span, 0) | self._by_naming.get(group.id, 0)
        return found

    def _role(self, number: int) -> Role | None:
        roles = self.population.classes[number].roles
        return roles[self.version] if roles else None

    def _playing(self, holds: Callable[[Role], bool]) -> int:
        numbers = range(len(self.population.classes))
        return bits_of(number for number in numbers if (role := self._role(number)) is not None and holds(role))

    def _make(self, direction: Direction) -> Iterator[_Grant]:
        population, version = self.population, self.version
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
                yield _Grant(subjects & hosts, known, services, allowance, family, naming)
                subjects, services = subjects & ~hosts, services - REDIRECTS
            yield _Grant(subjects, known, services, allowance, family, naming)

    def _peers(self, rule: Rule) -> tuple[int, GroupId | Span]:
        if isinstance(rule.peer, GroupPeer):
            return self.population.peers[self.version].get(rule.peer.group, NOBODY), rule.peer.group
        span = span_of(rule.peer.network)
        return self.population.within(span), span

    def _without_rules(self, direction: Direction, family: Family, restricted: int) -> Iterator[_Grant]:
        here, everything = self.population.family[family], ALL_SERVICES[family]
        yield _Grant(here & self.population.outside, here, everything, Standing.OUTSIDE, family)
        observed = here & self._playing(lambda role: role.observe)
        yield _Grant(observed, here, everything, Standing.OBSERVED, family)
        if direction is Direction.EGRESS:
            open_ = here & self._playing(lambda _: True) & ~restricted
            yield _Grant(open_, here, FLOWS[family], Standing.EGRESS_OPEN, family)


def _difference(one: _Grant, two: _Grant | None, direction: Direction) -> Iterator[Box]:
    """Whom only one of two grants of the same key concerns, as subject or as peer."""
    subjects, peers = (two.subjects, two.peers) if two else (NOBODY, NOBODY)
    if one.subjects != subjects:
        yield one.box(one.subjects ^ subjects, one.peers | peers, direction)
    if one.peers != peers and (both := one.subjects & subjects):
        yield one.box(both, one.peers ^ peers, direction)


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
