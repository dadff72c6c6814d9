"""PURE: changes of a view (``policy.view_changes``) <-> msgspec objects of the feed's JSON.

``Invalid`` names the place of what is wrong.
"""

from ipaddress import IPv4Network, IPv6Network
from typing import assert_never
from uuid import UUID

from ringfence.policy.values import Address, GroupId, InstanceId, Network, RuleId, parse_interface
from ringfence.policy.view_changes import (
    EndpointGone,
    EndpointPut,
    PeerChanged,
    PeerGone,
    RulesChanged,
    RulesGone,
    ViewChange,
)
from ringfence.wire.shapes import (
    EndpointShape,
    PeerShape,
    RuleShape,
    Shape,
    endpoint_shape,
    read_endpoint,
    read_peer,
    read_rules,
    rule_shape,
)


class _EndpointPut(Shape, frozen=True, tag_field="change", tag="endpoint"):
    endpoint: EndpointShape


class _EndpointGone(Shape, frozen=True, tag_field="change", tag="endpoint-gone"):
    instance: UUID
    interface: str


class _RulesChanged(Shape, frozen=True, tag_field="change", tag="rules"):
    group: UUID
    gone: tuple[UUID, ...]
    added: tuple[RuleShape, ...]


class _RulesGone(Shape, frozen=True, tag_field="change", tag="rules-gone"):
    group: UUID


class _PeerChanged(Shape, frozen=True, tag_field="change", tag="peer"):
    group: UUID
    added: PeerShape
    removed: PeerShape


class _PeerGone(Shape, frozen=True, tag_field="change", tag="peer-gone"):
    group: UUID


ChangeShape = _EndpointPut | _EndpointGone | _RulesChanged | _RulesGone | _PeerChanged | _PeerGone


def change_shape(change: ViewChange) -> ChangeShape:
    match change:
        case EndpointPut(endpoint):
            return _EndpointPut(endpoint_shape(endpoint))
        case EndpointGone(instance, interface):
            return _EndpointGone(instance, interface)
        case RulesChanged(group, gone, added):
            return _RulesChanged(group, gone, tuple(map(rule_shape, added)))
        case RulesGone(group):
            return _RulesGone(group)
        case PeerChanged(group, added, removed):
            return _PeerChanged(group, _addresses(added), _addresses(removed))
        case PeerGone(group):
            return _PeerGone(group)
        case _:
            assert_never(change)


def read_change(shape: ChangeShape, path: str) -> ViewChange:
    match shape:
        case _EndpointPut():
            return EndpointPut(read_endpoint(shape.endpoint, f"{path}.endpoint"))
        case _EndpointGone():
            interface = parse_interface(shape.interface, field=f"{path}.interface")
            return EndpointGone(InstanceId(shape.instance), interface)
        case _RulesChanged():
            gone = tuple(map(RuleId, shape.gone))
            return RulesChanged(GroupId(shape.group), gone, read_rules(shape.added, f"{path}.added"))
        case _RulesGone():
            return RulesGone(GroupId(shape.group))
        case _PeerChanged():
            added, removed = read_peer(shape.added, f"{path}.added"), read_peer(shape.removed, f"{path}.removed")
            both = [frozenset[Address | Network](one.members | one.sources) for one in (added, removed)]
            return PeerChanged(GroupId(shape.group), *both)
        case _PeerGone():
            return PeerGone(GroupId(shape.group))
        case _:
            assert_never(shape)


def _addresses(mixed: frozenset[Address | Network]) -> PeerShape:
    networks = {one for one in mixed if isinstance(one, IPv4Network | IPv6Network)}
    return PeerShape(tuple(sorted(map(str, mixed - networks))), tuple(sorted(map(str, networks))))
