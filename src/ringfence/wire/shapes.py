"""PURE: the parts of a view as JSON objects, and back: endpoints, rules, what a named group means.

Input: values of the model, or objects read by msgspec. Output: the other, or ``Invalid`` naming the place.
"""

from functools import lru_cache
from typing import Annotated, Final
from uuid import UUID

import msgspec

from ringfence.policy.errors import Invalid
from ringfence.policy.model import GroupPeer, Interface, Peer, PeerAddresses, Rule
from ringfence.policy.values import (
    Cidr,
    Direction,
    GroupId,
    Icmp,
    InstanceId,
    Kind,
    Protocol,
    RuleId,
    parse_address,
    parse_cidr,
    parse_interface,
    parse_mac,
)
from ringfence.policy.view import Endpoint

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_IcmpNumber = Annotated[int, msgspec.Meta(ge=-1, le=255)]


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """A JSON object on which rests what is enforced: no field has a default, none may be added silently."""


class _IcmpShape(Shape, frozen=True):
    type: _IcmpNumber | None
    code: _IcmpNumber | None


class RuleShape(Shape, frozen=True):
    id: UUID
    direction: Direction
    protocol: Protocol
    network: str | None
    group: UUID | None
    start_port: _Port | None
    end_port: _Port | None
    icmp: _IcmpShape | None
    description: str | None


class EndpointShape(Shape, frozen=True):
    instance: UUID
    name: str
    interface: str
    addresses: tuple[str, ...]
    mac: str | None
    kind: Kind
    observe: bool
    groups: tuple[UUID, ...]


class PeerShape(Shape, frozen=True):
    members: tuple[str, ...]
    sources: tuple[str, ...]


class InterfaceShape(Shape, frozen=True):
    name: str
    addresses: tuple[str, ...]
    mac: str | None
    managed: bool
    kind: Kind


_ENCODER: Final = msgspec.json.Encoder()


def encode(shape: object) -> bytes:
    return _ENCODER.encode(shape)


def endpoint_shape(endpoint: Endpoint) -> EndpointShape:
    addresses = tuple(map(str, endpoint.addresses))
    return EndpointShape(
        instance=endpoint.instance,
        name=endpoint.name,
        interface=endpoint.interface,
        addresses=addresses,
        mac=endpoint.mac,
        kind=endpoint.kind,
        observe=endpoint.observe,
        groups=endpoint.groups,
    )


def rule_shape(rule: Rule) -> RuleShape:
    return RuleShape(
        id=rule.id,
        direction=rule.direction,
        protocol=rule.protocol,
        network=rule.peer.text if isinstance(rule.peer, Cidr) else None,
        group=rule.peer.group if isinstance(rule.peer, GroupPeer) else None,
        start_port=rule.start_port,
        end_port=rule.end_port,
        icmp=None if rule.icmp is None else _IcmpShape(rule.icmp.type, rule.icmp.code),
        description=rule.description,
    )


def rules_shape(rules: tuple[Rule, ...]) -> tuple[RuleShape, ...]:
    return tuple(map(rule_shape, rules))


def peer_shape(peer: PeerAddresses) -> PeerShape:
    return PeerShape(tuple(sorted(map(str, peer.members))), tuple(sorted(map(str, peer.sources))))


def read_rules(shapes: tuple[RuleShape, ...], path: str) -> tuple[Rule, ...]:
    rules = tuple(_rule(shape, f"{path}[{n}]") for n, shape in enumerate(shapes))
    if len({rule.id for rule in rules}) != len(rules):
        raise Invalid("a rule id occurs twice", field=path)
    return rules


def read_endpoint(shape: EndpointShape, path: str) -> Endpoint:
    interface = read_interface(
        InterfaceShape(shape.interface, shape.addresses, shape.mac, managed=True, kind=shape.kind), path
    )
    groups = tuple(_group_peer(group).group for group in shape.groups)
    return Endpoint(
        InstanceId(shape.instance),
        shape.name,
        interface.name,
        interface.addresses,
        interface.mac,
        groups,
        shape.kind,
        shape.observe,
    )


def _rule(shape: RuleShape, path: str) -> Rule:
    return Rule(
        id=RuleId(shape.id),
        direction=shape.direction,
        protocol=shape.protocol,
        peer=_rule_peer(shape, path),
        start_port=shape.start_port,
        end_port=shape.end_port,
        icmp=None if shape.icmp is None else Icmp(shape.icmp.type, shape.icmp.code),
        description=shape.description,
    )


def _rule_peer(shape: RuleShape, path: str) -> Peer:
    if shape.network is not None and shape.group is None:
        return parse_cidr(shape.network, field=f"{path}.network")
    if shape.group is not None and shape.network is None:
        return _group_peer(shape.group)
    raise Invalid("expected exactly one of network and group", field=path)


@lru_cache(maxsize=256)  # rules name the same few groups, and share one object
def _group_peer(group: UUID) -> GroupPeer:
    return GroupPeer(GroupId(group))


def read_peer(shape: PeerShape, path: str) -> PeerAddresses:
    members = frozenset(parse_address(text, field=f"{path}.members[{n}]") for n, text in enumerate(shape.members))
    sources = (parse_cidr(text, field=f"{path}.sources[{n}]").network for n, text in enumerate(shape.sources))
    return PeerAddresses(members, frozenset(sources))


def read_interface(shape: InterfaceShape, path: str) -> Interface:
    return Interface(
        name=parse_interface(shape.name, field=f"{path}.name"),
        addresses=tuple(parse_address(text, field=f"{path}.addresses[{n}]") for n, text in enumerate(shape.addresses)),
        mac=None if shape.mac is None else parse_mac(shape.mac, field=f"{path}.mac"),
        managed=shape.managed,
        kind=shape.kind,
    )
