"""The operator's view of operations: the newest ones, and what became of one on each host that it touches.

Input: requests on the control socket. Output: JSON. Callers of the API see an operation in the official shape alone.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

import msgspec

from ringfence.api.exchange import Request, Response
from ringfence.api.routes import App
from ringfence.control.plane import ControlPlane
from ringfence.policy.errors import Invalid
from ringfence.policy.model import Operation
from ringfence.policy.values import OperationId

_MOST: Final = 1000
_USUAL: Final = 50


@dataclass(frozen=True, slots=True)
class _Operations:
    """GET /admin/v1/operations?last=N&organisation=NAME: the newest first."""

    plane: ControlPlane

    def on_get(self, request: Request, response: Response) -> None:
        most = request.get_param_as_int("last", least=1, most=_MOST) or _USUAL
        organisation = self.plane.owners.named(request.get_param("organisation"))
        found = self.plane.operations(organisation.id, most)
        response.data = msgspec.json.encode({"operations": [show_operation(operation) for operation in found]})


@dataclass(frozen=True, slots=True)
class _OneOperation:
    """GET /admin/v1/operations/{operation}: with its outcome on each host."""

    plane: ControlPlane

    def on_get(self, request: Request, response: Response, operation: str) -> None:
        organisation = self.plane.owners.named(request.get_param("organisation"))
        found = self.plane.operation(_id(operation), organisation.id)
        hosts = [
            {"host": fate.host, "state": fate.standing.value, "after-ms": fate.after_ms, "reason": fate.reason}
            for fate in self.plane.fates(found)
        ]
        response.data = msgspec.json.encode({**show_operation(found), "hosts": hosts})


def add_operation_routes(app: App, plane: ControlPlane) -> None:
    app.add_route("/admin/v1/operations", _Operations(plane))
    app.add_route("/admin/v1/operations/{operation}", _OneOperation(plane))


def show_operation(operation: Operation) -> dict[str, object]:
    """An operation as the operator sees it."""
    return {
        "id": str(operation.id),
        "state": operation.state.value,
        "revision": operation.revision,
        "reason": operation.reason.value if operation.reason else None,
        "message": operation.message,
        "group": str(operation.group),
        "touched": len(operation.hosts),
        "created-at": operation.created_at,
    }


def _id(text: str) -> OperationId:
    try:
        return OperationId(UUID(text))
    except ValueError as error:
        raise Invalid(f"expected the id of an operation, got {ascii(text)[:64]}", field="operation") from error
