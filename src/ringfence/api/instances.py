"""What the official clients read around security groups: instances, their type and template, and operations.

Input: authenticated requests. Output: JSON. Nothing is changed here: instances come from the inventories of hosts or
from the operator.
"""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from ringfence.api.authentication import actor_of
from ringfence.api.exchange import Request, Response
from ringfence.api.routes import App
from ringfence.control.actor import Actor, require_writer
from ringfence.control.ids import new_id
from ringfence.control.lookup import find_instance
from ringfence.control.plane import ControlPlane
from ringfence.policy.errors import NotFound
from ringfence.policy.model import Instance
from ringfence.policy.values import InstanceId, OperationId
from ringfence.wire.decode import decode_instance_filter, parse_path_id, refuse_arguments
from ringfence.wire.encode import (
    INSTANCE_TYPE_ID,
    TEMPLATE_ID,
    encode_idle,
    encode_instance,
    encode_instance_type,
    encode_instance_types,
    encode_instances,
    encode_operation,
    encode_template,
    encode_templates,
)
from ringfence.wire.signature import parse_query

# What exo asks list-templates and the like for; there is nothing to choose from, so it changes nothing.
_HARMLESS = frozenset({"visibility"})


@dataclass(frozen=True, slots=True)
class InstanceList:
    """/v2/instance: list-instances."""

    plane: ControlPlane

    def on_get(self, request: Request, response: Response) -> None:
        wanted = decode_instance_filter(parse_query(request.target))
        mine = actor_of(request).organisation
        instances = self.plane.snapshot.instances.values()
        response.data = encode_instances(
            instance for instance in instances if instance.organisation == mine and wanted.matches(instance)
        )


@dataclass(frozen=True, slots=True)
class OneInstance:
    """/v2/instance/{instance}: get-instance."""

    plane: ControlPlane

    def on_get(self, request: Request, response: Response, instance: str) -> None:
        response.data = encode_instance(_own(self.plane, instance, actor_of(request)))


@dataclass(frozen=True, slots=True)
class Unprotected:
    """/v2/instance/{instance}:remove-protection: remove-instance-protection, of what has none.

    Terraform's provider ends every change of an instance with it, one of its groups too.
    """

    plane: ControlPlane

    def on_put(self, request: Request, response: Response, instance: str) -> None:
        actor = actor_of(request)
        require_writer(actor)
        response.data = encode_idle(OperationId(new_id()), _own(self.plane, instance, actor))


@dataclass(frozen=True, slots=True)
class OneOperation:
    """/v2/operation/{operation}: get-operation."""

    plane: ControlPlane

    def on_get(self, request: Request, response: Response, operation: str) -> None:
        id_ = OperationId(parse_path_id(operation, what="operation"))
        response.data = encode_operation(self.plane.operation(id_, actor_of(request).organisation))


@dataclass(frozen=True, slots=True)
class Catalogue:
    """/v2/instance-type and /v2/template: lists with the only type and the only template."""

    zone: str
    encode: Callable[[str], bytes]

    def on_get(self, request: Request, response: Response) -> None:
        refuse_arguments(parse_query(request.target), known=_HARMLESS)
        response.data = self.encode(self.zone)


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """/v2/instance-type/{entry} and /v2/template/{entry}: the only type and template."""

    zone: str
    encode: Callable[[str], bytes]
    id: UUID
    what: str

    def on_get(self, _: Request, response: Response, entry: str) -> None:
        if parse_path_id(entry, what=self.what) != self.id:
            raise NotFound(f"there is no {self.what} {entry}")
        response.data = self.encode(self.zone)


@dataclass(frozen=True, slots=True)
class ReverseDns:
    """/v2/reverse-dns/instance/{instance}: get- and delete-reverse-dns-instance; no instance here has a record."""

    def on_get(self, _: Request, __: Response, instance: str) -> None:
        id_ = parse_path_id(instance, what="instance")
        raise NotFound(f"instance {id_} has no reverse DNS record")

    on_delete = on_get


def _own(plane: ControlPlane, text: str, actor: Actor) -> Instance:
    return find_instance(plane.snapshot, InstanceId(parse_path_id(text, what="instance")), actor.organisation)


def add_instance_routes(app: App, plane: ControlPlane) -> None:
    zone = plane.settings.zone
    app.add_route("/v2/instance", InstanceList(plane))
    app.add_route("/v2/instance/{instance}", OneInstance(plane))
    app.add_route("/v2/instance/{instance}:remove-protection", Unprotected(plane))
    app.add_route("/v2/operation/{operation}", OneOperation(plane))
    app.add_route("/v2/instance-type", Catalogue(zone, encode_instance_types))
    app.add_route(
        "/v2/instance-type/{entry}", CatalogueEntry(zone, encode_instance_type, INSTANCE_TYPE_ID, "instance type")
    )
    app.add_route("/v2/template", Catalogue(zone, encode_templates))
    app.add_route("/v2/template/{entry}", CatalogueEntry(zone, encode_template, TEMPLATE_ID, "template"))
    app.add_route("/v2/reverse-dns/instance/{instance}", ReverseDns())
