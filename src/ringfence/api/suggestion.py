"""/admin/v1/instances/{instance}/suggestion: rules that would allow what was seen of an instance, to review."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from ringfence.api.exchange import Request, Response, put_json
from ringfence.control.lookup import find_instance_of
from ringfence.control.plane import ControlPlane
from ringfence.control.suggestions import suggest_rules
from ringfence.wire.flows import FlowRecord, decode_records


@dataclass(frozen=True, slots=True)
class Suggestion:
    """``?egress=true``: also for what it may send while no rule says anything about leaving."""

    plane: ControlPlane

    async def on_get(self, request: Request, response: Response, instance: str) -> None:
        """Suggests from what hosts have reported since the server started."""
        await self._answer(request, response, instance, self._told())

    def _told(self) -> list[FlowRecord]:
        tallies = self.plane.evidence.flow_tallies(allowed=True)
        return [msgspec.structs.replace(tally.record, packets=tally.packets) for tally in tallies]

    async def on_post(self, request: Request, response: Response, instance: str) -> None:
        """Suggests from ``{records: [...]}``, as in a host's own log."""
        await self._answer(request, response, instance, decode_records(request.body))

    async def _answer(self, request: Request, response: Response, instance: str, records: Sequence[FlowRecord]) -> None:
        snapshot = self.plane.snapshot
        found = find_instance_of(snapshot, instance, request.get_param("organisation"))
        egress = request.get_param_as_bool("egress")
        put_json(response, await asyncio.to_thread(suggest_rules, snapshot, found, records, egress=egress))
