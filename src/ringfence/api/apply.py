"""POST /admin/v1/apply: brings the policy to what a document says, in one change; or, as a dry run, says how."""

from dataclasses import dataclass

import msgspec

from ringfence.api.change import show_changed, show_preview
from ringfence.api.exchange import Request, Response, put_json
from ringfence.api.operator import operator
from ringfence.control.ids import new_id
from ringfence.control.plane import ControlPlane
from ringfence.control.safety import Safety
from ringfence.policy.commands import Edit
from ringfence.policy.difference import Difference, difference
from ringfence.policy.errors import Conflict
from ringfence.policy.snapshot import Snapshot
from ringfence.wire.change import TrialTime
from ringfence.wire.decode import convert
from ringfence.wire.document import parse_document
from ringfence.wire.policy_file import decode_policy


class _ApplyShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    policy: dict[str, object]
    prune: bool = False
    dry_run: bool = False
    revision: int | None = None
    confirm_s: TrialTime | None = None
    force: bool = False
    accept_failing: bool = False


@dataclass(frozen=True, slots=True)
class ApplyResource:
    """The difference is taken over the very state that it is decided over. Fields in refusals are the document's."""

    plane: ControlPlane

    async def on_post(self, request: Request, response: Response) -> None:
        order = convert(parse_document(request.body), _ApplyShape)
        document = decode_policy(order.policy)
        actor = operator(self.plane, request)
        organisation = actor.organisation

        found: list[Difference] = []

        def wanted(snapshot: Snapshot) -> tuple[Edit, ...]:
            if order.revision not in (None, snapshot.revision):
                raise Conflict(
                    f"the policy has changed since revision {order.revision}: look at what it would do again"
                )
            found[:] = [difference(snapshot, organisation, document, new_id, prune=order.prune)]
            return found[0].edits

        if order.dry_run:
            preview = await self.plane.preview(wanted, actor)
            shown = await show_preview(self.plane, preview, organisation, document.assertions)
            shown["revision"] = preview.before.revision
        else:
            assertions = () if order.accept_failing else document.assertions
            safety = Safety(order.confirm_s, order.force, assertions)
            changed = await self.plane.apply(wanted, actor, safety=safety)
            shown = show_changed(changed, self.plane.snapshot)
        put_json(response, {**shown, "kept": found[0].kept})
