"""PURE: sets of first packets as boxes (addresses x services), and the rules that allow exactly such a set.

A packet is a source address and a service, as ``policy.address_axis`` and ``policy.services`` lay them out.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final

from ringfence.policy.addresses import FAMILIES, Family
from ringfence.policy.commands import RuleDraft
from ringfence.policy.insight.address_axis import UNICAST, WHOLE, networks_of, span_of
from ringfence.policy.insight.intervals import EMPTY, Intervals
from ringfence.policy.insight.services import ALL_SERVICES, FLOWS, service_span
from ringfence.policy.packet import ICMP, ICMPV6
from ringfence.policy.values import MAX_PORT, PROTOCOL_NUMBER, Cidr, Direction, Icmp, Network, Protocol

_LAST: Final = 255  # ICMP's last type and code, which the API cannot name and nobody uses
ICMP_OF: Final[dict[Family, int]] = {4: ICMP, 6: ICMPV6}
_OF_FAMILY: Final = {family: Intervals.of(WHOLE[family]) for family in FAMILIES}
_SERVICES: Final = {  # of a family: the other one's ICMP is none of its
    4: ALL_SERVICES[4] - Intervals.of(service_span(ICMPV6)),
    6: ALL_SERVICES[6] - Intervals.of(service_span(ICMP)),
}
_NAMED: Final = Intervals.union(service_span(number) for number in PROTOCOL_NUMBER.values())


@dataclass(frozen=True, slots=True)
class Box:
    """All packets of one family from ``addresses`` for ``services``."""

    family: Family
    addresses: Intervals
    services: Intervals

    def __bool__(self) -> bool:
        return bool(self.addresses) and bool(self.services)

    def __and__(self, other: "Box") -> "Box":
        if self.family != other.family:
            return Box(self.family, EMPTY, EMPTY)
        return Box(self.family, self.addresses & other.addresses, self.services & other.services)

    def without(self, other: "Box") -> Iterator["Box"]:
        """What of it is not in the other: at most two boxes."""
        common = self & other
        if not common:
            yield self
            return
        for rest in (
            Box(self.family, self.addresses - common.addresses, self.services),
            Box(self.family, common.addresses, self.services - common.services),
        ):
            if rest:
                yield rest


Space = tuple[Box, ...]
EVERYTHING: Final[Space] = tuple(Box(family, UNICAST & _OF_FAMILY[family], _SERVICES[family]) for family in FAMILIES)


def space_of(
    addresses: Intervals | None = None, services: Intervals | None = None, family: Family | None = None
) -> Space:
    """The packets from these addresses for these services, of this family; None stands for any."""
    return tuple(
        cut
        for box in EVERYTHING
        if family in (None, box.family)
        and (
            cut := Box(
                box.family,
                box.addresses if addresses is None else box.addresses & addresses,
                box.services if services is None else box.services & services,
            )
        )
    )


def common(one: Space, other: Space) -> Space:
    """The packets that are in both."""
    return tuple(box for pair in product(one, other) if (box := pair[0] & pair[1]))


def without(one: Space, other: Space) -> Space:
    """The packets of the one that are not in the other."""
    for gone in other:
        one = tuple(rest for box in one for rest in box.without(gone))
    return one


def merged(space: Space) -> Space:
    """The same packets in fewer boxes: those of the same services as one, and those of the same addresses."""
    by_services: dict[tuple[Family, Intervals], list[Intervals]] = defaultdict(list)
    for box in space:
        by_services[box.family, box.services].append(box.addresses)
    by_addresses: dict[tuple[Family, Intervals], list[Intervals]] = defaultdict(list)
    for (family, services), addresses in by_services.items():
        by_addresses[family, Intervals.joined(addresses)].append(services)
    return tuple(Box(family, addresses, Intervals.joined(all_)) for (family, addresses), all_ in by_addresses.items())


def opening(space: Space) -> Space:
    """Those of the packets that open a flow, which a packet filter calls new."""
    return tuple(cut for box in space if (cut := Box(box.family, box.addresses, box.services & FLOWS[box.family])))


def is_all(box: Box) -> bool:
    """Whether it is for everything that opens a flow."""
    return FLOWS[box.family] <= box.services


def named_alone(box: Box) -> Box:
    """The part of it whose protocols rules can name."""
    return Box(box.family, box.addresses, box.services & _NAMED)


def unknown_services(box: Box) -> Intervals:
    """Services that no rule can name, because of their protocol; none if the box has all services."""
    return EMPTY if is_all(box) else box.services - _NAMED


def drafts_of(box: Box, description: str | None) -> Iterator[RuleDraft]:
    """Rules that let in exactly the box, but for ``unknown_services``, port 0, and ICMP's type and code 255."""
    networks = [Cidr(str(network), network) for network in _covering(box)]
    for service, network in product(_services(box), networks):
        protocol, first, last, icmp = service
        yield RuleDraft(Direction.INGRESS, protocol, network, first, last, icmp, description)


def _covering(box: Box) -> list[Network]:
    """The fewest networks that contain these addresses, and otherwise only addresses that send no packets."""
    unused = _OF_FAMILY[box.family] - UNICAST
    plain, wide = networks_of(box.addresses), networks_of(box.addresses | unused)
    wide = [network for network in wide if Intervals.of(span_of(network)) & box.addresses]
    return min(plain, wide, key=len)


_Service = tuple[Protocol, int | None, int | None, Icmp | None]


def _services(box: Box) -> Iterator[_Service]:
    if is_all(box):
        yield Protocol.ALL, None, None, None
        return
    for protocol, number in PROTOCOL_NUMBER.items():
        base, end = service_span(number)
        for first, last in box.services & Intervals.of((base, end)):
            if protocol.has_ports:
                yield from _ports(protocol, first - base, last - base)
            elif not protocol.has_types:
                yield protocol, None, None, None
        if protocol.has_types and number == ICMP_OF[box.family]:
            yield from _types(protocol, base, box.services & _SERVICES[box.family])


def _ports(protocol: Protocol, first: int, last: int) -> Iterator[_Service]:
    if (first, last) == (0, MAX_PORT):
        yield protocol, None, None, None
    elif last > 0:
        yield protocol, max(first, 1), last, None


def _types(protocol: Protocol, base: int, services: Intervals) -> Iterator[_Service]:
    """Types whole, or code by code; one rule for all where everything is meant that is not judged before rules."""
    number = PROTOCOL_NUMBER[protocol]
    family: Family = 4 if number == ICMP else 6
    whole = Intervals.of(service_span(number)) & _SERVICES[family]
    if whole <= services:
        yield protocol, None, None, None
        return
    for type_ in range(_LAST):
        span = Intervals.of(service_span(number, type_ << 8, type_ << 8 | _LAST))
        codes = services & span
        if codes and codes == span:
            yield protocol, None, None, Icmp(type_, None)
            continue
        for first, last in codes:
            for code in range(first - base - (type_ << 8), min(last - base - (type_ << 8), _LAST - 1) + 1):
                yield protocol, None, None, Icmp(type_, code)
