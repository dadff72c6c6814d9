"""GET /admin/v1/observed?of=NAME: what was refused of an instance or of a group's members, or would have been."""

import asyncio
from dataclasses import dataclass

from ringfence.api.exchange import Request, Response, put_json
from ringfence.control.lookup import find_meant
from ringfence.control.observations import report_refused
from ringfence.control.plane import ControlPlane


@dataclass(frozen=True, slots=True)
class Observed:
    """Answers from what hosts have reported since the server started."""

    plane: ControlPlane

    async def on_get(self, request: Request, response: Response) -> None:
        snapshot = self.plane.snapshot
        organisation = self.plane.owners.named(request.get_param("organisation")).id
        instances = find_meant(snapshot, request.require_param("of"), organisation, field="?of")
        refused = await asyncio.to_thread(report_refused, snapshot, instances, self.plane.evidence.flow_tallies())
        modes = [{"instance": one.name, "mode": "observe" if one.observe else "enforce"} for one in instances]
        put_json(response, {"instances": modes, "refused": refused})
