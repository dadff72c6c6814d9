"""The fixed part of a self host's program: the host is its own instance, and packets enter and leave by its uplinks.

The hooks are the same as for ports (docs/decisions/0008-self.md): prerouting sees all that comes in by an uplink,
before routing decides between the host and a container behind a published port; postrouting all that goes out by one.
A packet that touches no uplink, such as loopback, costs one look-up of its interface.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network
from typing import Final

from ringfence.policy.local import Failsafe, Lifelines, LocalPorts
from ringfence.policy.program import names
from ringfence.policy.program.base_chains import (
    ARRIVE,
    CLOSED,
    DHCP4_REPLY,
    DHCP4_REQUEST,
    DHCP6_REPLY,
    DHCP6_REQUEST,
    FIXED_SETS,
    IS_NEW,
    LEAVE,
    LINK_MATCHES,
    ND,
    NO_FLOW,
    PLAIN4,
    PLAIN6,
    allow_chains,
    judge_original,
    judge_reply,
    no_mid_stream,
    observe_sets,
    options_chain,
    pass_line,
    refuse_own_ways,
    related_lines,
    singles,
)
from ringfence.policy.program.late import late_chains, late_sets
from ringfence.policy.program.model import (
    ETHERNET,
    FILTER_PRIORITY,
    ORIGINAL,
    RAW_PRIORITY,
    REPLY,
    Between,
    Chain,
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
    StartsWith,
    State,
    Within,
)
from ringfence.policy.program.refusal import OBSERVED_PORTS, Refusal, refusal_chains, refuse
from ringfence.policy.values import PROTOCOL_NUMBER, Address, Direction, Network, Protocol
from ringfence.policy.view import Endpoint
from ringfence.policy.well_known import ADVERTISEMENT, ALL_DHCP_SERVERS, BROADCAST, LINK_LOCAL, LOOPBACKS

_MARTIAN: Final = "martian"
_OWN_SOURCE: Final = "own_source"
_ENTER: Final = "enter"
_ENTER_NEW: Final = "enter_new"
_EXIT: Final = "exit"
_EXIT_NEW: Final = "exit_new"
_LIFELINE_IN: Final = "lifeline_in"
_LIFELINE_OUT: Final = "lifeline_out"

_DISCOVERY: Final = (*ND, Between(Field.ICMPV6_TYPE, 133, 137))
_LISTENING: Final = ((*ND, Between(Field.ICMPV6_TYPE, 130, 132)), (*ND, Equal(Field.ICMPV6_TYPE, 143)))
_NOBODY: Final = IPv6Network("::/128")
_LAST_MAC: Final = 0xFFFF_FFFF_FFFF
_HOST_MADE: Final = Equal(Field.IN_INDEX, 0)
_ESTABLISHED: Final = InState(frozenset({State.ESTABLISHED}))
_FROM: Final = {4: Field.SOURCE4, 6: Field.SOURCE6}
_TO: Final = {4: Field.DESTINATION4, 6: Field.DESTINATION6}
_HOSTS: Final = (Member((Field.SOURCE4,), names.HOST_IPV4), Member((Field.SOURCE6,), names.HOST_IPV6))


def self_chains(ports: LocalPorts) -> Iterator[tuple[str, Chain]]:
    """The fixed chains of a self host; other managed interfaces are closed, as on any host."""
    yield from refusal_chains(OBSERVED_PORTS)
    yield from allow_chains()
    for name, chain in late_chains(OBSERVED_PORTS, by_wire=True):
        yield name, Chain((*chain.lines, *_echoes())) if name == names.late_chain(Direction.INGRESS) else chain
    yield CLOSED, Chain((refuse(Refusal.CLOSED, names.CLOSED_COUNTER),))
    yield "origin", Chain(tuple(_origin(ports.prefixes)), Hook(HookName.PREROUTING, RAW_PRIORITY))
    yield _MARTIAN, Chain(tuple(_martian()))
    yield _OWN_SOURCE, Chain(tuple(_own_source()))
    yield options_chain()
    yield LEAVE, Chain(_prerouting(), Hook(HookName.PREROUTING, FILTER_PRIORITY))
    yield _ENTER, Chain(tuple(_enter()))
    yield _ENTER_NEW, Chain(tuple(_enter_new()))
    yield _LIFELINE_IN, Chain(tuple(_lifeline_in(ports.lifelines)))
    yield ARRIVE, Chain(tuple(_postrouting(ports.prefixes)), Hook(HookName.POSTROUTING, FILTER_PRIORITY))
    yield _EXIT, Chain(tuple(_exit()))
    yield _EXIT_NEW, Chain(tuple(_exit_new()))
    yield _LIFELINE_OUT, Chain(tuple(_lifeline_out(ports.lifelines)))


def port_sets(programmed: tuple[Endpoint, ...], closed: frozenset[str], local: LocalPorts) -> dict[str, NamedSet]:
    """The uplinks, the other managed interfaces, and the host's addresses, which nobody outside may use.

    Every uplink has the lifelines, whether an endpoint is programmed on it or not.
    """
    taken = {endpoint.interface for endpoint in programmed}
    ends = (*programmed, *(uplink for uplink in local.uplinks if uplink.interface not in taken))
    uplinks = frozenset(str(endpoint.interface) for endpoint in ends)
    own = {address for endpoint in ends for address in endpoint.own_addresses}
    return {
        names.PORTS: NamedSet((ElementType.INTERFACE,), singles(closed | uplinks)),
        names.UPLINKS: NamedSet((ElementType.INTERFACE,), singles(uplinks)),
        names.HOST_IPV4: NamedSet((ElementType.IPV4,), frozenset((a,) for a in own if isinstance(a, IPv4Address))),
        names.HOST_IPV6: NamedSet((ElementType.IPV6,), frozenset((a,) for a in own if isinstance(a, IPv6Address))),
        **FIXED_SETS,
        **late_sets(OBSERVED_PORTS),
        **observe_sets(ends),
    }


def _origin(prefixes: tuple[str, ...]) -> Iterator[Line]:
    yield Line((Member((Field.IN_INTERFACE,), names.UPLINKS), Goto(_MARTIAN)))
    yield Line((Member((Field.IN_INTERFACE,), names.PORTS), Goto(CLOSED)))
    for prefix in prefixes:
        yield Line((StartsWith(Field.IN_INTERFACE, prefix), Goto(CLOSED)))


def _martian() -> Iterator[Line]:
    """Refuses loopback addresses (CVE-2020-8558: services on 127.0.0.1 were reached so) and the host's own as source.

    The kernel does so itself for IPv4, unless route_localnet or accept_local is set, and never for IPv6.
    """
    for loopback in LOOPBACKS:
        for field in (_FROM[loopback.version], _TO[loopback.version]):
            yield refuse(Refusal.MARTIAN, names.MARTIAN_COUNTER, Within(field, loopback))
    for own in _HOSTS:
        yield Line((own, Goto(_OWN_SOURCE)))
    yield pass_line(PLAIN4)
    yield pass_line(PLAIN6)
    yield from refuse_own_ways()


def _own_source() -> Iterator[Line]:
    """Two things may claim to come from the host itself: who says that its address is taken, and the host itself.

    Without the first it would never learn that another machine has its address (RFC 4862). The second is what it sent
    to many, and what its kernel brings back to those who listen here (dev_loopback_xmit): on Ethernet nothing else has
    no MAC address.
    """
    alone = Equal(Field.NEXT_HEADER6, PROTOCOL_NUMBER[Protocol.ICMPV6])
    yield pass_line(alone, *ND, Equal(Field.ICMPV6_TYPE, ADVERTISEMENT), Equal(Field.HOP_LIMIT6, 255))
    yield refuse(Refusal.MARTIAN, names.MARTIAN_COUNTER, Between(Field.ETHER_SOURCE, 0, _LAST_MAC))
    yield pass_line(Equal(Field.IN_TYPE, ETHERNET))
    yield refuse(Refusal.MARTIAN, names.MARTIAN_COUNTER)


def _echoes() -> Iterator[Line]:
    """Lets the host hear itself, though no rule lets it: its egress let that out, and nothing came in.

    It is asked last, so that others do not pay for it. What claims to be the host's own has passed ``_own_source``.
    """
    for own in _HOSTS:
        yield pass_line(Equal(Field.OUT_INDEX, 0), own)


def _prerouting() -> tuple[Line, ...]:
    return (
        pass_line(_ESTABLISHED, Fresh()),
        Line((Member((Field.IN_INTERFACE,), names.UPLINKS), Goto(_ENTER))),
    )


def _enter() -> Iterator[Line]:
    yield Line((Jump(_LIFELINE_IN),))
    yield Line((IS_NEW, Goto(_ENTER_NEW)))
    yield from related_lines()
    yield from judge_reply(Field.IN_INTERFACE, names.EGRESS_MAP)
    yield from _link_lines()
    yield from judge_original(Field.IN_INTERFACE, names.INGRESS_MAP)


def _enter_new() -> Iterator[Line]:
    yield no_mid_stream()
    yield pass_line(*DHCP4_REPLY, Within(Field.DESTINATION4, BROADCAST))
    yield pass_line(*DHCP4_REPLY, Member((Field.DESTINATION4,), names.HOST_IPV4))
    yield pass_line(*DHCP6_REPLY, Within(Field.SOURCE6, LINK_LOCAL), Within(Field.DESTINATION6, LINK_LOCAL))
    yield from judge_original(Field.IN_INTERFACE, names.INGRESS_MAP)


def _postrouting(prefixes: tuple[str, ...]) -> Iterator[Line]:
    yield pass_line(_ESTABLISHED, Fresh())
    yield Line((Member((Field.OUT_INTERFACE,), names.UPLINKS), Goto(_EXIT)))
    yield Line((Member((Field.OUT_INTERFACE,), names.PORTS), Goto(CLOSED)))
    for prefix in prefixes:
        yield Line((StartsWith(Field.OUT_INTERFACE, prefix), Goto(CLOSED)))


def _exit() -> Iterator[Line]:
    yield Line((Jump(_LIFELINE_OUT),))
    yield Line((IS_NEW, Goto(_EXIT_NEW)))
    yield from related_lines()
    yield from judge_reply(Field.OUT_INTERFACE, names.INGRESS_MAP)
    yield from _link_lines()
    yield from judge_original(Field.OUT_INTERFACE, names.EGRESS_MAP)


def _exit_new() -> Iterator[Line]:
    yield no_mid_stream()
    yield pass_line(*DHCP4_REQUEST, Within(Field.DESTINATION4, BROADCAST))
    yield pass_line(*DHCP6_REQUEST, Within(Field.DESTINATION6, ALL_DHCP_SERVERS))
    yield from judge_original(Field.OUT_INTERFACE, names.EGRESS_MAP)


def _link_lines() -> Iterator[Line]:
    """Passes discovery and listener messages of the link itself, told by a hop limit that rules out forwarding.

    See RFC 4861 and RFC 3810. Advertisements of a router on the link are let in; it is up to the switch to stop forged
    ones.
    """
    yield pass_line(*_DISCOVERY, Equal(Field.HOP_LIMIT6, 255))
    for listening in _LISTENING:
        for source in (LINK_LOCAL, _NOBODY):
            yield pass_line(*listening, Equal(Field.HOP_LIMIT6, 1), Within(Field.SOURCE6, source))
    for types in LINK_MATCHES:
        yield refuse(Refusal.LINK, names.LINK_COUNTER, *types)


def _lifeline_in(lifelines: Lifelines) -> Iterator[Line]:
    for failsafe in lifelines.failsafe:
        yield from _failsafe_in(failsafe)
    for address, port in sorted(lifelines.channel, key=_by_text):
        # Answers of the server, never a plain SYN: nobody who forges its address can open a connection.
        yield pass_line(*_tcp(Field.SOURCE_PORT, port), Within(_FROM[address.version], _host(address)), NotOpening())


def _failsafe_in(failsafe: Failsafe) -> Iterator[Line]:
    """Matches the port that the flow's first packet asked for, so that nothing translated to this port is let in.

    Conntrack may have a connection that it picked up in mid-stream the wrong way round, or not at all; hence the
    second and third line.
    """
    protocol = Equal(Field.PROTOCOL, PROTOCOL_NUMBER[failsafe.protocol])
    for source in failsafe.sources:
        known = (protocol, Within(_FROM[source.version], source))
        to_it = Equal(Field.DESTINATION_PORT, failsafe.port)
        yield pass_line(*known, Equal(Field.DIRECTION, ORIGINAL), Equal(Field.FLOW_ASKED_PORT, failsafe.port))
        yield pass_line(*known, to_it, Equal(Field.DIRECTION, REPLY))
        yield pass_line(*known, to_it, NO_FLOW)


def _lifeline_out(lifelines: Lifelines) -> Iterator[Line]:
    for failsafe in lifelines.failsafe:
        yield from _failsafe_out(failsafe)
    for address, port in sorted(lifelines.channel, key=_by_text):
        yield pass_line(*_tcp(Field.DESTINATION_PORT, port), Within(_TO[address.version], _host(address)), _HOST_MADE)


def _failsafe_out(failsafe: Failsafe) -> Iterator[Line]:
    """The answers. Whatever the host itself sends from that port counts as one, unless it opens a connection."""
    protocol = Equal(Field.PROTOCOL, PROTOCOL_NUMBER[failsafe.protocol])
    answer: tuple[Match, ...] = (NotOpening(),) if failsafe.protocol is Protocol.TCP else ()
    for source in failsafe.sources:
        known = (protocol, Within(_TO[source.version], source))
        from_it = (Equal(Field.SOURCE_PORT, failsafe.port), _HOST_MADE, *answer)
        yield pass_line(*known, Equal(Field.DIRECTION, REPLY), Equal(Field.FLOW_ASKED_PORT, failsafe.port))
        yield pass_line(*known, *from_it, Equal(Field.DIRECTION, ORIGINAL))
        yield pass_line(*known, *from_it, NO_FLOW)


def _tcp(field: Field, port: int) -> tuple[Match, ...]:
    return Equal(Field.PROTOCOL, PROTOCOL_NUMBER[Protocol.TCP]), Equal(field, port)


def _host(address: Address) -> Network:
    return ip_network(address)


def _by_text(one: tuple[Address, int]) -> tuple[str, int]:
    return str(one[0]), one[1]
