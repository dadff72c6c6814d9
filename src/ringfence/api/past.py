"""The operator's routes for trials, differences between revisions, and rollback."""

from dataclasses import dataclass

import msgspec

from ringfence.api.change import show_changed, show_preview
from ringfence.api.exchange import Request, Response, put_json
from ringfence.api.operator import operator
from ringfence.api.routes import App
from ringfence.control.plane import ControlPlane
from ringfence.control.safety import Safety
from ringfence.policy.errors import Invalid
from ringfence.wire.change import TrialTime
from ringfence.wire.decode import convert
from ringfence.wire.document import parse_document


class _ConfirmShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    revision: int


class _RollbackShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    revision: int
    dry_run: bool = False
    confirm_s: TrialTime | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class _Trials:
    """/admin/v1/trials?organisation=NAME: the change that waits to be confirmed; POST confirms it, by its revision."""

    plane: ControlPlane

    def on_get(self, request: Request, response: Response) -> None:
        trial = self.plane.owners.named(request.get_param("organisation")).trial
        shown = [] if trial is None else [{"revision": trial.revision, "ends-at": trial.ends_at}]
        put_json(response, {"trials": shown})

    async def on_post(self, request: Request, response: Response) -> None:
        wanted = convert(parse_document(request.body), _ConfirmShape)
        await self.plane.past.confirm(wanted.revision, operator(self.plane, request))
        put_json(response, {"revision": wanted.revision})


@dataclass(frozen=True, slots=True)
class _Difference:
    """GET /admin/v1/diff?from=REV&to=REV&organisation=NAME: what the one has and the other has not; to the newest."""

    plane: ControlPlane

    async def on_get(self, request: Request, response: Response) -> None:
        organisation = self.plane.owners.named(request.get_param("organisation")).id
        old = request.get_param_as_int("from")
        new = request.get_param_as_int("to")
        if old is None:
            raise Invalid("required, but not given", field="?from")
        newest = self.plane.snapshot.revision
        did = await self.plane.past.difference(organisation, old, newest if new is None else new)
        put_json(response, {"from": old, "to": newest if new is None else new, "changes": did})


@dataclass(frozen=True, slots=True)
class _Rollback:
    """POST /admin/v1/rollback: the policy as it was at a revision, as a new one; as a dry run what that would do."""

    plane: ControlPlane

    async def on_post(self, request: Request, response: Response) -> None:
        wanted = convert(parse_document(request.body), _RollbackShape)
        actor = operator(self.plane, request)
        if wanted.dry_run:
            preview = await self.plane.preview_rollback(wanted.revision, actor)
            put_json(response, await show_preview(self.plane, preview, actor.organisation))
            return
        changed = await self.plane.rollback(wanted.revision, actor, safety=Safety(wanted.confirm_s, wanted.force))
        put_json(response, show_changed(changed, self.plane.snapshot))


def add_past_routes(app: App, plane: ControlPlane) -> None:
    app.add_route("/admin/v1/trials", _Trials(plane))
    app.add_route("/admin/v1/diff", _Difference(plane))
    app.add_route("/admin/v1/rollback", _Rollback(plane))
