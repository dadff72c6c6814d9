"""PURE: the JSON that a server and its agents exchange: views of the feed, claims of an inventory, reports.

Input: values of the model, or bytes from the other side. Output: one JSON document each way, or ``Invalid`` naming the
place. It knows no HTTP. Every field is always written: an omitted list must never be mistaken for "everything", so a
document with a missing or an unknown field is refused whole, and ``format`` is raised when fields change.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Final, TypeVar
from uuid import UUID

import msgspec

from ringfence.policy.commands import ClaimInstances, InstanceClaim
from ringfence.policy.errors import Invalid
from ringfence.policy.model import GroupPeer, Interface, Peer, Rule
from ringfence.policy.values import (
    Cidr,
    Direction,
    GroupId,
    Icmp,
    InstanceId,
    Kind,
    Protocol,
    Revision,
    RuleId,
    parse_address,
    parse_cidr,
    parse_interface,
    parse_mac,
)
from ringfence.policy.view import Endpoint, HostView, PeerAddresses

FORMAT: Final = 2
HEARTBEAT: Final = b'{"heartbeat":true}\n'

_MAX_NAME: Final = 255
_MAX_ERROR: Final = 4096  # a report's error is cut to this many characters


@dataclass(frozen=True, slots=True)
class FeedView:
    """One line of the feed that carries a view; ``epoch`` names the life of the store that its revision counts in."""

    epoch: str
    view: HostView


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One line of the feed that says only that the connection lives."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What became of a claim, by instance name: ids of the accepted, reasons of the refused; in since ``revision``."""

    accepted: tuple[tuple[str, InstanceId], ...]
    refused: tuple[tuple[str, str], ...]
    revision: Revision


@dataclass(frozen=True, slots=True)
class Report:
    """What a host enforces: the revision that its kernel was seen to hold (None: none yet), and what is wrong.

    ``notice`` is what an operator should know and what is over: no operation fails by it.
    """

    applied: Revision | None
    error: str | None
    notice: str | None = None


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_IcmpNumber = Annotated[int, msgspec.Meta(ge=-1, le=255)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_NAME)]
_Epoch = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z-]{1,64}\Z")]  # it is written into the kernel's table


class _Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Every JSON object of this protocol: no field has a default, none may be added silently."""


class _IcmpShape(_Shape, frozen=True):
    type: _IcmpNumber | None
    code: _IcmpNumber | None


class _RuleShape(_Shape, frozen=True):
    id: UUID
    direction: Direction
    protocol: Protocol
    network: str | None
    group: UUID | None
    start_port: _Port | None
    end_port: _Port | None
    icmp: _IcmpShape | None
    description: str | None


class _EndpointShape(_Shape, frozen=True):
    instance: UUID
    name: str
    interface: str
    addresses: tuple[str, ...]
    mac: str | None
    kind: Kind
    observe: bool
    groups: tuple[UUID, ...]


class _PeerShape(_Shape, frozen=True):
    members: tuple[str, ...]
    sources: tuple[str, ...]


class _ViewShape(_Shape, frozen=True):
    """Its parts stay octets at first, so that a reader can tell which of them it knows already."""

    revision: _Count
    endpoints: tuple[msgspec.Raw, ...]
    rules: dict[UUID, msgspec.Raw]
    peers: dict[UUID, msgspec.Raw]


class _LineShape(_Shape, frozen=True):
    format: int
    epoch: _Epoch
    revision: _Count
    view: _ViewShape


class _InterfaceShape(_Shape, frozen=True):
    name: str
    addresses: tuple[str, ...]
    mac: str | None
    managed: bool
    kind: Kind


class _InstanceShape(_Shape, frozen=True):
    name: _Name
    id: UUID | None
    realm: _Name
    interfaces: tuple[_InterfaceShape, ...]


class _ClaimShape(_Shape, frozen=True):
    format: int
    instances: tuple[_InstanceShape, ...]


class _AcceptedShape(_Shape, frozen=True):
    name: str
    id: UUID


class _RefusedShape(_Shape, frozen=True):
    name: str
    reason: str


class _ClaimedShape(_Shape, frozen=True):
    accepted: tuple[_AcceptedShape, ...]
    refused: tuple[_RefusedShape, ...]
    revision: _Count


class _ReportShape(_Shape, frozen=True):
    format: int
    applied: _Count | None
    error: str | None
    notice: str | None


class _FormatOnly(msgspec.Struct, frozen=True):
    format: int | None = None


_S = TypeVar("_S", bound=_Shape)
_T = TypeVar("_T")
_encoder: Final = msgspec.json.Encoder()


def encode_view(view: HostView) -> bytes:
    """One JSON object; equal views give equal bytes. O(size of the view)."""
    return _encoder.encode(_view_shape(view))


def decode_view(text: bytes) -> HostView:
    """The view that ``encode_view`` wrote; ``Invalid`` naming the place for anything else."""
    return FeedReader().view(_decode(text, _ViewShape), "$")


def encode_feed_line(epoch: str, view: HostView) -> bytes:
    """One line of ``GET /agent/v1/feed``, newline included."""
    return _encoder.encode(_LineShape(FORMAT, epoch, view.revision, _view_shape(view))) + b"\n"


def decode_feed_line(line: bytes) -> FeedView | Heartbeat:
    """What one line of the feed says; ``Invalid`` for another format or anything malformed: take nothing of it."""
    return FeedReader().decode_line(line)


class FeedReader:
    """Reads one line of a feed after another. A part that is octet for octet as in the line before is not read again.

    It is then the very same object as before, by which ``policy.compile`` sees that nothing changed.
    """

    def __init__(self) -> None:
        self._endpoints: dict[bytes, Endpoint] = {}
        self._rules: dict[bytes, tuple[Rule, ...]] = {}
        self._peers: dict[bytes, PeerAddresses] = {}

    def decode_line(self, line: bytes) -> FeedView | Heartbeat:
        """As ``decode_feed_line``; a line that is refused leaves nothing behind."""
        if line.strip() == HEARTBEAT.strip():
            return Heartbeat()
        shape = _decode_formatted(line, _LineShape)
        if shape.revision != shape.view.revision:
            text = f"the line says revision {shape.revision}, its view {shape.view.revision}"
            raise Invalid(text, field="$.revision")
        return FeedView(shape.epoch, self.view(shape.view, "$.view"))

    def view(self, shape: _ViewShape, path: str) -> HostView:
        endpoints = [bytes(raw) for raw in shape.endpoints]
        rules = {GroupId(group): bytes(raw) for group, raw in shape.rules.items()}
        peers = {GroupId(group): bytes(raw) for group, raw in shape.peers.items()}
        read_endpoints = {
            raw: self._endpoints.get(raw) or _endpoint(_decode(raw, _EndpointShape), f"{path}.endpoints[{n}]")
            for n, raw in enumerate(endpoints)
        }
        read_rules = {raw: self._rules.get(raw) or _rules(raw, f"{path}.rules.{group}") for group, raw in rules.items()}
        read_peers = {
            raw: self._peers.get(raw) or _peer(_decode(raw, _PeerShape), f"{path}.peers.{group}")
            for group, raw in peers.items()
        }
        view = HostView(
            revision=Revision(shape.revision),
            endpoints=tuple(read_endpoints[raw] for raw in endpoints),
            rules=MappingProxyType({group: read_rules[raw] for group, raw in rules.items()}),
            peers=MappingProxyType({group: read_peers[raw] for group, raw in peers.items()}),
        )
        _check_named_peers(view, path)
        self._endpoints, self._rules, self._peers = read_endpoints, read_rules, read_peers
        return view


def encode_claim(claim: ClaimInstances) -> bytes:
    """The body of ``PUT /agent/v1/inventory``."""
    return _encoder.encode(_ClaimShape(FORMAT, tuple(_instance_shape(instance) for instance in claim.instances)))


def decode_claim(body: bytes) -> ClaimInstances:
    """The whole inventory that a host claims; ``Invalid`` names the field. Names are unique, interfaces too."""
    shape = _decode_formatted(body, _ClaimShape)
    claims = tuple(_claim(instance, f"$.instances[{n}]") for n, instance in enumerate(shape.instances))
    _check_unique([claim.name for claim in claims], "instance name")
    _check_unique([interface.name for claim in claims for interface in claim.interfaces], "interface")
    return ClaimInstances(claims)


def encode_claimed(claimed: Claimed) -> bytes:
    """The answer to a claim."""
    accepted = tuple(_AcceptedShape(name, id_) for name, id_ in claimed.accepted)
    refused = tuple(_RefusedShape(name, reason) for name, reason in claimed.refused)
    return _encoder.encode(_ClaimedShape(accepted, refused, claimed.revision))


def decode_claimed(body: bytes) -> Claimed:
    shape = _decode(body, _ClaimedShape)
    accepted = tuple((item.name, InstanceId(item.id)) for item in shape.accepted)
    refused = tuple((item.name, item.reason) for item in shape.refused)
    return Claimed(accepted, refused, Revision(shape.revision))


def encode_report(report: Report) -> bytes:
    """The body of ``POST /agent/v1/report``; a longer error or notice is cut at 4,096 characters."""
    return _encoder.encode(_ReportShape(FORMAT, report.applied, _cut(report.error), _cut(report.notice)))


def decode_report(body: bytes) -> Report:
    shape = _decode_formatted(body, _ReportShape)
    applied = None if shape.applied is None else Revision(shape.applied)
    return Report(applied, _cut(shape.error), _cut(shape.notice))


def _cut(text: str | None) -> str | None:
    """The kernel's and the file system's words need not be UTF-8."""
    return None if text is None else text[:_MAX_ERROR].encode(errors="replace").decode()


def _decode(text: bytes, shape: type[_T]) -> _T:
    try:
        return msgspec.json.decode(text, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"not a document of the agent protocol: {error}") from error


def _decode_formatted(text: bytes, shape: type[_S]) -> _S:
    """As ``_decode``, but another format is named as such before its unknown fields are complained about."""
    try:
        found = msgspec.json.decode(text, type=_FormatOnly).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"not a document of the agent protocol: {error}") from error
    if found != FORMAT:
        raise Invalid(
            f"expected format {FORMAT}, got {found}: server and agent are of different versions", field="$.format"
        )
    return _decode(text, shape)


def _view_shape(view: HostView) -> _ViewShape:
    return _ViewShape(
        revision=view.revision,
        endpoints=tuple(_raw(_endpoint_shape(endpoint)) for endpoint in view.endpoints),
        rules={group: _raw([_rule_shape(rule) for rule in rules]) for group, rules in sorted(view.rules.items())},
        peers={group: _raw(_peer_shape(peer)) for group, peer in sorted(view.peers.items())},
    )


def _raw(shape: _Shape | list[_RuleShape]) -> msgspec.Raw:
    return msgspec.Raw(_encoder.encode(shape))


def _endpoint_shape(endpoint: Endpoint) -> _EndpointShape:
    addresses = tuple(map(str, endpoint.addresses))
    return _EndpointShape(
        instance=endpoint.instance,
        name=endpoint.name,
        interface=endpoint.interface,
        addresses=addresses,
        mac=endpoint.mac,
        kind=endpoint.kind,
        observe=endpoint.observe,
        groups=endpoint.groups,
    )


def _rule_shape(rule: Rule) -> _RuleShape:
    return _RuleShape(
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


def _peer_shape(peer: PeerAddresses) -> _PeerShape:
    return _PeerShape(tuple(sorted(map(str, peer.members))), tuple(sorted(map(str, peer.sources))))


def _instance_shape(claim: InstanceClaim) -> _InstanceShape:
    interfaces = tuple(
        _InterfaceShape(
            interface.name, tuple(map(str, interface.addresses)), interface.mac, interface.managed, interface.kind
        )
        for interface in claim.interfaces
    )
    return _InstanceShape(claim.name, claim.id, claim.realm, interfaces)


def _check_named_peers(view: HostView, path: str) -> None:
    """A whole view says of every named group who is in it; one that does not was cut short somewhere."""
    for listed in view.rules.values():
        for rule in listed:
            if isinstance(rule.peer, GroupPeer) and rule.peer.group not in view.peers:
                raise Invalid(f"rule {rule.id} names group {rule.peer.group}, which is missing", field=f"{path}.peers")


def _rules(raw: bytes, path: str) -> tuple[Rule, ...]:
    rules = tuple(_rule(shape, f"{path}[{n}]") for n, shape in enumerate(_decode(raw, tuple[_RuleShape, ...])))
    if len({rule.id for rule in rules}) != len(rules):
        raise Invalid("a rule id occurs twice", field=path)
    return rules


def _endpoint(shape: _EndpointShape, path: str) -> Endpoint:
    interface = _interface(
        _InterfaceShape(shape.interface, shape.addresses, shape.mac, managed=True, kind=shape.kind), path
    )
    groups = tuple(GroupId(group) for group in shape.groups)
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


def _interface(shape: _InterfaceShape, path: str) -> Interface:
    return Interface(
        name=parse_interface(shape.name, field=f"{path}.name"),
        addresses=tuple(parse_address(text, field=f"{path}.addresses[{n}]") for n, text in enumerate(shape.addresses)),
        mac=None if shape.mac is None else parse_mac(shape.mac, field=f"{path}.mac"),
        managed=shape.managed,
        kind=shape.kind,
    )


def _rule(shape: _RuleShape, path: str) -> Rule:
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


def _rule_peer(shape: _RuleShape, path: str) -> Peer:
    if shape.network is not None and shape.group is None:
        return parse_cidr(shape.network, field=f"{path}.network")
    if shape.group is not None and shape.network is None:
        return GroupPeer(GroupId(shape.group))
    raise Invalid("expected exactly one of network and group", field=path)


def _peer(shape: _PeerShape, path: str) -> PeerAddresses:
    members = frozenset(parse_address(text, field=f"{path}.members[{n}]") for n, text in enumerate(shape.members))
    sources = (parse_cidr(text, field=f"{path}.sources[{n}]").network for n, text in enumerate(shape.sources))
    return PeerAddresses(members, frozenset(sources))


def _claim(shape: _InstanceShape, path: str) -> InstanceClaim:
    if not shape.name.isprintable() or not shape.realm.isprintable():
        raise Invalid("expected printable characters only", field=path)
    return InstanceClaim(
        name=shape.name,
        id=None if shape.id is None else InstanceId(shape.id),
        interfaces=tuple(_interface(item, f"{path}.interfaces[{n}]") for n, item in enumerate(shape.interfaces)),
        realm=shape.realm,
    )


def _check_unique(names: list[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Invalid(f"{what} {name!r} occurs twice", field="$.instances")
        seen.add(name)
