"""The agents' protocol: a host claims its instances, follows its view, reports what it enforces.

Input: requests signed by a host's key. Output: claims' results, the endless feed of views, nothing. A host sees and
says only what is its own: its name comes from the signature, never from the request.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Final

import falcon

from ringfence.api.authentication import host_of
from ringfence.api.exchange import FalconApp, Request, Response, exchange_of
from ringfence.control.plane import ControlPlane
from ringfence.policy.view import HostView
from ringfence.wire.counters import decode_counts
from ringfence.wire.feed import HEARTBEAT, decode_claim, decode_report, encode_claimed, encode_feed_line
from ringfence.wire.flows import decode_flow_report

HEARTBEAT_S: Final = 15.0  # a third of the time after which a silent host no longer counts as live
FEED_TYPE: Final = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Inventory:
    """PUT /agent/v1/inventory: the whole inventory of the calling host."""

    plane: ControlPlane

    async def on_put(self, request: Request, response: Response) -> None:
        claim = decode_claim(exchange_of(request).body)
        response.data = encode_claimed(await self.plane.claim(host_of(request), claim))


@dataclass(frozen=True, slots=True)
class Reports:
    """POST /agent/v1/report: the revision that the calling host's kernel was seen to hold, and what is wrong."""

    plane: ControlPlane

    async def on_post(self, request: Request, response: Response) -> None:
        report = decode_report(exchange_of(request).body)
        await self.plane.report(host_of(request), report.applied, report.error, notice=report.notice)
        response.status = falcon.HTTP_204


@dataclass(frozen=True, slots=True)
class Counters:
    """POST /agent/v1/counters: what the calling host's rules have allowed, in totals."""

    plane: ControlPlane

    async def on_post(self, request: Request, response: Response) -> None:
        self.plane.note_counts(host_of(request), decode_counts(exchange_of(request).body))
        response.status = falcon.HTTP_204


@dataclass(frozen=True, slots=True)
class Flows:
    """POST /agent/v1/flows: packets that the calling host refused, or would have."""

    plane: ControlPlane

    async def on_post(self, request: Request, response: Response) -> None:
        self.plane.note_flows(host_of(request), decode_flow_report(exchange_of(request).body))
        response.status = falcon.HTTP_204


@dataclass(frozen=True, slots=True)
class Feed:
    """GET /agent/v1/feed: the present view, then the newest after each change that touches the host. It has no end."""

    plane: ControlPlane
    closing: asyncio.Event
    heartbeat_s: float

    async def on_get(self, request: Request, response: Response) -> None:
        lines = feed_lines(
            self.plane.watch(host_of(request)),
            self.plane.epoch,
            self.heartbeat_s,
            ends=(exchange_of(request).disconnected(), self._closed()),
        )
        response.content_type = FEED_TYPE
        response.stream = lines

    async def _closed(self) -> None:
        await self.closing.wait()


async def feed_lines(
    views: AsyncIterator[HostView], epoch: str, heartbeat_s: float, *, ends: tuple[Coroutine[object, object, None], ...]
) -> AsyncIterator[bytes]:
    """A line for every view, a heartbeat whenever ``heartbeat_s`` passed without one.

    Over when ``views`` is, or one of ``ends``, both of which it ends itself when the caller stops listening.
    """
    ended = {asyncio.ensure_future(end) for end in ends}
    coming = asyncio.ensure_future(anext(views, None))
    try:
        while True:
            await asyncio.wait({coming, *ended}, timeout=heartbeat_s, return_when=asyncio.FIRST_COMPLETED)
            if any(end.done() for end in ended):
                return
            if not coming.done():
                yield HEARTBEAT
                continue
            view = coming.result()
            if view is None:
                return
            yield encode_feed_line(epoch, view)
            coming = asyncio.ensure_future(anext(views, None))
    finally:
        for task in (coming, *ended):
            task.cancel()
        await asyncio.gather(coming, *ended, return_exceptions=True)
        if isinstance(views, AsyncGenerator):  # a cancelled step that never began leaves it open
            await views.aclose()


def add_agent_routes(app: FalconApp, feed: Feed) -> None:
    app.add_route("/agent/v1/inventory", Inventory(feed.plane))
    app.add_route("/agent/v1/report", Reports(feed.plane))
    app.add_route("/agent/v1/counters", Counters(feed.plane))
    app.add_route("/agent/v1/flows", Flows(feed.plane))
    app.add_route("/agent/v1/feed", feed)
