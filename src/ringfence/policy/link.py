"""The fixed part of every program: base chains, anti-spoofing, and what passes besides rules (design, semantics row 5).

Everything here is an allow-list over a drop: a port that lacks an element in a set or map is closed, never open.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from ringfence.policy import names
from ringfence.policy.program import (
    FILTER_PRIORITY,
    RAW_PRIORITY,
    REPLY,
    Accept,
    Between,
    Chain,
    Count,
    Differs,
    Dispatch,
    Drop,
    Element,
    ElementType,
    Equal,
    Field,
    Fresh,
    Goto,
    Hook,
    HookName,
    InState,
    Jump,
    Line,
    Match,
    Member,
    NamedSet,
    NotOpening,
    Part,
    Stamp,
    StartsWith,
    State,
    Within,
)
from ringfence.policy.values import PROTOCOL_NUMBER, Protocol, link_local
from ringfence.policy.view import Endpoint

ALLOW: Final = "allow"
_CLOSED: Final = "closed"
_OWN: Final = "own"
_OWN_ADDRESS: Final = "own_address"
_LEAVE_PORT: Final = "leave_port"
_ARRIVE_PORT: Final = "arrive_port"
_HOST_LINK: Final = "host_link"

_ICMP: Final = Equal(Field.PROTOCOL, PROTOCOL_NUMBER[Protocol.ICMP])
_ICMPV6: Final = Equal(Field.PROTOCOL, PROTOCOL_NUMBER[Protocol.ICMPV6])
_UDP: Final = Equal(Field.PROTOCOL, PROTOCOL_NUMBER[Protocol.UDP])
_LINK_LOCAL: Final = IPv6Network("fe80::/10")
# Multicast listener and neighbour discovery, which conntrack does not track (nf_conntrack_proto_icmpv6.c): never a
# matter of groups. 134 is the router advertisement, 137 the redirect.
LINK_TYPES: Final = frozenset({*range(130, 138), 143})
ROGUE_TYPES: Final = frozenset({134, 137})
# IPv6 in so many words: nothing keeps an instance from sending protocol 58 over IPv4.
_ND: Final = (Equal(Field.FAMILY, 6), _ICMPV6)
_LINK_MATCHES: Final = ((*_ND, Between(Field.ICMPV6_TYPE, 130, 137)), (*_ND, Equal(Field.ICMPV6_TYPE, 143)))
# From the unspecified address, while an address is still being found: listener reports, solicitations.
UNSPECIFIED_TYPES: Final = frozenset({131, 132, 133, 135, 143})
_UNSPECIFIED_MATCHES: Final = (
    Between(Field.ICMPV6_TYPE, 131, 133),
    Equal(Field.ICMPV6_TYPE, 135),
    Equal(Field.ICMPV6_TYPE, 143),
)


def _udp(source_port: int, destination_port: int) -> tuple[Match, ...]:
    return (
        _UDP,
        Equal(Field.UDP_SOURCE_PORT, source_port),
        Equal(Field.UDP_DESTINATION_PORT, destination_port),
    )


_DHCP4_REQUEST: Final = _udp(68, 67)
_DHCP4_REPLY: Final = _udp(67, 68)
_DHCP6_REQUEST: Final = _udp(546, 547)
_DHCP6_REPLY: Final = _udp(547, 546)
BROADCAST: Final = IPv4Network("255.255.255.255/32")
ALL_DHCP_SERVERS: Final = IPv6Network("ff02::1:2/128")


def base_chains(prefixes: tuple[str, ...]) -> Iterator[tuple[str, Chain]]:
    """The chains that every program has; interfaces starting with one of ``prefixes`` are closed until programmed."""
    yield ALLOW, Chain(_allow())
    yield _CLOSED, Chain((_drop(names.CLOSED_COUNTER),))
    yield "origin", Chain(tuple(_origin(prefixes)), Hook(HookName.PREROUTING, RAW_PRIORITY))
    yield _OWN, Chain(_own())
    yield _OWN_ADDRESS, Chain(tuple(_own_address()))
    yield "leave", Chain(_leave(), Hook(HookName.PREROUTING, FILTER_PRIORITY))
    yield _LEAVE_PORT, Chain(tuple(_leave_port()))
    yield "arrive", Chain(tuple(_arrive(prefixes)), Hook(HookName.POSTROUTING, FILTER_PRIORITY))
    yield _ARRIVE_PORT, Chain(tuple(_arrive_port()))
    yield _HOST_LINK, Chain(tuple(_host_link()))


def port_sets(programmed: tuple[Endpoint, ...], closed: frozenset[str]) -> dict[str, NamedSet]:
    """Which interfaces are under our care, and what may be sent from each programmed one."""
    addresses = [(str(endpoint.interface), address) for endpoint in programmed for address in endpoint.addresses]
    macs = [(str(endpoint.interface), link_local(endpoint.mac)) for endpoint in programmed if endpoint.mac]
    ipv4: frozenset[Element] = frozenset(pair for pair in addresses if isinstance(pair[1], IPv4Address))
    ipv6: frozenset[Element] = frozenset(pair for pair in addresses if isinstance(pair[1], IPv6Address))
    interface, pair4 = (ElementType.INTERFACE,), (ElementType.INTERFACE, ElementType.IPV4)
    pair6, pair_mac = (ElementType.INTERFACE, ElementType.IPV6), (ElementType.INTERFACE, ElementType.ETHER)
    return {
        names.PORTS: NamedSet(interface, _singles({*closed, *(str(endpoint.interface) for endpoint in programmed)})),
        names.OWN_IPV4: NamedSet(pair4, ipv4),
        names.OWN_IPV6: NamedSet(pair6, ipv6 | frozenset(macs)),
        names.OWN_MAC: NamedSet(pair_mac, frozenset((str(e.interface), str(e.mac)) for e in programmed if e.mac)),
        names.ANY_MAC: NamedSet(interface, _singles(str(e.interface) for e in programmed if not e.mac)),
        names.ANY_LINK_LOCAL: NamedSet(interface, _singles(str(e.interface) for e in programmed if open_link_local(e))),
    }


def open_link_local(endpoint: Endpoint) -> bool:
    """Whether nobody declared what the endpoint's link-local address is, so that any is let through."""
    return endpoint.mac is None and not any(
        isinstance(address, IPv6Address) and address.is_link_local for address in endpoint.addresses
    )


def _singles(interfaces: Iterable[str]) -> frozenset[Element]:
    return frozenset((interface,) for interface in interfaces)


def _drop(counter: str, *matches: Match) -> Line:
    return Line((*matches, Count(counter), Drop()))


def _pass(*matches: Match) -> Line:
    return Line((*matches, Accept()))


def _allow() -> tuple[Line, ...]:
    # Stamped only after routing, when both sides have agreed; never by an error *about* a flow (RELATED), which
    # carries the mark of the flow it is about and would revive a revoked one.
    judged = InState(frozenset({State.NEW, State.ESTABLISHED}))
    return Line((Differs(Field.OUT_INDEX, 0), judged, Stamp())), Line((Accept(),))


def _origin(prefixes: tuple[str, ...]) -> Iterator[Line]:
    yield Line((Member((Field.IN_INTERFACE,), names.PORTS), Goto(_OWN)))
    for prefix in prefixes:
        yield Line((StartsWith(Field.IN_INTERFACE, prefix), Goto(_CLOSED)))


def _own() -> tuple[Line, ...]:
    return (
        Line((Member((Field.IN_INTERFACE, Field.ETHER_SOURCE), names.OWN_MAC), Goto(_OWN_ADDRESS))),
        Line((Member((Field.IN_INTERFACE,), names.ANY_MAC), Goto(_OWN_ADDRESS))),
        _drop(names.SPOOFED_COUNTER),
    )


def _own_address() -> Iterator[Line]:
    for rogue in sorted(ROGUE_TYPES):
        yield _drop(names.ROGUE_COUNTER, *_ND, Equal(Field.ICMPV6_TYPE, rogue))
    yield _drop(names.ROGUE_COUNTER, *_DHCP4_REPLY)
    yield _drop(names.ROGUE_COUNTER, *_DHCP6_REPLY)
    yield _pass(Member((Field.IN_INTERFACE, Field.SOURCE4), names.OWN_IPV4))
    yield _pass(Member((Field.IN_INTERFACE, Field.SOURCE6), names.OWN_IPV6))
    yield _pass(Member((Field.IN_INTERFACE,), names.ANY_LINK_LOCAL), Within(Field.SOURCE6, _LINK_LOCAL))
    unspecified = Within(Field.SOURCE4, IPv4Network("0.0.0.0/32"))
    yield _pass(unspecified, Within(Field.DESTINATION4, BROADCAST), *_DHCP4_REQUEST)
    for types in _UNSPECIFIED_MATCHES:
        yield _pass(Within(Field.SOURCE6, IPv6Network("::/128")), _ICMPV6, types)
    yield _drop(names.SPOOFED_COUNTER)


def _leave() -> tuple[Line, ...]:
    return (
        _pass(InState(frozenset({State.ESTABLISHED})), Fresh()),
        Line((Member((Field.IN_INTERFACE,), names.PORTS), Goto(_LEAVE_PORT))),
    )


def _leave_port() -> Iterator[Line]:
    yield from _related()
    yield from _judge_reply(Field.IN_INTERFACE, names.INGRESS_MAP)
    for types in _LINK_MATCHES:
        yield _pass(*types)
    yield _pass(Within(Field.DESTINATION4, BROADCAST), *_DHCP4_REQUEST)
    yield _pass(Within(Field.DESTINATION6, ALL_DHCP_SERVERS), *_DHCP6_REQUEST)
    yield from _judge_original(Field.IN_INTERFACE, names.EGRESS_MAP)


def _arrive(prefixes: tuple[str, ...]) -> Iterator[Line]:
    yield _pass(InState(frozenset({State.ESTABLISHED})), Fresh())
    yield Line((Member((Field.OUT_INTERFACE,), names.PORTS), Goto(_ARRIVE_PORT)))
    for prefix in prefixes:
        yield Line((StartsWith(Field.OUT_INTERFACE, prefix), Goto(_CLOSED)))
    # Nobody judges the other end: what the sender's groups let go is agreed to.
    yield Line((Member((Field.IN_INTERFACE,), names.PORTS), Goto(ALLOW)))


def _arrive_port() -> Iterator[Line]:
    yield from _related()
    yield from _judge_reply(Field.OUT_INTERFACE, names.EGRESS_MAP)
    yield Line((Equal(Field.IN_INDEX, 0), Jump(_HOST_LINK)))
    for types in _LINK_MATCHES:
        yield _drop(names.LINK_COUNTER, *types)
    yield from _judge_original(Field.OUT_INTERFACE, names.INGRESS_MAP)


def _host_link() -> Iterator[Line]:
    """What this host itself may always send to an instance on its link: discovery, and answers to DHCP."""
    for types in _LINK_MATCHES:
        yield _pass(*types)
    yield _pass(*_DHCP4_REPLY)
    yield _pass(*_DHCP6_REPLY)


def _related() -> Iterator[Line]:
    """Errors about a known flow (path MTU among them) pass whatever the flow's generation."""
    for protocol in (_ICMP, _ICMPV6):
        yield _pass(InState(frozenset({State.RELATED})), protocol)


def _judge_reply(field: Field, map_: str) -> Iterator[Line]:
    """A reply is judged as the flow it belongs to: by what the receiver of the first packet accepts, and so on."""
    reply = Equal(Field.DIRECTION, REPLY)
    yield Line((reply, Dispatch(field, map_)))
    yield Line((reply, Goto(_CLOSED)))


def _judge_original(field: Field, map_: str) -> Iterator[Line]:
    # A flow that was cut must not come back the other way round by its next packet in mid-stream.
    parts: tuple[Part, ...] = (InState(frozenset({State.NEW})), NotOpening())
    yield Line((*parts, Count(names.STRAY_COUNTER), Drop()))
    yield Line((Dispatch(field, map_),))
    yield Line((Goto(_CLOSED),))
