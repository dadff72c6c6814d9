"""The operator's app: organisations, keys, hosts, instances, public groups, on the 0600 socket in the data folder only.

Input: JSON without signatures: whoever may open the socket is the operator. Output: JSON. The command line calls
the same app in its own process when no server runs, so that there is one way for each thing.
"""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Annotated, Final
from uuid import UUID

import msgspec

from ringfence.api.apply import ApplyResource
from ringfence.api.authority import Authority
from ringfence.api.change import AllowResource, ChangeResource, GroupsResource, RulesResource
from ringfence.api.counters import show_counts
from ringfence.api.exchange import BodyLimits, Request, Response, put_json
from ringfence.api.flows import FlowsResource
from ringfence.api.front import Front
from ringfence.api.join import Invitations
from ringfence.api.observed import Observed
from ringfence.api.operations import add_operation_routes
from ringfence.api.operator import operator
from ringfence.api.owners import add_owner_routes
from ringfence.api.past import add_past_routes
from ringfence.api.questions import add_question_routes
from ringfence.api.routes import App
from ringfence.api.suggestion import Suggestion
from ringfence.api.unused import UnusedResource
from ringfence.control.actor import Actor, operator_of
from ringfence.control.hosts import HostStatus
from ringfence.control.ids import new_id
from ringfence.control.lookup import find_host, find_instance_of, require_group_named
from ringfence.control.plane import ControlPlane
from ringfence.control.safety import Safety
from ringfence.policy.commands import (
    AddInstance,
    AddSource,
    CreateGroup,
    Edit,
    InstanceClaim,
    Observe,
    ReleaseInstance,
    RemoveInstance,
)
from ringfence.policy.errors import Invalid
from ringfence.policy.model import Group, Instance, Interface
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import (
    GroupId,
    HostName,
    InstanceId,
    Visibility,
    parse_address,
    parse_cidr,
    parse_interface,
    parse_mac,
)
from ringfence.wire.decode import convert, decode_group
from ringfence.wire.document import parse_document
from ringfence.wire.encode import Groups, encode_operation
from ringfence.wire.hostauth import parse_host_name

_MOST_BYTES: Final = 1 << 26  # of a body: a policy of some hundred thousand rules
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class _HostShape(msgspec.Struct, frozen=True, rename="kebab"):
    name: str
    public_key: str | None = None


class _SourcesShape(msgspec.Struct, frozen=True, rename="kebab"):
    external_sources: tuple[str, ...] = ()


class _ObserveShape(msgspec.Struct, frozen=True):
    observe: bool
    force: bool = False


class _InstanceShape(msgspec.Struct, frozen=True):
    name: _Name
    addresses: tuple[str, ...] = ()
    id: UUID | None = None
    mac: str | None = None
    interface: str = "eth0"


@dataclass(frozen=True, slots=True)
class _Hosts:
    """/admin/v1/hosts. A minted private key is shown once."""

    plane: ControlPlane

    async def on_post(self, request: Request, response: Response) -> None:
        shape = convert(parse_document(request.body), _HostShape)
        public_key = None if shape.public_key is None else _decode_key(shape.public_key)
        name = parse_host_name(shape.name, field="$.name")
        added = await self.plane.enrolment.add_host(name, public_key, request.get_param("organisation"))
        answer: dict[str, str] = {"name": added.host.name}
        if added.private_key is not None:
            answer["private-key"] = b64encode(added.private_key).decode()
        put_json(response, answer)

    def on_get(self, _: Request, response: Response) -> None:
        put_json(response, {"hosts": [_show_host(status) for status in self.plane.host_status()]})


@dataclass(frozen=True, slots=True)
class _OneHost:
    """/admin/v1/hosts/{host}: a removed host is refused before the answer is given."""

    plane: ControlPlane

    async def on_delete(self, _: Request, response: Response, host: str) -> None:
        await self.plane.enrolment.remove_host(HostName(host))
        response.status = HTTPStatus.NO_CONTENT


@dataclass(frozen=True, slots=True)
class _Instances:
    """/admin/v1/instances: POST declares one without a host, GET lists all."""

    plane: ControlPlane

    async def on_post(self, request: Request, response: Response) -> None:
        claim = _claim(convert(parse_document(request.body), _InstanceShape))
        await self.plane.execute(AddInstance(claim), operator(self.plane, request))
        put_json(response, {"id": str(claim.id), "name": claim.name})

    def on_get(self, _: Request, response: Response) -> None:
        snapshot = self.plane.snapshot
        shown = [_show_instance(instance, snapshot) for instance in snapshot.instances.values()]
        put_json(response, {"instances": shown})


@dataclass(frozen=True, slots=True)
class _OneInstance:
    """/admin/v1/instances/{instance}, by name or id. Whether it is observed: the answer tells how far hosts are."""

    plane: ControlPlane

    async def on_put(self, request: Request, response: Response, instance: str) -> None:
        wanted = convert(parse_document(request.body), _ObserveShape)
        found, actor = _find_instance(self.plane, request, instance)
        command, safety = Observe((found.id,), wanted.observe), Safety(force=wanted.force)
        operation = await self.plane.execute(command, actor, safety=safety)
        response.data = encode_operation(operation)

    async def on_delete(self, request: Request, response: Response, instance: str) -> None:
        found, actor = _find_instance(self.plane, request, instance)
        await self.plane.execute(RemoveInstance(found.id), actor)
        response.status = HTTPStatus.NO_CONTENT


@dataclass(frozen=True, slots=True)
class _BoundHost:
    """DELETE /admin/v1/instances/{instance}/host: the instance is bound to no host any more."""

    plane: ControlPlane

    async def on_delete(self, request: Request, response: Response, instance: str) -> None:
        found, actor = _find_instance(self.plane, request, instance)
        await self.plane.execute(ReleaseInstance(found.id), actor)
        response.status = HTTPStatus.NO_CONTENT


@dataclass(frozen=True, slots=True)
class _PublicGroups:
    """/admin/v1/groups: groups of the operator that everybody may name as a peer."""

    plane: ControlPlane

    async def on_post(self, request: Request, response: Response) -> None:
        """Creates the group with its external sources, as one change."""
        wanted = decode_group(request.body)
        group = GroupId(new_id())
        edits = [Edit(CreateGroup(wanted.name, wanted.description, Visibility.PUBLIC), group, "$.name")]
        for n, text in enumerate(convert(parse_document(request.body), _SourcesShape).external_sources):
            at = f"$.external-sources[{n}]"
            edits.append(Edit(AddSource(group, parse_cidr(text, field=at)), new_id(), at))
        operator = operator_of(self.plane.owners.first.id, request.request_id)
        changed = await self.plane.change(edits, operator, action="CreateGroup", subject=f"{group} {wanted.name}")
        response.data = encode_operation(changed.operation)

    def on_get(self, _: Request, response: Response) -> None:
        groups = self.plane.snapshot.groups.values()
        put_json(response, {"groups": [_show_group(g) for g in groups if g.visibility is Visibility.PUBLIC]})


@dataclass(frozen=True, slots=True)
class _Counters:
    """GET /admin/v1/counters?host=NAME&group=NAME: each rule that hosts enforce, and what it allowed there."""

    plane: ControlPlane

    def on_get(self, request: Request, response: Response) -> None:
        host, group, snapshot = request.get_param("host"), request.get_param("group"), self.plane.snapshot
        hosts = [find_host(snapshot, HostName(host)).name] if host else sorted(snapshot.hosts)
        if group is not None:
            require_group_named(snapshot, group, field="group")
        shown = [
            one
            for name in hosts
            for one in show_counts(name, self.plane.view(name), self.plane.evidence.counts(name), snapshot)
            if group in (None, one["group"], one["group-id"])
        ]
        put_json(response, {"counters": shown})


def build_admin_app(plane: ControlPlane, authority: Authority | None = None) -> Front:
    """The app behind the control socket; it authenticates nobody."""
    app = App(fresh=plane.fresh if plane.is_shared else None)
    add_owner_routes(app, plane)
    app.add_route("/admin/v1/hosts", _Hosts(plane))
    app.add_route("/admin/v1/hosts/{host}", _OneHost(plane))
    app.add_route("/admin/v1/hosts/{host}/token", Invitations(plane, authority))
    app.add_route("/admin/v1/instances", _Instances(plane))
    app.add_route("/admin/v1/instances/{instance}", _OneInstance(plane))
    app.add_route("/admin/v1/instances/{instance}/host", _BoundHost(plane))
    add_operation_routes(app, plane)
    app.add_route("/admin/v1/change", ChangeResource(plane))
    app.add_route("/admin/v1/security-groups", GroupsResource(plane))
    app.add_route("/admin/v1/rules", RulesResource(plane))
    app.add_route("/admin/v1/allow", AllowResource(plane, partial(operator, plane)))
    add_past_routes(app, plane)
    app.add_route("/admin/v1/apply", ApplyResource(plane))
    app.add_route("/admin/v1/groups", _PublicGroups(plane))
    app.add_route("/admin/v1/counters", _Counters(plane))
    app.add_route("/admin/v1/unused", UnusedResource(plane))
    app.add_route("/admin/v1/drops", FlowsResource(plane, "drops", allowed=False))
    app.add_route("/admin/v1/flows", FlowsResource(plane, "flows", allowed=True))
    add_question_routes(app, plane)
    app.add_route("/admin/v1/observed", Observed(plane))
    app.add_route("/admin/v1/instances/{instance}/suggestion", Suggestion(plane))
    return Front(app, BodyLimits(size_bytes=_MOST_BYTES))


def _decode_key(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise Invalid("expected base64", field="$.public-key") from error


def _claim(shape: _InstanceShape) -> InstanceClaim:
    """If the operator gave no id, one is chosen here, so that the answer can name it."""
    interface = Interface(
        name=parse_interface(shape.interface, field="$.interface"),
        addresses=tuple(parse_address(text, field=f"$.addresses[{n}]") for n, text in enumerate(shape.addresses)),
        mac=None if shape.mac is None else parse_mac(shape.mac, field="$.mac"),
    )
    return InstanceClaim(shape.name, InstanceId(shape.id or new_id()), (interface,))


def _find_instance(plane: ControlPlane, request: Request, text: str) -> tuple[Instance, Actor]:
    """The instance of that name or id, and the operator acting for its organisation."""
    found = find_instance_of(plane.snapshot, text, request.get_param("organisation"))
    return found, operator(plane, request)._replace(organisation=found.organisation)


def _show_host(status: HostStatus) -> dict[str, object]:
    shown = {name: getattr(status, name) for name in ("host", "wanted", "applied", "age_s", "error", "notice")}
    foreign = None if status.foreign is None else [chain.text for chain in status.foreign]
    return shown | {"others_drop": foreign}


def _show_instance(instance: Instance, snapshot: Snapshot) -> dict[str, object]:
    return {
        "id": str(instance.id),
        "name": instance.name,
        "organisation": snapshot.organisations[instance.organisation].name,
        "host": instance.host,
        "bound-to": instance.bound_to,
        "mode": "observe" if instance.observe else "enforce",
        "addresses": [str(address) for address in instance.addresses],
        "groups": [_show_name(group, snapshot.groups) for group in instance.groups],
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
