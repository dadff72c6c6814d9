"""PURE: what the API shows of groups, rules, operations and instances, as JSON for the official clients.

Input: values of the model. Output: JSON bytes in the shapes of the official openapi.json and of recorded answers of the
real service: a field without a value is absent, ``network`` is spelled as the caller wrote it, rules keep their order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Final
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from ringfence.policy.model import Group, GroupPeer, Instance, Operation, OperationReason, OperationState, Rule
from ringfence.policy.values import Address, Cidr, GroupId, Mac, OperationId, Visibility

# The real service has catalogues of these. Here all instances have the same type and template, because
# `exo compute instance show` asks for both and fails without.
INSTANCE_TYPE_ID: Final = UUID("7b9f4c1e-5f0a-4a55-9d0e-72696e676601")
TEMPLATE_ID: Final = UUID("7b9f4c1e-5f0a-4a55-9d0e-72696e676602")

_FAILED: Final = frozenset({OperationState.FAILURE, OperationState.TIMEOUT})

Groups = Mapping[GroupId, Group]


class _Shape(msgspec.Struct, frozen=True, rename="kebab", omit_defaults=True):
    """An answer: a field at its default is absent."""


class _Icmp(_Shape, frozen=True):
    type: int | UnsetType = UNSET
    code: int | UnsetType = UNSET


class _Resource(_Shape, frozen=True):
    id: UUID | None = None
    name: str | None = None
    visibility: str | None = None


class _Rule(_Shape, frozen=True):
    id: UUID
    flow_direction: str
    protocol: str
    description: str | None = None
    network: str | None = None
    security_group: _Resource | None = None
    start_port: int | None = None
    end_port: int | None = None
    icmp: _Icmp | None = None


class _Group(_Shape, frozen=True):
    name: str
    visibility: str
    id: UUID | None = None
    description: str | None = None
    external_sources: tuple[str, ...] = ()
    rules: tuple[_Rule, ...] = ()


class _Reference(_Shape, frozen=True):
    id: UUID
    link: str
    command: str


class _Operation(_Shape, frozen=True):
    id: UUID
    state: str
    reference: _Reference
    reason: str | None = None
    message: str | None = None


class _Ref(_Shape, frozen=True):
    id: UUID


class _Labels(msgspec.Struct, frozen=True):
    """Always empty: instances here carry no labels, but clients expect the object."""


class _Listed(_Shape, frozen=True):
    """An instance in a list (openapi.json, list-instances)."""

    id: UUID
    name: str
    state: str
    created_at: str
    instance_type: _Ref
    template: _Ref
    security_groups: tuple[_Ref, ...]
    labels: _Labels
    public_ip_assignment: str
    public_ip: str | None = None
    ipv6_address: str | None = None
    mac_address: str | None = None


class _Instance(_Listed, frozen=True, kw_only=True):
    """A single instance; no defaults, because exo dereferences the last two without a check (instance_show.go)."""

    disk_size: int
    secureboot_enabled: bool
    tpm_enabled: bool


class _Instances(_Shape, frozen=True):
    instances: tuple[_Listed, ...]


class _InstanceType(_Shape, frozen=True):
    id: UUID
    size: str
    family: str
    cpus: int
    memory: int
    authorized: bool
    zones: tuple[str, ...]


class _InstanceTypes(_Shape, frozen=True):
    instance_types: tuple[_InstanceType, ...]


class _Template(_Shape, frozen=True):
    id: UUID
    name: str
    family: str
    size: int
    created_at: str
    visibility: str
    zones: tuple[str, ...]


class _Templates(_Shape, frozen=True):
    templates: tuple[_Template, ...]


class _Zone(_Shape, frozen=True):
    name: str
    api_endpoint: str
    sos_endpoint: str


class _Zones(_Shape, frozen=True):
    zones: tuple[_Zone, ...]


_encoder: Final = msgspec.json.Encoder()


def encode_group(group: Group, groups: Groups) -> bytes:
    """One group; ``groups`` is where the names of peer groups are looked up."""
    return _encoder.encode(_group(group, groups))


def encode_operation(operation: Operation) -> bytes:
    """An operation; it refers to the group that it changes, also if it is about a rule, source or instance."""
    group = operation.group
    return _encoder.encode(
        _Operation(
            id=operation.id,
            state=operation.state.value,
            reference=_Reference(group, f"/v2/security-group/{group}", "get-security-group"),
            reason=_reason(operation),
            message=operation.message,
        )
    )


def encode_idle(id_: OperationId, instance: Instance) -> bytes:
    """The operation of a call about an instance that had nothing to do: over at once, and kept nowhere."""
    reference = _Reference(instance.id, f"/v2/instance/{instance.id}", "get-instance")
    return _encoder.encode(_Operation(id=id_, state=OperationState.SUCCESS.value, reference=reference))


def encode_accepted(operation: Operation) -> bytes:
    """The first answer to a change. A failed operation is shown as pending, so that every client asks again.

    egoscale takes any first answer that is not pending for success (Client.Wait); the Python SDK raises on failure.
    """
    if operation.state in _FAILED:
        return encode_operation(replace(operation, state=OperationState.PENDING, reason=None, message=None))
    return encode_operation(operation)


def _reason(operation: Operation) -> str | None:
    """Never None for a failed operation: the Python SDK reads it without a check."""
    if operation.reason is not None:
        return operation.reason.value
    return OperationReason.UNKNOWN.value if operation.state in _FAILED else None


def encode_instance(instance: Instance) -> bytes:
    """One instance, with the smallest disk that openapi.json allows, because nothing here has disks."""
    whole = _Instance(
        **msgspec.structs.asdict(_listed(instance)), disk_size=10, secureboot_enabled=False, tpm_enabled=False
    )
    return _encoder.encode(whole)


def encode_instances(instances: Iterable[Instance]) -> bytes:
    return _encoder.encode(_Instances(tuple(_listed(instance) for instance in instances)))


def encode_zones(name: str, api_endpoint: str) -> bytes:
    """The only zone. ``api_endpoint``: our base URL, with ``/v2``, as this caller reaches us; exo switches to it."""
    return _encoder.encode(_Zones((_Zone(name, api_endpoint, api_endpoint.removesuffix("/v2")),)))


def encode_instance_type(zone: str) -> bytes:
    return _encoder.encode(_instance_type(zone))


def encode_instance_types(zone: str) -> bytes:
    return _encoder.encode(_InstanceTypes((_instance_type(zone),)))


def encode_template(zone: str) -> bytes:
    return _encoder.encode(_template(zone))


def encode_templates(zone: str) -> bytes:
    return _encoder.encode(_Templates((_template(zone),)))


def _group(group: Group, groups: Groups) -> _Group:
    """Public groups are shown without id, by which exo recognises them (security_group_list.go)."""
    return _Group(
        name=group.name,
        visibility=group.visibility.value,
        id=None if group.visibility is Visibility.PUBLIC else group.id,
        description=group.description,
        external_sources=tuple(source.text for source in group.sources),
        rules=tuple(_rule(rule, groups) for rule in group.rules),
    )


def _rule(rule: Rule, groups: Groups) -> _Rule:
    return _Rule(
        id=rule.id,
        flow_direction=rule.direction.value,
        protocol=rule.protocol.value,
        description=rule.description,
        network=rule.peer.text if isinstance(rule.peer, Cidr) else None,
        security_group=_peer(rule.peer, groups) if isinstance(rule.peer, GroupPeer) else None,
        start_port=rule.start_port,
        end_port=rule.end_port,
        icmp=None if rule.icmp is None else _Icmp(_shown(rule.icmp.type), _shown(rule.icmp.code)),
    )


def _shown(number: int | None) -> int | UnsetType:
    return UNSET if number is None else number


def _peer(peer: GroupPeer, groups: Groups) -> _Resource:
    """``{id, name}`` of a private group. A public one has no id, or Terraform would see a difference."""
    group = groups.get(peer.group)
    if group is None:
        return _Resource(id=peer.group)
    if group.visibility is Visibility.PUBLIC:
        return _Resource(name=group.name, visibility=group.visibility.value)
    return _Resource(id=group.id, name=group.name)


def _listed(instance: Instance) -> _Listed:
    v4, v6 = _first_addresses(instance.addresses)
    return _Listed(
        id=instance.id,
        name=instance.name,
        state="running",
        created_at=datetime.fromtimestamp(instance.created_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        instance_type=_Ref(INSTANCE_TYPE_ID),
        template=_Ref(TEMPLATE_ID),
        security_groups=tuple(_Ref(group) for group in instance.groups),
        labels=_Labels(),
        public_ip_assignment="dual" if v6 else "inet4" if v4 else "none",
        public_ip=v4,
        ipv6_address=v6,
        mac_address=_first_mac(instance),
    )


def _first_addresses(addresses: tuple[Address, ...]) -> tuple[str | None, str | None]:
    v4 = [str(address) for address in addresses if isinstance(address, IPv4Address)]
    v6 = [str(address) for address in addresses if not isinstance(address, IPv4Address)]
    return (v4[0] if v4 else None, v6[0] if v6 else None)


def _first_mac(instance: Instance) -> Mac | None:
    return next((interface.mac for interface in instance.interfaces if interface.managed and interface.mac), None)


def _instance_type(zone: str) -> _InstanceType:
    return _InstanceType(
        INSTANCE_TYPE_ID, size="small", family="standard", cpus=1, memory=2**30, authorized=True, zones=(zone,)
    )


def _template(zone: str) -> _Template:
    return _Template(
        TEMPLATE_ID,
        name="Linux, enforced by ringfence",
        family="linux",
        size=10 * 2**30,
        created_at="2026-01-01T00:00:00Z",
        visibility="public",
        zones=(zone,),
    )
