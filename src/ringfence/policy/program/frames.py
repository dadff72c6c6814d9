"""The table of family bridge: which frames may enter the host from a bridged port, and leave by one.

It judges layer 2 only: source MAC and IP addresses, ARP and neighbour discovery, and whom a frame is for. Here a
frame's port is known; br_netfilter then hands the packet to ``table inet``, which knows only its addresses (``link``).
Everything here is an allow-list over a drop.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from ringfence.policy.program import names
from ringfence.policy.program.base_chains import (
    DHCP4_REPLY,
    DHCP4_REQUEST,
    HAS_OPTIONS4,
    ICMPV6,
    LINK_TYPE_MATCHES,
    OWN_WAYS4,
    pass_line,
    singles,
)
from ringfence.policy.program.model import (
    RAW_PRIORITY,
    Between,
    Chain,
    Count,
    Drop,
    Element,
    ElementType,
    Equal,
    Field,
    Goto,
    Has,
    Header,
    Hook,
    HookName,
    Jump,
    Line,
    Match,
    Member,
    NamedSet,
    StartsWith,
    Within,
)
from ringfence.policy.program.refusal import Refusal, frame_refusal_chains, frame_tally, refuse_frame
from ringfence.policy.view import Endpoint
from ringfence.policy.well_known import BROADCAST, ROGUE_TYPES

_IS_IPV4: Final = Equal(Field.ETHER_TYPE, 0x0800)  # the frame's own type: a tagged frame is not of it
_IS_IPV6: Final = Equal(Field.ETHER_TYPE, 0x86DD)
_IS_ARP: Final = Equal(Field.ETHER_TYPE, 0x0806)
_ETHERNET_IPV4: Final = Equal(Field.ARP_HEADER, 0x0001_0800_06_04)
_REQUEST, _REPLY = 1, 2  # operations of ARP (RFC 826)
_ROUTER_SOLICITATION, _SOLICITATION, _ADVERTISEMENT, _REDIRECT = 133, 135, 136, 137
_LISTENER_REPORTS: Final = (131, 132, 143)
# Options of discovery: type and length in units of eight octets (RFC 4861, RFC 3971).
_SOURCE_ETHER, _TARGET_ETHER, _NONCE = 0x0101, 0x0201, 0x0E01
_PLAIN, _WITH_OPTION = 24, 32  # octets of a neighbour solicitation or advertisement without, and with one such option
_PLAIN_ROUTER, _WITH_OPTION_ROUTER = 8, 16  # of a router solicitation
_BROADCAST_ETHER: Final = 0xFFFF_FFFF_FFFF
_MULTICAST6_ETHER: Final = Between(Field.ETHER_DESTINATION, 0x3333_0000_0000, 0x3333_FFFF_FFFF)
_LINK_ETHER: Final = Between(Field.ETHER_DESTINATION, 0x0180_C200_0000, 0x0180_C200_000F)  # STP, LLDP and the like
_MULTICAST6: Final = Within(Field.DESTINATION6, IPv6Network("ff00::/8"))
_NOBODY4: Final = Within(Field.SOURCE4, IPv4Network("0.0.0.0/32"))
_NOBODY6: Final = Within(Field.SOURCE6, IPv6Network("::/128"))
# Matches any packet but one whose upper protocol the kernel cannot find: in a later fragment (RFC 7112), or malformed.
_HAS_PROTOCOL: Final = Between(Field.PROTOCOL, 0, 255)

_IN, _OUT = Field.IN_INTERFACE, Field.OUT_INTERFACE
_OWN_MAC: Final = Member((_IN, Field.ETHER_SOURCE), names.FRAME_OWN_MAC)
_OWN4: Final = Member((_IN, Field.ETHER_SOURCE, Field.SOURCE4), names.FRAME_OWN_IPV4)
_OWN6: Final = Member((_IN, Field.ETHER_SOURCE, Field.SOURCE6), names.FRAME_OWN_IPV6)
_OWN_TARGET: Final = Member((_IN, Field.ETHER_SOURCE, Field.ND_TARGET6), names.FRAME_OWN_IPV6)
_TO_OWN_MAC: Final = Member((_OUT, Field.ETHER_DESTINATION), names.FRAME_OWN_MAC)
_TO_EVERYBODY: Final = Equal(Field.ETHER_DESTINATION, _BROADCAST_ETHER)

_FLOODED: Final = Line((Count(names.FRAME_FLOODED_COUNTER), Drop()))

_CLOSED: Final = f"{names.BRIDGE}closed"
_LEAVE: Final = f"{names.BRIDGE}leave"
_LEAVE_OWN: Final = f"{names.BRIDGE}leave_own"
_LEAVE_ARP: Final = f"{names.BRIDGE}leave_arp"
_LEAVE_IPV4: Final = f"{names.BRIDGE}leave_ipv4"
_OPTIONS: Final = f"{names.BRIDGE}options"
_LEAVE_IPV6: Final = f"{names.BRIDGE}leave_ipv6"
_LEAVE_ICMPV6: Final = f"{names.BRIDGE}leave_icmpv6"
_ROUTER_SOLICITATIONS: Final = f"{names.BRIDGE}router_solicitation"
_SOLICITATIONS: Final = f"{names.BRIDGE}solicitation"
_ADVERTISEMENTS: Final = f"{names.BRIDGE}advertisement"
_ARRIVE: Final = f"{names.BRIDGE}arrive"
_ARRIVE_PORT: Final = f"{names.BRIDGE}arrive_port"
_ARRIVE_ARP: Final = f"{names.BRIDGE}arrive_arp"
_ARRIVE_IPV4: Final = f"{names.BRIDGE}arrive_ipv4"
_ARRIVE_IPV6: Final = f"{names.BRIDGE}arrive_ipv6"
_LINK: Final = f"{names.BRIDGE}link"


def frame_chains(prefixes: tuple[str, ...]) -> Iterator[tuple[str, Chain]]:
    """The chains of the bridge table; ports whose names start with one of ``prefixes`` are closed until programmed."""
    yield from frame_refusal_chains()
    yield _CLOSED, Chain((refuse_frame(Refusal.CLOSED_FRAME),))
    yield _LEAVE, Chain(tuple(_leave(prefixes)), Hook(HookName.PREROUTING, RAW_PRIORITY))
    yield _LEAVE_OWN, Chain(_by_type(_LEAVE_IPV4, _LEAVE_IPV6, _LEAVE_ARP))
    yield _LEAVE_ARP, Chain(tuple(_leave_arp()))
    yield _LEAVE_IPV4, Chain(tuple(_leave_ipv4()))
    yield _OPTIONS, Chain(tuple(refuse_frame(Refusal.ROGUE_FRAME, *way) for way in OWN_WAYS4))
    yield _LEAVE_IPV6, Chain(tuple(_leave_ipv6()))
    yield _LEAVE_ICMPV6, Chain(tuple(_leave_icmpv6()))
    yield _ROUTER_SOLICITATIONS, Chain(tuple(_router_solicitation()))
    yield _SOLICITATIONS, Chain(tuple(_solicitation()))
    yield _ADVERTISEMENTS, Chain(tuple(_advertisement()))
    yield _ARRIVE, Chain(tuple(_arrive(prefixes)), Hook(HookName.POSTROUTING, RAW_PRIORITY))
    yield _ARRIVE_PORT, Chain(_by_type(_ARRIVE_IPV4, _ARRIVE_IPV6, _ARRIVE_ARP))
    yield _ARRIVE_ARP, Chain(tuple(_arrive_arp()))
    yield _ARRIVE_IPV4, Chain(tuple(_arrive_ipv4()))
    yield _ARRIVE_IPV6, Chain(tuple(_arrive_ipv6()))
    yield _LINK, Chain(tuple(_link(prefixes)), Hook(HookName.INPUT, RAW_PRIORITY))


def frame_sets(programmed: tuple[Endpoint, ...], closed: frozenset[str]) -> dict[str, NamedSet]:
    """The managed ports, which of them are programmed, and which addresses each of those may use."""
    interface, ether = ElementType.INTERFACE, ElementType.ETHER
    ports = frozenset(str(endpoint.interface) for endpoint in programmed)
    own_mac: frozenset[Element] = frozenset((str(e.interface), str(e.mac)) for e in programmed)
    return {
        names.FRAME_PORTS: NamedSet((interface,), singles(ports | closed)),
        names.FRAME_PROGRAMMED: NamedSet((interface,), singles(ports)),
        names.FRAME_OWN_MAC: NamedSet((interface, ether), own_mac),
        names.FRAME_OWN_IPV4: NamedSet((interface, ether, ElementType.IPV4), _own(programmed, IPv4Address)),
        names.FRAME_OWN_IPV6: NamedSet((interface, ether, ElementType.IPV6), _own(programmed, IPv6Address)),
        **frame_tally(),
    }


def _own(programmed: tuple[Endpoint, ...], family: type[IPv4Address] | type[IPv6Address]) -> frozenset[Element]:
    return frozenset(
        (str(endpoint.interface), str(endpoint.mac), address)
        for endpoint in programmed
        for address in endpoint.own_addresses
        if isinstance(address, family)
    )


def _spoofed(*matches: Match) -> Line:
    return refuse_frame(Refusal.SPOOFED_FRAME, *matches)


def _by_type(ipv4: str, ipv6: str, arp: str) -> tuple[Line, ...]:
    return (
        Line((_IS_IPV4, Goto(ipv4))),
        Line((_IS_IPV6, Goto(ipv6))),
        Line((_IS_ARP, _ETHERNET_IPV4, Goto(arp))),
        refuse_frame(Refusal.ALIEN_FRAME),
    )


def _leave(prefixes: tuple[str, ...]) -> Iterator[Line]:
    yield Line((_OWN_MAC, Goto(_LEAVE_OWN)))
    yield _spoofed(Member((_IN,), names.FRAME_PROGRAMMED))
    yield from _close(_IN, prefixes)


def _close(port: Field, prefixes: tuple[str, ...]) -> Iterator[Line]:
    yield Line((Member((port,), names.FRAME_PORTS), Goto(_CLOSED)))
    for prefix in prefixes:
        yield Line((StartsWith(port, prefix), Goto(_CLOSED)))


def _leave_arp() -> Iterator[Line]:
    """Requests and replies in its own name, and probes for an address of its own (RFC 5227)."""
    sender = Member((_IN, Field.ARP_SENDER_ETHER, Field.ARP_SENDER4), names.FRAME_OWN_IPV4)
    target = Member((_IN, Field.ARP_SENDER_ETHER, Field.ARP_TARGET4), names.FRAME_OWN_IPV4)
    yield pass_line(Between(Field.ARP_OPERATION, _REQUEST, _REPLY), sender)
    nobody = Within(Field.ARP_SENDER4, IPv4Network("0.0.0.0/32"))
    yield pass_line(Equal(Field.ARP_OPERATION, _REQUEST), nobody, target)
    yield _spoofed()


def _leave_ipv4() -> Iterator[Line]:
    yield Line((HAS_OPTIONS4, Jump(_OPTIONS)))
    yield pass_line(_OWN4)
    yield pass_line(_NOBODY4, Within(Field.DESTINATION4, BROADCAST), *DHCP4_REQUEST)
    yield _spoofed()


def _leave_ipv6() -> Iterator[Line]:
    yield refuse_frame(Refusal.ROGUE_FRAME, Has(Header.ROUTING6))
    yield Line((ICMPV6, Goto(_LEAVE_ICMPV6)))
    yield pass_line(_HAS_PROTOCOL, _OWN6)
    yield _spoofed()


def _leave_icmpv6() -> Iterator[Line]:
    for rogue in sorted(ROGUE_TYPES):
        yield refuse_frame(Refusal.ROGUE_FRAME, ICMPV6, Equal(Field.ICMPV6_TYPE, rogue))
    # Only directly behind the fixed header: behind extension headers or in fragments the fields are out of reach.
    for type_, chain in (
        (_ROUTER_SOLICITATION, _ROUTER_SOLICITATIONS),
        (_SOLICITATION, _SOLICITATIONS),
        (_ADVERTISEMENT, _ADVERTISEMENTS),
    ):
        yield Line((Equal(Field.NEXT_HEADER6, 58), ICMPV6, Equal(Field.ICMPV6_TYPE, type_), Goto(chain)))
    yield _spoofed(ICMPV6, Between(Field.ICMPV6_TYPE, _ROUTER_SOLICITATION, _REDIRECT))
    yield pass_line(_OWN6)
    for type_ in _LISTENER_REPORTS:
        yield pass_line(_NOBODY6, ICMPV6, Equal(Field.ICMPV6_TYPE, type_))
    yield _spoofed()


def _router_solicitation() -> Iterator[Line]:
    own = Member((_IN, Field.RS_OPTION_ETHER), names.FRAME_OWN_MAC)
    for sender in (_OWN6, _NOBODY6):
        yield pass_line(Equal(Field.LENGTH6, _PLAIN_ROUTER), sender)
    with_option = Equal(Field.LENGTH6, _WITH_OPTION_ROUTER)
    yield pass_line(with_option, _OWN6, ICMPV6, Equal(Field.RS_OPTION, _SOURCE_ETHER), own)
    yield _spoofed()


def _solicitation() -> Iterator[Line]:
    """From its own address it may ask for any; from the unspecified one (duplicate detection) only for its own."""
    plain, with_option = Equal(Field.LENGTH6, _PLAIN), Equal(Field.LENGTH6, _WITH_OPTION)
    own = Member((_IN, Field.ND_OPTION_ETHER), names.FRAME_OWN_MAC)
    yield pass_line(plain, _OWN6)
    yield pass_line(with_option, _OWN6, ICMPV6, Equal(Field.ND_OPTION, _SOURCE_ETHER), own)
    yield pass_line(plain, _NOBODY6, ICMPV6, _OWN_TARGET)
    yield pass_line(with_option, _NOBODY6, ICMPV6, Equal(Field.ND_OPTION, _NONCE), _OWN_TARGET)
    yield _spoofed()


def _advertisement() -> Iterator[Line]:
    told = Member((_IN, Field.ND_OPTION_ETHER, Field.ND_TARGET6), names.FRAME_OWN_IPV6)
    yield pass_line(Equal(Field.LENGTH6, _PLAIN), _OWN6, ICMPV6, _OWN_TARGET)
    with_option = Equal(Field.LENGTH6, _WITH_OPTION)
    yield pass_line(with_option, _OWN6, ICMPV6, Equal(Field.ND_OPTION, _TARGET_ETHER), told)
    yield _spoofed()


def _arrive(prefixes: tuple[str, ...]) -> Iterator[Line]:
    yield Line((Member((_OUT,), names.FRAME_PROGRAMMED), Goto(_ARRIVE_PORT)))
    yield from _close(_OUT, prefixes)


def _arrive_arp() -> Iterator[Line]:
    yield pass_line(_TO_OWN_MAC)
    yield pass_line(_TO_EVERYBODY)
    yield _FLOODED


def _arrive_ipv4() -> Iterator[Line]:
    yield pass_line(Member((_OUT, Field.ETHER_DESTINATION, Field.DESTINATION4), names.FRAME_OWN_IPV4))
    for receiver in (_TO_OWN_MAC, _TO_EVERYBODY):  # an answer of DHCP, before the address is in use
        yield pass_line(receiver, Within(Field.DESTINATION4, BROADCAST), *DHCP4_REPLY)
    yield _FLOODED


def _arrive_ipv6() -> Iterator[Line]:
    yield pass_line(Member((_OUT, Field.ETHER_DESTINATION, Field.DESTINATION6), names.FRAME_OWN_IPV6))
    for receiver in (_TO_OWN_MAC, _MULTICAST6_ETHER):
        for types in LINK_TYPE_MATCHES:
            yield pass_line(receiver, _MULTICAST6, ICMPV6, types)
    yield _FLOODED


def _link(prefixes: tuple[str, ...]) -> Iterator[Line]:
    """Frames between bridges (STP, LLDP) end at the host and never meet prerouting, so they are refused here."""
    yield refuse_frame(Refusal.ALIEN_FRAME, Member((_IN,), names.FRAME_PORTS), _LINK_ETHER)
    for prefix in prefixes:
        yield refuse_frame(Refusal.ALIEN_FRAME, StartsWith(_IN, prefix), _LINK_ETHER)
