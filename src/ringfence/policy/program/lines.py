"""One rule -> its lines: in one form for packets of a flow, in another for packets that belong to none.

A packet of a flow is judged by the flow's fields, so that a reply is judged like the packet it answers. For some ICMP
types and for IPv6 AH conntrack opens no flow ("invalid"); there an explicit rule allows by the packet's own fields.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from ringfence.policy.addresses import FAMILIES, Family
from ringfence.policy.model import GroupPeer, Rule
from ringfence.policy.program import names
from ringfence.policy.program.base_chains import ALLOW
from ringfence.policy.program.late import FLOW_PEER
from ringfence.policy.program.model import Between, Count, Equal, Field, Goto, Line, Match, Member, Within
from ringfence.policy.values import ALL_PORTS, PROTOCOL_NUMBER, Direction, GroupId, Icmp, Kind, Ports, Protocol

# The names of the sets that hold a group's addresses of one family; none for a group without any.
PeerSets = Mapping[tuple[GroupId, Family], tuple[str, ...]]

_PACKET_PEER: Final = {
    (Direction.INGRESS, 4): Field.SOURCE4,
    (Direction.INGRESS, 6): Field.SOURCE6,
    (Direction.EGRESS, 4): Field.DESTINATION4,
    (Direction.EGRESS, 6): Field.DESTINATION6,
}
_ONLY_FAMILY: Final[dict[Protocol, Family]] = {Protocol.ICMP: 4, Protocol.ICMPV6: 6}
_ALLOW: Final = Goto(ALLOW)
_ICMP_FIELDS: Final = {
    Protocol.ICMP: (Field.ICMP_TYPE, Field.ICMP_CODE),
    Protocol.ICMPV6: (Field.ICMPV6_TYPE, Field.ICMPV6_CODE),
}


def rule_lines(rule: Rule, peers: PeerSets, kind: Kind = Kind.ROUTED) -> Iterator[Line]:
    """The lines by which ``rule`` allows the flow that a packet belongs to; none where it can match nothing.

    What enters a self host is judged by the port on the wire, before any translation to a container's port.
    """
    by_wire = kind is Kind.SELF and rule.direction is Direction.INGRESS
    for family in _families(rule):
        asked = Field.FLOW_ASKED_PORT if by_wire else Field.FLOW_PORT
        protocol = _flow_protocol(rule.protocol, rule.ports, rule.icmp, asked)
        for peer in _peer_matches(rule, FLOW_PEER[rule.direction, family], family, peers):
            yield _allow(rule, (*protocol, peer))


def untracked_rule_lines(rule: Rule, peers: PeerSets) -> Iterator[Line]:
    """The lines by which an icmp, icmpv6 or ah rule allows a packet that conntrack calls invalid; none for others."""
    if rule.protocol not in (Protocol.ICMP, Protocol.ICMPV6, Protocol.AH):
        return
    for family in _families(rule):
        protocol = _packet_protocol(rule)
        for peer in _peer_matches(rule, _PACKET_PEER[rule.direction, family], family, peers):
            yield _allow(rule, (*protocol, peer))


def _allow(rule: Rule, matches: tuple[Match, ...]) -> Line:
    return Line((*matches, Count(names.rule_counter(rule.id)), _ALLOW))


def _families(rule: Rule) -> tuple[Family, ...]:
    """The address families that the rule's protocol and its peer both have."""
    only = _ONLY_FAMILY.get(rule.protocol)
    families = FAMILIES if only is None else (only,)
    if isinstance(rule.peer, GroupPeer):
        return families
    version = rule.peer.network.version
    return tuple(family for family in families if family == version)


def _peer_matches(rule: Rule, field: Field, family: Family, peers: PeerSets) -> Iterator[Match]:
    if isinstance(rule.peer, GroupPeer):
        for set_ in peers.get((rule.peer.group, family), ()):
            yield Member((field,), set_)
    elif rule.peer.network.prefixlen == 0:
        yield Equal(Field.FAMILY, family)
    else:
        yield Within(field, rule.peer.network)


@lru_cache(maxsize=4096)  # most rules are for the same few services: their lines share these objects
def _flow_protocol(protocol: Protocol, ports: Ports, icmp: Icmp | None, port: Field) -> tuple[Match, ...]:
    if protocol is Protocol.ALL:
        return ()
    number = Equal(Field.PROTOCOL, PROTOCOL_NUMBER[protocol])
    if protocol.has_ports and ports != ALL_PORTS:
        return (number, _range(port, ports.first, ports.last))
    if protocol.has_types and icmp is not None and not icmp.any_type:
        return (number, _flow_icmp(icmp))
    return (number,)


def _flow_icmp(icmp: Icmp) -> Match:
    first = (icmp.type or 0) << 8
    if icmp.any_code:
        return Between(Field.FLOW_ASKED_PORT, first, first | 0xFF)
    return Equal(Field.FLOW_ASKED_PORT, first | (icmp.code or 0))


def _packet_protocol(rule: Rule) -> tuple[Match, ...]:
    number = Equal(Field.PROTOCOL, PROTOCOL_NUMBER[rule.protocol])
    if not rule.protocol.has_types or rule.icmp is None or rule.icmp.any_type:
        return (number,)
    type_field, code_field = _ICMP_FIELDS[rule.protocol]
    type_ = Equal(type_field, rule.icmp.type or 0)
    return (number, type_) if rule.icmp.any_code else (number, type_, Equal(code_field, rule.icmp.code or 0))


def _range(field: Field, first: int, last: int) -> Match:
    return Equal(field, first) if first == last else Between(field, first, last)
