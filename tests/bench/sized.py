"""Hosts of any size: groups of 10 rules, an instance per group in 2 groups, group peers of 10 members."""

from ipaddress import IPv4Address
from types import MappingProxyType
from uuid import UUID

from policies import mac_of
from ringfence.policy.model import GroupPeer, Rule
from ringfence.policy.program.compile import LocalPorts
from ringfence.policy.values import (
    Direction,
    GroupId,
    InstanceId,
    InterfaceName,
    Protocol,
    Revision,
    RuleId,
    parse_cidr,
)
from ringfence.policy.view import Endpoint, HostView, PeerAddresses

GROUP_RULES = 10
MEMBERS = 10
PORTS = LocalPorts(("tap*",))
_ID = UUID("a1b2c3d4-0000-4000-8000-000000000000").int


def group_id(number: int) -> GroupId:
    return GroupId(UUID(int=_ID | 1 << 40 | number))


def address(number: int) -> IPv4Address:
    return IPv4Address(0x0A000000 + number)


def sized_view(rules: int) -> HostView:
    """A view with that many rules, half of them with a network as peer and half with a group."""
    count = rules // GROUP_RULES
    ids = [group_id(number) for number in range(count)]
    return HostView(
        Revision(1),
        tuple(sorted((endpoint(number, ids) for number in range(count)), key=lambda end: end.interface)),
        MappingProxyType({id_: group_rules(number, ids) for number, id_ in enumerate(ids)}),
        MappingProxyType({id_: PeerAddresses(members(number)) for number, id_ in enumerate(ids)}),
    )


def endpoint(number: int, ids: list[GroupId]) -> Endpoint:
    worn = tuple(sorted({ids[number], ids[(number + 1) % len(ids)]}))
    own = (address(number),)
    name = f"i{number}"
    return Endpoint(
        InstanceId(UUID(int=_ID | 2 << 40 | number)), name, InterfaceName(f"tap{number}"), own, mac_of(name), worn
    )


def group_rules(number: int, ids: list[GroupId]) -> tuple[Rule, ...]:
    return tuple(rule(number, place, ids) for place in range(GROUP_RULES))


def rule(number: int, place: int, ids: list[GroupId]) -> Rule:
    """Two of three let in; of the ten of a group every other one names a group, one of three in turn."""
    direction = Direction.EGRESS if place % 3 == 2 else Direction.INGRESS
    port = 1000 + place * 10
    if place % 2:
        peer = GroupPeer(ids[(number + place % 3) % len(ids)])
    else:
        peer = parse_cidr(f"172.{16 + number % 16}.{number // 16 % 256}.0/24", field="bench")
    return Rule(
        RuleId(UUID(int=_ID | 3 << 40 | number * GROUP_RULES + place)), direction, Protocol.TCP, peer, port, port
    )


def members(number: int) -> frozenset[IPv4Address]:
    return frozenset(address(number * MEMBERS + place) for place in range(MEMBERS))
