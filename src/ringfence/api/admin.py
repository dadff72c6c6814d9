"""The operator's app: keys, hosts, instances and public groups. Served only on the 0600 socket in the data folder.

Input: JSON without signatures: whoever may open the socket is the operator. Output: JSON. The command line calls
the same app in its own process when no server runs, so that there is one way for each thing.
"""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID, uuid4

import falcon
import msgspec

from ringfence.api.app import bare_app
from ringfence.api.counters import show_counts
from ringfence.api.drops import show_drop
from ringfence.api.exchange import Asgi, Request, Response, exchange_of
from ringfence.api.front import front
from ringfence.control.actor import OPERATOR_NAME, Actor, Role
from ringfence.control.plane import ControlPlane
from ringfence.policy.commands import AddInstance, AddSource, CreateGroup, InstanceClaim, Observe
from ringfence.policy.errors import Invalid
from ringfence.policy.explain import explain, find_instance_named, parse_service
from ringfence.policy.model import Group, Instance, Interface
from ringfence.policy.values import (
    GroupId,
    HostName,
    InstanceId,
    KeyId,
    Visibility,
    parse_address,
    parse_cidr,
    parse_interface,
    parse_mac,
)
from ringfence.wire.decode import convert, decode_group, parse_choice
from ringfence.wire.document import parse_document
from ringfence.wire.encode import Groups, encode_operation
from ringfence.wire.hostauth import parse_host_name

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class _KeyShape(msgspec.Struct, frozen=True):
    name: _Name | None = None
    role: str = Role.OWNER.value


class _HostShape(msgspec.Struct, frozen=True, rename="kebab"):
    name: str
    public_key: str | None = None


class _SourcesShape(msgspec.Struct, frozen=True, rename="kebab"):
    external_sources: tuple[str, ...] = ()


class _ObserveShape(msgspec.Struct, frozen=True):
    observe: bool


class _InstanceShape(msgspec.Struct, frozen=True):
    name: _Name
    addresses: tuple[str, ...] = ()
    id: UUID | None = None
    mac: str | None = None
    interface: str = "eth0"


@dataclass(frozen=True, slots=True)
class _Keys:
    """/admin/v1/keys. A secret is shown once, in the answer that creates it."""

    plane: ControlPlane

    async def on_post(self, request: Request, response: Response) -> None:
        shape = convert(parse_document(_body(request)), _KeyShape)
        key = await self.plane.create_key(shape.name, parse_choice(shape.role, Role, field="$.role"))
        _put(response, {"id": key.id, "secret": key.secret, "name": key.name, "role": key.role.value})

    async def on_get(self, _: Request, response: Response) -> None:
        shown = [
            {"id": key.id, "name": key.name, "role": key.role.value, "created-at": key.created_at}
            for key in self.plane.list_keys()
        ]
        _put(response, {"keys": shown})


@dataclass(frozen=True, slots=True)
class _OneKey:
    """/admin/v1/keys/{key}: revoked before the answer is given."""

    plane: ControlPlane

    async def on_delete(self, _: Request, response: Response, key: str) -> None:
        await self.plane.revoke_key(KeyId(key))
        response.status = falcon.HTTP_204


@dataclass(frozen=True, slots=True)
class _Hosts:
    """/admin/v1/hosts. A minted private key is shown once."""

    plane: ControlPlane

    async def on_post(self, request: Request, response: Response) -> None:
        shape = convert(parse_document(_body(request)), _HostShape)
        public_key = None if shape.public_key is None else _decode_key(shape.public_key)
        added = await self.plane.add_host(parse_host_name(shape.name, field="$.name"), public_key)
        answer: dict[str, str] = {"name": added.host.name}
        if added.private_key is not None:
            answer["private-key"] = b64encode(added.private_key).decode()
        _put(response, answer)

    async def on_get(self, _: Request, response: Response) -> None:
        shown = [
            {name: getattr(status, name) for name in ("host", "wanted", "applied", "age_s", "error", "notice")}
            for status in self.plane.host_status()
        ]
        _put(response, {"hosts": shown})


@dataclass(frozen=True, slots=True)
class _OneHost:
    """/admin/v1/hosts/{host}: refused before the answer is given."""

    plane: ControlPlane

    async def on_delete(self, _: Request, response: Response, host: str) -> None:
        await self.plane.remove_host(HostName(host))
        response.status = falcon.HTTP_204


@dataclass(frozen=True, slots=True)
class _Instances:
    """/admin/v1/instances: those that an operator declares without a host, and all that there are."""

    plane: ControlPlane

    async def on_post(self, request: Request, response: Response) -> None:
        claim = _claim(convert(parse_document(_body(request)), _InstanceShape))
        await self.plane.execute(AddInstance(claim), _operator(self.plane, request))
        _put(response, {"id": str(claim.id), "name": claim.name})

    async def on_get(self, _: Request, response: Response) -> None:
        snapshot = self.plane.snapshot
        shown = [_show_instance(instance, snapshot.groups) for instance in snapshot.instances.values()]
        _put(response, {"instances": shown})


@dataclass(frozen=True, slots=True)
class _OneInstance:
    """/admin/v1/instances/{instance}, by name or id: whether it is observed; the answer tells how far hosts are."""

    plane: ControlPlane

    async def on_put(self, request: Request, response: Response, instance: str) -> None:
        wanted = convert(parse_document(_body(request)), _ObserveShape)
        found = find_instance_named(self.plane.snapshot, instance)
        operation = await self.plane.execute(Observe(found.id, wanted.observe), _operator(self.plane, request))
        response.data = encode_operation(operation)


@dataclass(frozen=True, slots=True)
class _PublicGroups:
    """/admin/v1/groups: groups of the operator that everybody may name as a peer."""

    plane: ControlPlane

    async def on_post(self, request: Request, response: Response) -> None:
        """Creates the group, then adds each of its external sources; all of them are judged before any is added."""
        wanted = decode_group(_body(request))
        sources = convert(parse_document(_body(request)), _SourcesShape).external_sources
        networks = [parse_cidr(text, field=f"$.external-sources[{n}]") for n, text in enumerate(sources)]
        operator = _operator(self.plane, request)
        command = CreateGroup(wanted.name, wanted.description, Visibility.PUBLIC)
        operation = await self.plane.execute(command, operator)
        for network in networks:
            operation = await self.plane.execute(AddSource(operation.group, network), operator)
        response.data = encode_operation(operation)

    async def on_get(self, _: Request, response: Response) -> None:
        groups = self.plane.snapshot.groups.values()
        _put(response, {"groups": [_show_group(g) for g in groups if g.visibility is Visibility.PUBLIC]})


@dataclass(frozen=True, slots=True)
class _Counters:
    """GET /admin/v1/counters?host=NAME&group=NAME: each rule that hosts enforce, and what it allowed there."""

    plane: ControlPlane

    async def on_get(self, request: Request, response: Response) -> None:
        host, group, snapshot = request.get_param("host"), request.get_param("group"), self.plane.snapshot
        hosts = [HostName(host)] if host else sorted(snapshot.hosts)
        shown = [
            one
            for name in hosts
            for one in show_counts(name, self.plane.view(name), self.plane.counts(name), snapshot)
            if group in (None, one["group"], one["group-id"])
        ]
        _put(response, {"counters": shown})


@dataclass(frozen=True, slots=True)
class _Drops:
    """GET /admin/v1/drops?after=N&host=NAME: what hosts told of refused packets, oldest first, and the last number."""

    plane: ControlPlane

    async def on_get(self, request: Request, response: Response) -> None:
        after, host = request.get_param_as_int("after", default=0, min_value=0), request.get_param("host")
        found = self.plane.flows(after or 0, HostName(host) if host else None)
        snapshot = self.plane.snapshot
        last = found[-1].number if found else after
        _put(response, {"last": last, "drops": [show_drop(kept, snapshot) for kept in found]})


@dataclass(frozen=True, slots=True)
class _Explanation:
    """GET /admin/v1/explain?source=&destination=&service=: the verdict on a first packet, in words."""

    plane: ControlPlane

    async def on_get(self, request: Request, response: Response) -> None:
        source, destination, service = (_argument(request, name) for name in ("source", "destination", "service"))
        found = explain(self.plane.snapshot, source, destination, parse_service(service))
        _put(response, {"allowed": found.verdict.allowed, "text": found.text})


def build_admin_app(plane: ControlPlane) -> Asgi:
    """The app behind the control socket; it authenticates nobody."""
    app = bare_app()
    app.add_route("/admin/v1/keys", _Keys(plane))
    app.add_route("/admin/v1/keys/{key}", _OneKey(plane))
    app.add_route("/admin/v1/hosts", _Hosts(plane))
    app.add_route("/admin/v1/hosts/{host}", _OneHost(plane))
    app.add_route("/admin/v1/instances", _Instances(plane))
    app.add_route("/admin/v1/instances/{instance}", _OneInstance(plane))
    app.add_route("/admin/v1/groups", _PublicGroups(plane))
    app.add_route("/admin/v1/counters", _Counters(plane))
    app.add_route("/admin/v1/drops", _Drops(plane))
    app.add_route("/admin/v1/explain", _Explanation(plane))
    return front(app)


def _operator(plane: ControlPlane, request: Request) -> Actor:
    return Actor(plane.organisation, OPERATOR_NAME, Role.OPERATOR, None, exchange_of(request).request_id)


def _argument(request: Request, name: str) -> str:
    value = request.get_param(name)
    if not value:
        raise Invalid("required, but not given", field=f"?{name}")
    return str(value)


def _body(request: Request) -> bytes:
    return exchange_of(request).body


def _put(response: Response, shown: object) -> None:
    response.data = msgspec.json.encode(shown)


def _decode_key(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise Invalid("expected base64", field="$.public-key") from error


def _claim(shape: _InstanceShape) -> InstanceClaim:
    """The id is chosen here when the operator gave none, so that the answer can name it."""
    interface = Interface(
        name=parse_interface(shape.interface, field="$.interface"),
        addresses=tuple(parse_address(text, field=f"$.addresses[{n}]") for n, text in enumerate(shape.addresses)),
        mac=None if shape.mac is None else parse_mac(shape.mac, field="$.mac"),
    )
    return InstanceClaim(shape.name, InstanceId(shape.id or uuid4()), (interface,))


def _show_instance(instance: Instance, groups: Groups) -> dict[str, object]:
    return {
        "id": str(instance.id),
        "name": instance.name,
        "host": instance.host,
        "mode": "observe" if instance.observe else "enforce",
        "addresses": [str(address) for address in instance.addresses],
        "groups": [_show_name(group, groups) for group in instance.groups],
    }


def _show_name(group: GroupId, groups: Groups) -> str:
    return groups[group].name if group in groups else str(group)


def _show_group(group: Group) -> dict[str, object]:
    return {
        "id": str(group.id),
        "name": group.name,
        "description": group.description,
        "external-sources": [source.text for source in group.sources],
    }
