"""The fixed part of every program: base chains, anti-spoofing, and what passes besides rules (design, semantics row 5).

Everything here is an allow-list over a drop: a port that lacks an element in a set or map is closed, never open.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from ringfence.policy.program import names
from ringfence.policy.program.late import late_chains, late_sets
from ringfence.policy.program.model import (
    FILTER_PRIORITY,
    RAW_PRIORITY,
    REPLY,
    Accept,
    Between,
    Chain,
    Count,
    Dispatch,
    Drop,
    Element,
    ElementType,
    Equal,
    Field,
    Fresh,
    Goto,
    Has,
    Header,
    Hook,
    HookName,
    InState,
    Jump,
    Lacks,
    Line,
    Masked,
    Match,
    Member,
    NamedSet,
    NotOpening,
    Stamp,
    StartsWith,
    State,
    Within,
)
from ringfence.policy.program.refusal import (
    OBSERVED_ADDRESSES,
    OBSERVED_PORTS,
    Observed,
    Refusal,
    refusal_chains,
    refuse,
    tallies,
)
from ringfence.policy.values import PROTOCOL_NUMBER, Protocol
from ringfence.policy.view import Endpoint
from ringfence.policy.well_known import ALL_DHCP_SERVERS, BROADCAST, LINK_LOCAL, ROGUE_ICMP_TYPE, ROGUE_TYPES

ALLOW: Final = names.ALLOW
LEAVE: Final = "leave"
ARRIVE: Final = "arrive"
STAMP: Final = "stamp"  # written anew when the generation moves
CLOSED: Final = "closed"
_OWN: Final = "own"
_OPTIONS: Final = "options"
_UNSPECIFIED: Final = "unspecified"
_LEAVE_PORT: Final = "leave_port"
_LEAVE_STRAY: Final = "leave_stray"
_LEAVE_DHCP: Final = "leave_dhcp"
_LEAVE_PORT_DHCP: Final = "leave_port_dhcp"
_ARRIVE_PORT: Final = "arrive_port"
_ARRIVE_STRAY: Final = "arrive_stray"
_ARRIVE_HOST: Final = "arrive_host"
_HOST_LINK: Final = "host_link"
_ONWARD: Final = "onward"
_ONWARD_LINK: Final = "onward_link"

_ICMP: Final = Equal(Field.PROTOCOL, PROTOCOL_NUMBER[Protocol.ICMP])
ICMPV6: Final = Equal(Field.PROTOCOL, PROTOCOL_NUMBER[Protocol.ICMPV6])
IS_NEW: Final = InState(frozenset({State.NEW}))
NO_FLOW: Final = InState(frozenset({State.INVALID, State.UNTRACKED}))
_UDP: Final = Equal(Field.PROTOCOL, PROTOCOL_NUMBER[Protocol.UDP])
# IPv6 is asked for explicitly: nothing keeps an instance from sending protocol 58 over IPv4.
ND: Final = (Equal(Field.FAMILY, 6), ICMPV6)
LINK_TYPE_MATCHES: Final[tuple[Match, ...]] = (Between(Field.ICMPV6_TYPE, 130, 137), Equal(Field.ICMPV6_TYPE, 143))
LINK_MATCHES: Final[tuple[tuple[Match, ...], ...]] = tuple((*ND, types) for types in LINK_TYPE_MATCHES)
_UNSPECIFIED_MATCHES: Final = (
    Between(Field.ICMPV6_TYPE, 131, 133),
    Equal(Field.ICMPV6_TYPE, 135),
    Equal(Field.ICMPV6_TYPE, 143),
)
# The host's own discovery and listener reports carry the port as incoming interface too (ndisc_alloc_skb, mld_newpack),
# so the interface index cannot tell them from forwarded ones. These matches can: forwarding lowers the hop limit, and
# does not forward link-local or unspecified sources (ip6_forward).
_NEVER_FORWARDED: Final[tuple[tuple[Match, ...], ...]] = (
    (Equal(Field.HOP_LIMIT6, 255),),
    (Equal(Field.HOP_LIMIT6, 1), Within(Field.SOURCE6, IPv6Network("fe80::/10"))),
    (Equal(Field.HOP_LIMIT6, 1), Within(Field.SOURCE6, IPv6Network("::/128"))),
)


def _udp(source_port: int, destination_port: int) -> tuple[Match, ...]:
    return (
        _UDP,
        Equal(Field.SOURCE_PORT, source_port),
        Equal(Field.DESTINATION_PORT, destination_port),
    )


# Nearly every packet: IPv4 without options; IPv6 with TCP, UDP or what lies between right behind the fixed header.
PLAIN4: Final = Equal(Field.FIRST_OCTET, 0x45)
PLAIN6: Final = Between(Field.NEXT_HEADER6, 6, 17)
HAS_OPTIONS4: Final = Between(Field.FIRST_OCTET, 0x47, 0x4F)  # that could name a way: one word holds none
# A source route is not seen once its first address counts as used, nor is any other option then (ipv4_find_option). So
# where a harmless one is seen, all are.
OWN_WAYS4: Final[tuple[tuple[Match, ...], ...]] = (
    (Has(Header.LOOSE_ROUTE4),),
    (Has(Header.STRICT_ROUTE4),),
    (Lacks(Header.ROUTER_ALERT4), Lacks(Header.RECORD_ROUTE4)),
)
_OWN4: Final = Member((Field.IN_INTERFACE, Field.ETHER_SOURCE, Field.SOURCE4), names.OWN_IPV4)
_OWN6: Final = Member((Field.IN_INTERFACE, Field.ETHER_SOURCE, Field.SOURCE6), names.OWN_IPV6)
_PRIVILEGED: Final = Masked(Field.SOURCE_PORT, 0xFC00, 0)  # below 1024: all of DHCP, and otherwise rare
DHCP4_REQUEST: Final = _udp(68, 67)
DHCP4_REPLY: Final = _udp(67, 68)
DHCP6_REQUEST: Final = _udp(546, 547)
DHCP6_REPLY: Final = _udp(547, 546)


@dataclass(frozen=True, slots=True)
class Ends:
    """How the program recognises an instance at either end of a packet: by which fields, in which sets and maps."""

    leaving: tuple[Field, ...]
    arriving: tuple[Field, ...]
    sets: tuple[str, ...]
    egress: tuple[str, ...]
    ingress: tuple[str, ...]
    observed: Observed


_BY_PORT: Final = Ends(
    leaving=(Field.IN_INTERFACE,),
    arriving=(Field.OUT_INTERFACE,),
    sets=(names.PORTS,),
    egress=(names.EGRESS_MAP,),
    ingress=(names.INGRESS_MAP,),
    observed=OBSERVED_PORTS,
)
# Behind a bridge a packet's interface is the bridge, whichever port it crosses. Its address can be relied on, because
# the bridge table (``frames``) has checked it.
_BY_ADDRESS: Final = Ends(
    leaving=(Field.SOURCE4, Field.SOURCE6),
    arriving=(Field.DESTINATION4, Field.DESTINATION6),
    sets=(names.INSTANCES4, names.INSTANCES6),
    egress=(names.EGRESS4_MAP, names.EGRESS6_MAP),
    ingress=(names.INGRESS4_MAP, names.INGRESS6_MAP),
    observed=OBSERVED_ADDRESSES,
)


def routed_chains(prefixes: tuple[str, ...]) -> Iterator[tuple[str, Chain]]:
    """The fixed chains for routed instances; interfaces whose names start with one of ``prefixes`` begin closed."""
    yield "origin", Chain(tuple(_origin(prefixes)), Hook(HookName.PREROUTING, RAW_PRIORITY))
    yield _OWN, Chain(tuple(_own()))
    yield _UNSPECIFIED, Chain(tuple(_unspecified()))
    yield from _judging_chains(_BY_PORT, _closing_prefixes(Field.OUT_INTERFACE, prefixes))


def bridged_chains(prefixes: tuple[str, ...]) -> Iterator[tuple[str, Chain]]:
    """The same for instances behind a bridge. A managed port that is in no bridge is closed."""
    closing_in = (_closing_ports(Field.IN_INTERFACE), *_closing_prefixes(Field.IN_INTERFACE, prefixes))
    closing_out = (_closing_ports(Field.OUT_INTERFACE), *_closing_prefixes(Field.OUT_INTERFACE, prefixes))
    yield "origin", Chain(closing_in, Hook(HookName.PREROUTING, RAW_PRIORITY))
    yield from _judging_chains(_BY_ADDRESS, closing_out)


def _judging_chains(ends: Ends, closing: tuple[Line, ...]) -> Iterator[tuple[str, Chain]]:
    yield from refusal_chains(ends.observed)
    yield from allow_chains()
    yield from late_chains(ends.observed)
    yield CLOSED, Chain((refuse(Refusal.CLOSED, names.CLOSED_COUNTER),))
    yield options_chain()
    yield LEAVE, Chain(tuple(_leave(ends)), Hook(HookName.PREROUTING, FILTER_PRIORITY))
    yield _LEAVE_STRAY, Chain(tuple(_stray(ends.leaving, ends.sets)))
    yield _LEAVE_DHCP, Chain(tuple(_members(ends.leaving, ends.sets, _LEAVE_PORT_DHCP)))
    yield _LEAVE_PORT_DHCP, Chain(tuple(_leave_port_dhcp()))
    yield _LEAVE_PORT, Chain(tuple(_leave_port(ends)))
    yield ARRIVE, Chain(tuple(_arrive(ends, closing)), Hook(HookName.POSTROUTING, FILTER_PRIORITY))
    yield _ARRIVE_STRAY, Chain(tuple(_stray(ends.arriving, ends.sets)))
    yield _ARRIVE_HOST, Chain(tuple(_members(ends.arriving, ends.sets, _HOST_LINK)))
    yield _ARRIVE_PORT, Chain(tuple(_arrive_port(ends)))
    yield _ONWARD, Chain(tuple(_onward()))
    yield _ONWARD_LINK, Chain(tuple(_onward_link(ends)))
    yield _HOST_LINK, Chain(tuple(_host_link()))


def _closing_ports(port: Field) -> Line:
    return Line((Member((port,), names.PORTS), Goto(CLOSED)))


def _closing_prefixes(port: Field, prefixes: tuple[str, ...]) -> tuple[Line, ...]:
    return tuple(Line((StartsWith(port, prefix), Goto(CLOSED))) for prefix in prefixes)


# Sets of every program. The first two hold the elements of all member sets, the last the present generation, which is
# no part of a program.
FIXED_SETS: Final = {
    names.MEMBERS[4]: NamedSet((ElementType.NUMBER, ElementType.NUMBER, ElementType.IPV4)),
    names.MEMBERS[6]: NamedSet((ElementType.NUMBER, ElementType.NUMBER, ElementType.IPV6)),
    names.FRESH: NamedSet((ElementType.NUMBER,)),
}


def port_sets(programmed: tuple[Endpoint, ...], closed: frozenset[str]) -> dict[str, NamedSet]:
    """The managed interfaces, and which source addresses each programmed one may use.

    With a declared MAC address, one look-up checks interface, MAC and IP address together.
    """
    interfaces = singles({*closed, *(str(endpoint.interface) for endpoint in programmed)})
    with_mac = [endpoint for endpoint in programmed if endpoint.mac]
    without_mac = [endpoint for endpoint in programmed if not endpoint.mac]
    interface, ether = ElementType.INTERFACE, ElementType.ETHER
    return {
        names.PORTS: NamedSet((interface,), interfaces),
        names.OWN_IPV4: NamedSet((interface, ether, ElementType.IPV4), _own_pairs(with_mac, IPv4Address)),
        names.OWN_IPV6: NamedSet((interface, ether, ElementType.IPV6), _own_pairs(with_mac, IPv6Address)),
        names.OWN_MAC: NamedSet((interface, ether), frozenset((str(e.interface), str(e.mac)) for e in with_mac)),
        names.ANY_MAC: NamedSet((interface,), singles(str(e.interface) for e in without_mac)),
        names.ANY_MAC_IPV4: NamedSet((interface, ElementType.IPV4), _own_pairs(without_mac, IPv4Address)),
        names.ANY_MAC_IPV6: NamedSet((interface, ElementType.IPV6), _own_pairs(without_mac, IPv6Address)),
        names.ANY_LINK_LOCAL: NamedSet(
            (interface,), singles(str(e.interface) for e in programmed if e.has_open_link_local)
        ),
        **FIXED_SETS,
        **late_sets(OBSERVED_PORTS),
        **observe_sets(programmed),
    }


def instance_sets(programmed: tuple[Endpoint, ...], closed: frozenset[str]) -> dict[str, NamedSet]:
    """The same for instances behind a bridge: ports, and the instances' addresses; ``frames`` checks the sources."""
    ports = singles({*closed, *(str(endpoint.interface) for endpoint in programmed)})
    addresses = [address for endpoint in programmed for address in endpoint.own_addresses]
    own4: frozenset[Element] = frozenset((address,) for address in addresses if isinstance(address, IPv4Address))
    own6: frozenset[Element] = frozenset((address,) for address in addresses if isinstance(address, IPv6Address))
    return {
        names.PORTS: NamedSet((ElementType.INTERFACE,), ports),
        names.INSTANCES4: NamedSet((ElementType.IPV4,), own4),
        names.INSTANCES6: NamedSet((ElementType.IPV6,), own6),
        **FIXED_SETS,
        **late_sets(OBSERVED_ADDRESSES),
        **observe_address_sets(programmed),
    }


def observe_sets(programmed: tuple[Endpoint, ...]) -> dict[str, NamedSet]:
    """The interfaces of observed instances, and the sets in which the kernel counts what it refuses."""
    observed = singles(str(endpoint.interface) for endpoint in programmed if endpoint.observe)
    return {names.OBSERVED: NamedSet((ElementType.INTERFACE,), observed), **tallies()}


def observe_address_sets(programmed: tuple[Endpoint, ...]) -> dict[str, NamedSet]:
    """The same behind a bridge, by address."""
    watched = [address for endpoint in programmed if endpoint.observe for address in endpoint.own_addresses]
    observed4: frozenset[Element] = frozenset((address,) for address in watched if isinstance(address, IPv4Address))
    observed6: frozenset[Element] = frozenset((address,) for address in watched if isinstance(address, IPv6Address))
    return {
        names.OBSERVED4: NamedSet((ElementType.IPV4,), observed4),
        names.OBSERVED6: NamedSet((ElementType.IPV6,), observed6),
        **tallies(),
    }


def _own_pairs(endpoints: Iterable[Endpoint], family: type[IPv4Address] | type[IPv6Address]) -> frozenset[Element]:
    return frozenset(
        (str(endpoint.interface), str(endpoint.mac), address) if endpoint.mac else (str(endpoint.interface), address)
        for endpoint in endpoints
        for address in endpoint.own_addresses
        if isinstance(address, family)
    )


def singles(interfaces: Iterable[str]) -> frozenset[Element]:
    """The elements of a set of interface names."""
    return frozenset((interface,) for interface in interfaces)


def pass_line(*matches: Match) -> Line:
    return Line((*matches, Accept()))


def allow_chains() -> Iterator[tuple[str, Chain]]:
    """The chains to which every rule's line leads, in the program of any kind of host."""
    yield ALLOW, Chain(tuple(_allow()))
    yield STAMP, Chain((_stamp(),))


def _allow() -> Iterator[Line]:
    # Before routing only one side has agreed: the packet passes, and its flow is not stamped yet.
    yield pass_line(Equal(Field.OUT_INDEX, 0))
    yield from _agreed()


def _agreed() -> Iterator[Line]:
    """Both sides agreed, as far as they are managed: the flow is stamped."""
    # Requests to a DHCP server do not stamp the flow, so that its answers are judged: no instance may send any. The
    # port is compared first: nearly all packets end there, at half the cost of comparing the protocol.
    for server_port in (67, 547):
        yield pass_line(Equal(Field.DESTINATION_PORT, server_port), _UDP)
    yield Line((Jump(STAMP),))
    yield pass_line()


def _stamp() -> Line:
    """Not for an error *about* a flow (RELATED): it carries that flow's mark, and would revive a revoked flow.

    The line has no verdict, and a chain to itself, because it is rewritten whenever the generation moves, and for a
    line with a verdict the kernel would walk through the whole table each time.
    """
    return Line((InState(frozenset({State.NEW, State.ESTABLISHED})), Stamp()))


def _origin(prefixes: tuple[str, ...]) -> Iterator[Line]:
    yield pass_line(PLAIN4, _OWN4)
    yield pass_line(PLAIN6, _OWN6)
    yield Line((Member((Field.IN_INTERFACE,), names.PORTS), Goto(_OWN)))
    yield from _closing_prefixes(Field.IN_INTERFACE, prefixes)


def _own() -> Iterator[Line]:
    yield from refuse_own_ways()
    yield pass_line(_OWN4)
    yield pass_line(_OWN6)
    yield pass_line(Member((Field.IN_INTERFACE, Field.SOURCE4), names.ANY_MAC_IPV4))
    yield pass_line(Member((Field.IN_INTERFACE, Field.SOURCE6), names.ANY_MAC_IPV6))
    yield pass_line(Member((Field.IN_INTERFACE,), names.ANY_LINK_LOCAL), Within(Field.SOURCE6, LINK_LOCAL))
    yield Line((Member((Field.IN_INTERFACE, Field.ETHER_SOURCE), names.OWN_MAC), Goto(_UNSPECIFIED)))
    yield Line((Member((Field.IN_INTERFACE,), names.ANY_MAC), Goto(_UNSPECIFIED)))
    yield refuse(Refusal.SPOOFED, names.SPOOFED_COUNTER)


def refuse_own_ways() -> Iterator[Line]:
    """A packet that names its own way is sent on by this host after its flow was looked up.

    So a flow to the host itself, long known, would carry it to whomever it names, whose rules nobody would ask.
    """
    yield Line((HAS_OPTIONS4, Jump(_OPTIONS)))
    yield refuse(Refusal.ROGUE, names.ROGUE_COUNTER, Has(Header.ROUTING6))


def options_chain() -> tuple[str, Chain]:
    """The chain that refuses packets of IPv4 whose options name a way, or may do so."""
    return _OPTIONS, Chain(tuple(refuse(Refusal.ROGUE, names.ROGUE_COUNTER, *way) for way in OWN_WAYS4))


def _unspecified() -> Iterator[Line]:
    """What an instance sends before it has an address: DHCP, listener reports, solicitations."""
    nobody4, nobody6 = Within(Field.SOURCE4, IPv4Network("0.0.0.0/32")), Within(Field.SOURCE6, IPv6Network("::/128"))
    yield pass_line(nobody4, Within(Field.DESTINATION4, BROADCAST), *DHCP4_REQUEST)
    for types in _UNSPECIFIED_MATCHES:
        yield pass_line(nobody6, ICMPV6, types)
    yield refuse(Refusal.SPOOFED, names.SPOOFED_COUNTER)


def _leave(ends: Ends) -> Iterator[Line]:
    """Each rare case costs a common packet one cheap line; the sender's map is looked up only once."""
    yield pass_line(InState(frozenset({State.ESTABLISHED})), Fresh())
    yield Line((NotOpening(), IS_NEW, Jump(_LEAVE_STRAY)))
    yield Line((_PRIVILEGED, _UDP, Jump(_LEAVE_DHCP)))
    yield from _judge_new(ends.leaving, ends.egress)
    yield from _members(ends.leaving, ends.sets, _LEAVE_PORT)


def _members(fields: tuple[Field, ...], sets: tuple[str, ...], chain: str) -> Iterator[Line]:
    for field, set_ in zip(fields, sets, strict=True):
        yield Line((Member((field,), set_), Goto(chain)))


def _stray(fields: tuple[Field, ...], sets: tuple[str, ...]) -> Iterator[Line]:
    """A packet in mid-stream must not reopen a flow that was cut, with the two directions exchanged."""
    for field, set_ in zip(fields, sets, strict=True):
        yield refuse(Refusal.STRAY, names.STRAY_COUNTER, Member((field,), set_))


def _leave_port_dhcp() -> Iterator[Line]:
    yield refuse(Refusal.ROGUE, names.ROGUE_COUNTER, *DHCP4_REPLY)
    yield refuse(Refusal.ROGUE, names.ROGUE_COUNTER, *DHCP6_REPLY)
    yield pass_line(IS_NEW, *DHCP4_REQUEST, Within(Field.DESTINATION4, BROADCAST))
    yield pass_line(IS_NEW, *DHCP6_REQUEST, Within(Field.DESTINATION6, ALL_DHCP_SERVERS))


def _leave_port(ends: Ends) -> Iterator[Line]:
    """Replies, errors, packets of no flow, and whatever comes from a port without a programmed instance."""
    redirect = (Equal(Field.FAMILY, 4), _ICMP, Equal(Field.ICMP_TYPE, ROGUE_ICMP_TYPE))
    yield refuse(Refusal.ROGUE, names.ROGUE_COUNTER, *redirect)
    yield from related_lines()
    yield from _judge_replies(ends.leaving, ends.ingress)
    for rogue in sorted(ROGUE_TYPES):
        yield refuse(Refusal.ROGUE, names.ROGUE_COUNTER, *ND, Equal(Field.ICMPV6_TYPE, rogue))
    for types in LINK_MATCHES:
        yield pass_line(*types)
    yield from _judge_originals(ends.leaving, ends.egress)


def _arrive(ends: Ends, closing: tuple[Line, ...]) -> Iterator[Line]:
    yield pass_line(InState(frozenset({State.ESTABLISHED})), Fresh())
    yield Line((NotOpening(), IS_NEW, Jump(_ARRIVE_STRAY)))
    yield Line((Equal(Field.IN_INDEX, 0), Jump(_ARRIVE_HOST)))
    yield from _judge_new(ends.arriving, ends.ingress)
    yield from _members(ends.arriving, ends.sets, _ARRIVE_PORT)
    yield from closing
    # The receiver is unmanaged: what the sender's groups allowed is allowed.
    yield from _members(ends.leaving, ends.sets, _ONWARD)


def _arrive_port(ends: Ends) -> Iterator[Line]:
    """Replies, errors, packets of no flow, and whatever goes to a port without a programmed instance.

    Before routing only managed ports are asked for packets that name their own way. One from elsewhere, an answer to
    this host itself, would come here as one to who opened the flow, and be judged by a receiver who never did.
    """
    yield from refuse_own_ways()
    yield from related_lines()
    yield from _judge_replies(ends.arriving, ends.egress)
    for types in LINK_MATCHES:
        for own in _NEVER_FORWARDED:
            yield pass_line(*types, *own)
        yield refuse(Refusal.LINK, names.LINK_COUNTER, *types)
    yield from _judge_originals(ends.arriving, ends.ingress)


def _onward() -> Iterator[Line]:
    """As ``_allow``, after routing. What is of no flow costs others no line: routing is known to be done here."""
    yield Line((NO_FLOW, Jump(_ONWARD_LINK)))
    yield from _agreed()


def _onward_link(ends: Ends) -> Iterator[Line]:
    """Discovery that is forwarded to where nobody judges it: else it would carry whatever egress rules keep in.

    It is counted and not logged: the log tells of who is judged, and after routing that is the receiver.
    """
    for types in LINK_MATCHES:
        for own in _NEVER_FORWARDED:
            yield pass_line(*types, *own)
        yield Line((*types, Count(names.LINK_COUNTER)))
        for _, field, observed in ends.observed:
            if field in ends.leaving and field is not Field.SOURCE4:
                counted = Count(names.would_counter(Refusal.LINK.value))
                yield Line((*types, Member((field,), observed), counted, Accept()))
        yield Line((*types, Drop()))


def _host_link() -> Iterator[Line]:
    """What the host itself may always send to an instance on its link: discovery, and answers to DHCP."""
    for types in LINK_MATCHES:
        yield pass_line(*types)
    yield pass_line(*DHCP4_REPLY)
    yield pass_line(*DHCP6_REPLY)


def no_mid_stream() -> Line:
    """A packet in mid-stream must not reopen a flow that was cut, with the two directions exchanged."""
    return refuse(Refusal.STRAY, names.STRAY_COUNTER, NotOpening())


def related_lines() -> Iterator[Line]:
    """Errors about a known flow (path MTU among them) pass whatever the flow's generation.

    What a helper of conntrack expects is related as well, and no new flow: rules judge it, but not in mid-stream.
    """
    related = InState(frozenset({State.RELATED}))
    for protocol in (_ICMP, ICMPV6):
        yield pass_line(related, protocol)
    yield refuse(Refusal.STRAY, names.STRAY_COUNTER, NotOpening(), related)


def judge_reply(field: Field, map_: str) -> Iterator[Line]:
    """The lines that judge a reply by the chain that ``map_`` holds for its flow's first packet."""
    return _judge_replies((field,), (map_,))


def judge_original(field: Field, map_: str) -> Iterator[Line]:
    """The lines that judge any other packet by the chain that ``map_`` holds, and drop it when there is none."""
    return _judge_originals((field,), (map_,))


def _judge_replies(fields: tuple[Field, ...], maps: tuple[str, ...]) -> Iterator[Line]:
    reply = Equal(Field.DIRECTION, REPLY)
    for field, map_ in zip(fields, maps, strict=True):
        yield Line((reply, Dispatch(field, map_)))
    yield Line((reply, Goto(CLOSED)))


def _judge_new(fields: tuple[Field, ...], maps: tuple[str, ...]) -> Iterator[Line]:
    for field, map_ in zip(fields, maps, strict=True):
        yield Line((IS_NEW, Dispatch(field, map_)))


def _judge_originals(fields: tuple[Field, ...], maps: tuple[str, ...]) -> Iterator[Line]:
    for field, map_ in zip(fields, maps, strict=True):
        yield Line((Dispatch(field, map_),))
    yield Line((Goto(CLOSED),))
