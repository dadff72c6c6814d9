"""Assertions about a policy ("any -> db tcp/22 deny"), decided exactly, for every packet that they are about.

Input: the sentences and a ``Reachability``. Output for each: that it holds, or a packet that proves the opposite.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice, product
from typing import Final

from ringfence.policy.addresses import FAMILIES, Family
from ringfence.policy.errors import CallerError, Invalid
from ringfence.policy.insight.address_axis import address_at, position
from ringfence.policy.insight.boxes import Box, left_of
from ringfence.policy.insight.ends import End, parse_end
from ringfence.policy.insight.grants import Grants, Question
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.population import Class, Dweller, Population
from ringfence.policy.insight.reach import Reachability
from ringfence.policy.insight.services import (
    ALL_SERVICES,
    FLOWS,
    describe_services,
    parse_services,
    protocol_at,
    service_span,
)
from ringfence.policy.packet import EPHEMERAL_PORT, ICMP, ICMPV6, TCP, UDP, Packet
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import Address, Kind, OrganisationId
from ringfence.policy.verdict import Verdict, judge
from ringfence.policy.view import Endpoint, HostView
from ringfence.policy.wording import shown, suggestion

_WORDS: Final = {"allow": True, "deny": False}
_SENTENCE: Final = re.compile(r"\s*(?P<source>.+?)\s+->\s+(?P<destination>.+?)\s+(?P<service>\S+)\s+(?P<word>\S+)\s*")
_EXPECTED: Final = "expected SOURCE -> DESTINATION SERVICE allow, or deny, such as any -> db tcp/22 deny"
_PORT_ZERO: Final = Intervals.of(service_span(TCP, 0, 0), service_span(UDP, 0, 0))  # a poor example of a port
_MEANT: Final[dict[Family, Intervals]] = {  # all services but the other family's ICMP
    4: ALL_SERVICES[4] - Intervals.of(service_span(ICMPV6)),
    6: ALL_SERVICES[6] - Intervals.of(service_span(ICMP)),
}
_MOST_EXAMPLES: Final = 8
_MOST_TRIED: Final = 64  # addresses, to find one that nobody has


@dataclass(frozen=True, slots=True)
class Assertion:
    """Every packet from ``source`` to ``destination`` on ``services`` passes (``allow``), or none does.

    ``field`` is its path in the document that it comes from, for errors.
    """

    source: str
    destination: str
    service: str
    services: Intervals
    allow: bool
    field: str

    def __str__(self) -> str:
        word = "allow" if self.allow else "deny"
        return f"{shown(self.source)} -> {shown(self.destination)} {self.service} {word}"


@dataclass(frozen=True, slots=True)
class Witness:
    """A packet that proves an assertion wrong, its two ends (None: no instance), and the verdict on it."""

    packet: Packet
    source: Endpoint | None
    destination: Endpoint | None
    service: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Result:
    """``witness`` is None when the assertion holds; ``about_nobody``: it holds because it is about no packet at all."""

    assertion: Assertion
    witness: Witness | None = None
    about_nobody: bool = False


def parse_assertion(text: str, *, field: str) -> Assertion:
    """The assertion that a sentence states.

    Raises:
        Invalid: naming ``field``, and what was expected.
    """
    found = _SENTENCE.fullmatch(text)
    if found is None:
        raise Invalid(f"{_EXPECTED}; got {ascii(text)[:96]}", field=field)
    if found["word"] not in _WORDS:
        hint = suggestion(found["word"], _WORDS)
        raise Invalid(f"{_EXPECTED}; it ends with {found['word']!a}{hint}", field=field)
    services = parse_services(found["service"], field=field)
    return Assertion(
        found["source"], found["destination"], found["service"], services, _WORDS[found["word"]], field=field
    )


def parse_assertions(texts: Iterable[str]) -> tuple[Assertion, ...]:
    """As ``parse_assertion``, for each of the list ``$.assertions``."""
    return tuple(parse_assertion(text, field=f"$.assertions[{number}]") for number, text in enumerate(texts))


def check(reachability: Reachability, assertion: Assertion, *, owner: OrganisationId | None = None) -> Result:
    """Whether an assertion holds; with ``owner`` only names that this organisation may use are known.

    Costs as much as ``Reachability.ask``.

    Raises:
        NotFound, Invalid: as ``parse_end``, naming the assertion's field.
    """
    return check_version(reachability.grants, assertion, owner=owner)


def check_version(grants: Grants, assertion: Assertion, *, owner: OrganisationId | None = None) -> Result:
    """As ``check``, for one snapshot of a population of several."""
    asked = _Asked.of(_Case(grants.population, grants, grants.version), assertion, owner)
    return Result(assertion, asked.first(asked.violations()), about_nobody=not asked.meant)


def examples(
    reachability: Reachability, assertion: Assertion, sources: Iterable[Address], *, owner: OrganisationId | None = None
) -> list[Witness]:
    """A few packets that an assertion is about, each from one of ``sources`` to an instance or a single address.

    Raises:
        NotFound, Invalid: as ``check``.
    """
    asked = _Asked.of(_Case(reachability.population, reachability.grants, 0), assertion, owner)
    found = (
        _witness(asked.case, box, (sender, receiver))
        for source in sources
        for box in asked.meant
        for sender, receiver in asked.pairs_from(source, box)
    )
    return [*islice(found, _MOST_EXAMPLES)]


def find_worse(
    before: Snapshot,
    after: Snapshot,
    assertion: Assertion,
    *,
    owner: OrganisationId | None = None,
    is_taken: Callable[[Address], bool] = lambda _: False,
) -> Witness | None:
    """A packet that proves an assertion wrong in ``after`` and did not in ``before``. O(n log n) of both.

    For an end that is no instance it prefers an address for which ``is_taken`` is false.

    Raises:
        NotFound, Invalid: as ``parse_end``, for ``after``. A name that ``before`` does not know is no error.
    """
    population = Population(before, after)
    asked = _Asked.of(_Case(population, Grants(population, 1), 1, is_taken), assertion, owner)
    try:
        known = [*_Asked.of(_Case(population, Grants(population, 0), 0), assertion, owner).violations()]
    except CallerError:
        known = []
    return asked.first(left for box in asked.violations() for left in left_of(box, known))


@dataclass(frozen=True, slots=True)
class _Case:
    """One snapshot of a population, and what it grants."""

    population: Population
    grants: Grants
    version: int
    is_taken: Callable[[Address], bool] = lambda _: False


_Somebody = tuple[Address, Dweller | None]


@dataclass(frozen=True, slots=True)
class _Asked:
    """An assertion about one snapshot: its ends there, and all packets that it is about."""

    case: _Case
    allow: bool
    source: End
    destination: End
    meant: tuple[Box, ...]

    @classmethod
    def of(cls, case: _Case, assertion: Assertion, owner: OrganisationId | None) -> "_Asked":
        source, destination = (
            parse_end(case.population, text, field=assertion.field, owner=owner, version=case.version)
            for text in (assertion.source, assertion.destination)
        )
        bare = cls(case, assertion.allow, source, destination, ())
        meant = tuple(box for box in _meant(case, assertion, source, destination) if bare.pair(box))
        return replace(bare, meant=meant)

    def violations(self) -> Iterator[Box]:
        """The packets that should pass and do not, or that should not pass and do."""
        for box in self.meant:
            flows = self.case.grants.flows(Question(box.sources, box.destinations, box.services))
            passing = (Box(flow.sources, flow.destinations, flow.services) for flow in flows)
            yield from left_of(box, [*passing]) if self.allow else passing

    def first(self, boxes: Iterable[Box]) -> Witness | None:
        """A packet of the first box that has any between two different instances or addresses."""
        return next((_witness(self.case, box, pair) for box in boxes if (pair := self.pair(box))), None)

    def pair(self, box: Box) -> tuple[_Somebody, _Somebody] | None:
        """A sender and a receiver in the box; None when all of its packets stay within one instance."""
        chosen = self.case.population.chosen
        for one, two in product(chosen(box.sources), chosen(box.destinations)):
            senders, receivers = self._meant_of(one, self.source), self._meant_of(two, self.destination)
            for sender, receiver in product(senders, receivers):
                if _are_apart(sender, receiver):
                    return sender, receiver
        return None

    def pairs_from(self, address: Address, box: Box) -> Iterator[tuple[_Somebody, _Somebody]]:
        """The sender with ``address``, paired with the first receiver in the box that is known by name or address."""
        chosen, place = self.case.population.chosen, position(address)
        for one in chosen(box.sources):
            if place in self.source.part_of(one):
                living = (dweller for dweller in self.source.dwellers(one) if dweller.address == address)
                sender = (address, next(living, None))
                known = (
                    two for two in chosen(box.destinations) if two.roles or self.destination.part_of(two).size == 1
                )
                receivers = (somebody for two in known for somebody in self._meant_of(two, self.destination))
                yield from islice(((sender, other) for other in receivers if _are_apart(sender, other)), 1)

    def _meant_of(self, kind: Class, end: End) -> Iterator[_Somebody]:
        if kind.roles:
            yield from ((one.address, one) for one in end.dwellers(kind))
        else:
            addresses = end.part_of(kind)
            points = chain.from_iterable(range(first, last + 1) for first, last in addresses)
            tried = map(address_at, islice(points, _MOST_TRIED))
            free = next((one for one in tried if not self.case.is_taken(one)), None)
            yield address_at(addresses.first) if free is None else free, None


def _meant(case: _Case, assertion: Assertion, source: End, destination: End) -> Iterator[Box]:
    """All packets that an assertion is about: of one family each, with an instance at one end at least.

    An ``allow`` is about packets that open a flow, unless its services have none: errors pass as part of a flow.
    """
    outside, present = case.population.outside, case.population.present[case.version]
    for family in FAMILIES:
        here = case.population.family[family] & present
        services = assertion.services & _MEANT[family]
        if assertion.allow:
            services = services & FLOWS[family] or services
        sources, destinations = source.bits & here, destination.bits & here
        boxes = (
            Box(sources & ~outside, destinations, services),
            Box(sources & outside, destinations & ~outside, services),
        )
        yield from filter(None, boxes)


def _are_apart(sender: _Somebody, receiver: _Somebody) -> bool:
    (one, sends), (two, receives) = sender, receiver
    if sends is not None and receives is not None and sends.instance == receives.instance:
        return False
    return one != two


def _witness(case: _Case, box: Box, pair: tuple[_Somebody, _Somebody]) -> Witness:
    (source, sends), (destination, receives) = pair
    place = _example(box.services, source).first
    protocol, value = protocol_at(place)
    type_, code = divmod(value, 256) if protocol in (ICMP, ICMPV6) else (0, 0)
    ports = (EPHEMERAL_PORT, value) if protocol in (TCP, UDP) else (0, 0)
    packet = Packet(source, destination, protocol, *ports, icmp_type=type_, icmp_code=code)
    view = case.population.views[case.version]
    sender, receiver = _endpoint(view, sends), _endpoint(view, receives)
    leaves_host = sender is not None and sender.kind is Kind.SELF
    verdict = judge(view, packet, source=sender, destination=receiver, from_host=leaves_host)
    return Witness(packet, sender, receiver, describe_services(Intervals.of((place, place))), verdict)


def _example(services: Intervals, source: Address) -> Intervals:
    """The part of ``services`` that makes the best example: no port 0 and no error message, if there is another."""
    flows = services & FLOWS[4 if source.version == 4 else 6]  # noqa: PLR2004  the family's number
    return (flows - _PORT_ZERO) or flows or services


def _endpoint(view: HostView, dweller: Dweller | None) -> Endpoint | None:
    if dweller is None:
        return None
    where = (dweller.instance, dweller.interface)
    return next(one for one in view.endpoints if (one.instance, one.interface) == where)
