"""What an organisation may see of itself: its quotas, and who changed what (list-quotas, get-quota, list-events).

Input: authenticated requests. Output: JSON.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ringfence.api.authentication import actor_of
from ringfence.api.exchange import Request, Response
from ringfence.api.routes import App
from ringfence.control.actor import OPERATOR_NAME, require_owner
from ringfence.control.plane import ControlPlane
from ringfence.control.quotas import Usage
from ringfence.policy.errors import NotFound
from ringfence.store import HistoryLine, HistoryQuery
from ringfence.wire.account import (
    EventLine,
    QuotaShape,
    decode_period,
    encode_events,
    encode_quota,
    encode_quotas,
)
from ringfence.wire.decode import refuse_arguments
from ringfence.wire.signature import parse_query

MAX_EVENTS: Final = 10_000  # of a period, the newest; more would make one answer of many megabytes


@dataclass(frozen=True, slots=True)
class QuotaList:
    """/v2/quota: list-quotas."""

    plane: ControlPlane

    def on_get(self, request: Request, response: Response) -> None:
        refuse_arguments(parse_query(request.target))
        response.data = encode_quotas(_shape(one) for one in self.plane.owners.usage(actor_of(request).organisation))


@dataclass(frozen=True, slots=True)
class OneQuota:
    """/v2/quota/{resource}: get-quota."""

    plane: ControlPlane

    def on_get(self, request: Request, response: Response, resource: str) -> None:
        for one in self.plane.owners.usage(actor_of(request).organisation):
            if one.quota.value == resource:
                response.data = encode_quota(_shape(one))
                return
        raise NotFound(f"there is no quota {ascii(resource)[1:-1][:64]}: GET /v2/quota lists them")


@dataclass(frozen=True, slots=True)
class EventList:
    """/v2/event: list-events, of the last day unless ``from`` and ``to`` say otherwise. For owners."""

    plane: ControlPlane
    now: Callable[[], float]

    async def on_get(self, request: Request, response: Response) -> None:
        actor = actor_of(request)
        require_owner(actor)
        since, until = decode_period(parse_query(request.target), int(self.now()))
        wanted = HistoryQuery(
            since=since, until=until + 1, organisation=actor.organisation, limit=MAX_EVENTS, newest=True
        )
        lines = await self.plane.history.read(wanted)
        response.data = encode_events(map(_event, lines), self.plane.settings.zone)


def add_account_routes(app: App, plane: ControlPlane, now: Callable[[], float]) -> None:
    app.add_route("/v2/quota", QuotaList(plane))
    app.add_route("/v2/quota/{resource}", OneQuota(plane))
    app.add_route("/v2/event", EventList(plane, now))


def _shape(usage: Usage) -> QuotaShape:
    return QuotaShape(usage.quota.value, usage.used, usage.limit)


def _event(line: HistoryLine) -> EventLine:
    is_key = line.actor != OPERATOR_NAME and not line.actor.startswith("host:")
    changed = f"revision {line.revision_before} -> {line.revision_after}"
    return EventLine(
        at=line.at,
        actor=line.actor,
        key=line.actor if is_key else None,
        key_name=line.actor_name,
        address=line.address,
        request_id=line.request_id,
        action=line.action,
        text=f"{line.subject}: {changed if line.revision_after > line.revision_before else line.result}",
    )
