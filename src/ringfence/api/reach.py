"""GET /admin/v1/reach?from=&to=&service=: who reaches whom, exactly; without ends the group x group matrix."""

import asyncio
from dataclasses import dataclass, field

import msgspec

from ringfence.api.exchange import Request, Response
from ringfence.control.plane import ControlPlane
from ringfence.policy.ends import ANY
from ringfence.policy.intervals import Intervals
from ringfence.policy.matrix import draw_matrix
from ringfence.policy.model import Snapshot
from ringfence.policy.portray import Row, portray_matrix, portray_reach
from ringfence.policy.reach import Reachability
from ringfence.policy.services import parse_services


@dataclass(slots=True)
class _Prepared:
    """The newest snapshot that was asked about, made ready: it is asked again more often than it changes."""

    reachability: Reachability | None = None

    def of(self, snapshot: Snapshot) -> Reachability:
        if self.reachability is None or self.reachability.snapshot is not snapshot:
            self.reachability = Reachability(snapshot)
        return self.reachability


@dataclass(frozen=True, slots=True)
class ReachResource:
    """Answered in a thread: some ten milliseconds, for the matrix of a large fleet some seconds."""

    plane: ControlPlane
    _prepared: _Prepared = field(default_factory=_Prepared)

    async def on_get(self, request: Request, response: Response) -> None:
        source, destination, service = (request.get_param(name) for name in ("from", "to", "service"))
        services = parse_services(str(service), field="?service") if service else None
        ends = (str(source or ANY), str(destination or ANY)) if source or destination else None
        rows = await asyncio.to_thread(self._rows, self.plane.snapshot, ends, services)
        response.data = msgspec.json.encode({"reach": [_show(row) for row in rows]})

    def _rows(self, snapshot: Snapshot, ends: tuple[str, str] | None, services: Intervals | None) -> list[Row]:
        prepared = self._prepared.of(snapshot)
        if ends is not None:
            return portray_reach(prepared, prepared.ask(*ends, services))
        return [*portray_matrix(snapshot, draw_matrix(prepared.grants), services)]


def _show(row: Row) -> dict[str, object]:
    return {"from": row.sources, "to": row.destinations, "services": row.services, "rules": row.rules}
