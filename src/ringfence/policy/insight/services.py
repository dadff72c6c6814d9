"""Maps services (protocol and destination port, or ICMP type and code) to one line of integers, their places.

tcp and udp take 65,536 places each, icmp and icmpv6 one for every type and code, every other protocol number one.
Discovery on the link is left out: no group judges it. Source ports are assumed to be ephemeral.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from ringfence.policy.addresses import Family
from ringfence.policy.errors import Invalid
from ringfence.policy.insight.intervals import EMPTY, Intervals
from ringfence.policy.model import Rule
from ringfence.policy.packet import (
    AH,
    ICMP,
    ICMPV6,
    NO_NEXT_HEADER,
    OPENING_ICMP,
    OPENING_ICMPV6,
    TCP,
    UDP,
    Packet,
)
from ringfence.policy.values import MAX_PORT, PROTOCOL_NUMBER, Protocol
from ringfence.policy.well_known import LINK_TYPES, ROGUE_ICMP_TYPE

_SIZE: Final = 1 << 16
_BASE: Final = {TCP: 0, UDP: _SIZE, ICMP: 2 * _SIZE, ICMPV6: 3 * _SIZE}
_OTHERS: Final = 4 * _SIZE
_OTHER_PLACES: Final = Intervals.of((_OTHERS, _OTHERS + 255))
_CODES: Final = 256
_NAMES: Final = {number: protocol.value for protocol, number in PROTOCOL_NUMBER.items()}
FAMILY_OF_ICMP: Final[Family] = 4
SERVICE: Final = re.compile(r"(?P<protocol>[a-z0-9]+)(?:/(?P<first>\d{1,5})(?:(?P<mark>[-/])(?P<second>\d{1,5}))?)?")


def service_span(protocol: int, first: int = 0, last: int = MAX_PORT) -> tuple[int, int]:
    """First and last place of ``protocol`` with ports ``first`` to ``last`` (for ICMP: type * 256 + code)."""
    if protocol in _BASE:
        return _BASE[protocol] + first, _BASE[protocol] + last
    return _OTHERS + protocol, _OTHERS + protocol


def place_of(packet: Packet) -> int:
    """The place of the packet's service."""
    if packet.protocol in (ICMP, ICMPV6):
        value = packet.icmp_type * _CODES + packet.icmp_code
    else:
        value = packet.destination_port
    return service_span(packet.protocol, value, value)[0]


def protocol_at(place: int) -> tuple[int, int]:
    """The inverse: the protocol number, and the port, or type * 256 + code, or 0."""
    if place >= _OTHERS:
        return place - _OTHERS, 0
    base = place // _SIZE * _SIZE
    return next(number for number, begin in _BASE.items() if begin == base), place - base


def _types(protocol: int, types: frozenset[int] | set[int]) -> Intervals:
    return Intervals.union(
        service_span(protocol, type_ * _CODES, type_ * _CODES + _CODES - 1) for type_ in sorted(types)
    )


_EVERY: Final = Intervals.of((0, _OTHERS + 255)) - Intervals.union(
    (_OTHERS + number, _OTHERS + number) for number in _BASE
)
_ICMPS: Final = Intervals.of(service_span(ICMP), service_span(ICMPV6))
# All services, and those of which a packet opens a flow, by family (as packet.tracking_of).
ALL_SERVICES: Final[dict[Family, Intervals]] = {4: _EVERY, 6: _EVERY - _types(ICMPV6, LINK_TYPES)}
_NO_FLOWS6: Final = Intervals.of(service_span(AH), service_span(NO_NEXT_HEADER))
FLOWS: Final[dict[Family, Intervals]] = {
    4: (_EVERY - _ICMPS) | _types(ICMP, OPENING_ICMP),
    6: (_EVERY - _ICMPS - _NO_FLOWS6) | _types(ICMPV6, OPENING_ICMPV6),
}
REDIRECTS: Final = _types(ICMP, {ROGUE_ICMP_TYPE})  # no instance may send these, whatever its rules say


@lru_cache(maxsize=4096)
def _of_protocol(protocol: Protocol, first: int, last: int, family: Family) -> Intervals:
    if protocol is Protocol.ALL:
        return FLOWS[family]
    if protocol.has_types and (protocol is Protocol.ICMP) != (family == FAMILY_OF_ICMP):
        return EMPTY
    return Intervals.of(service_span(PROTOCOL_NUMBER[protocol], first, last)) & ALL_SERVICES[family]


def services_of(rule: Rule, family: Family) -> Intervals:
    """The services that a rule allows in a family, whoever the peer is; agrees with ``verdict``."""
    if rule.protocol.has_types and rule.icmp is not None and not (rule.icmp.any_type and rule.icmp.any_code):
        return _of_types(rule, family)
    return _of_protocol(rule.protocol, rule.ports.first, rule.ports.last, family)


def _of_types(rule: Rule, family: Family) -> Intervals:
    icmp = rule.icmp
    if icmp is None:
        return EMPTY
    types = range(_CODES) if icmp.any_type else (icmp.type or 0,)
    codes = (0, _CODES - 1) if icmp.any_code else (icmp.code or 0, icmp.code or 0)
    number = PROTOCOL_NUMBER[rule.protocol]
    spans = [service_span(number, type_ * _CODES + codes[0], type_ * _CODES + codes[1]) for type_ in types]
    return Intervals.union(spans) & _of_protocol(rule.protocol, 0, MAX_PORT, family)


def parse_services(text: str, *, field: str = "service") -> Intervals:
    """The services in a text such as ``tcp/5432``, ``tcp/80-90``, ``udp``, ``icmp/3/4``, ``esp`` or ``any``.

    Several are separated by commas. Raises ``Invalid``, naming ``field``.
    """
    found = EMPTY
    for one in text.split(","):
        found |= _EVERY if one.strip() in ("any", "all") else Intervals.of(_parse_service(one.strip(), text, field))
    return found


def _parse_service(one: str, text: str, field: str) -> tuple[int, int]:
    such = "tcp/443, tcp/80-90, udp, icmp/8, esp or any, with commas between"
    expected = f"expected a service such as {such}; got {ascii(text)[:64]}"
    found = SERVICE.fullmatch(one)
    names = {name: number for number, name in _NAMES.items()}
    if not found or found["protocol"] not in names:
        raise Invalid(expected, field=field)
    number = names[found["protocol"]]
    if found["first"] is None:
        return service_span(number)
    first = int(found["first"])
    second = int(found["second"]) if found["second"] else None
    if (
        number in (TCP, UDP)
        and found["mark"] != "/"
        and first <= (last := first if second is None else second) <= MAX_PORT
    ):
        return service_span(number, first, last)
    if number in (ICMP, ICMPV6) and found["mark"] != "-" and first < _CODES and (second or 0) < _CODES:
        codes = (0, _CODES - 1) if second is None else (second, second)
        return service_span(number, first * _CODES + codes[0], first * _CODES + codes[1])
    raise Invalid(expected, field=field)


def describe_services(services: Intervals) -> str:
    """Services in words: ``tcp/22, tcp/80-90, icmp/8, esp``; ``any`` for all that open a flow in a family.

    ``any except udp/53`` where that is shorter.
    """
    words = []
    for flows in FLOWS.values():
        if flows <= services:
            words, services = ["any"], services - flows
    words += _all_words(services)
    for flows in FLOWS.values():
        if services <= flows and 0 < len(missing := _all_words(flows - services)) < len(words):
            return f"any except {', '.join(missing)}"
    return ", ".join(words) or "nothing"


def _all_words(services: Intervals) -> list[str]:
    return [word for number in (*_BASE, None) for word in _words(services, number)]


def _words(services: Intervals, number: int | None) -> Iterator[str]:
    if number is None:
        for first, last in services & _OTHER_PLACES:
            yield from _other_words(first - _OTHERS, last - _OTHERS)
        return
    base = _BASE[number]
    for first, last in services & Intervals.of(service_span(number)):
        yield _NAMES[number] + _range_words(first - base, last - base, has_types=number in (ICMP, ICMPV6))


def _other_words(first: int, last: int) -> Iterator[str]:
    if last - first > len(_NAMES):
        yield f"protocol/{first}-{last}"
        return
    for number in range(first, last + 1):
        yield _NAMES.get(number, f"protocol/{number}")


def _range_words(first: int, last: int, *, has_types: bool) -> str:
    if (first, last) == (0, MAX_PORT):
        return ""
    if not has_types:
        return f"/{first}" if first == last else f"/{first}-{last}"
    (type_, code), (last_type, last_code) = divmod(first, _CODES), divmod(last, _CODES)
    if (code, last_code) == (0, _CODES - 1):
        return f"/{type_}" if type_ == last_type else f"/{type_}-{last_type}"
    return f"/{type_}/{code}" if first == last else f"/{type_}/{code}-{last_type}/{last_code}"
