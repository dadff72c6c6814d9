"""The agents' protocol: a host claims its instances, follows its view, reports what it enforces.

Input: requests signed by a host's key. Output: claims' results, and the feed, over which it reports too. A host sees
and says only what is its own: its name comes from the signature, never from the request.
"""

from dataclasses import dataclass, field
from http import HTTPStatus

from ringfence.api.answers import HttpRefusal
from ringfence.api.authentication import host_of
from ringfence.api.exchange import Request, Response
from ringfence.api.feed_connection import PROTOCOL, FeedConnection
from ringfence.api.rates import BURST_S, REPORT_RATE
from ringfence.api.routes import App
from ringfence.control.plane import ControlPlane
from ringfence.policy.errors import Busy
from ringfence.policy.meter import Meter
from ringfence.wire.counters import decode_counts
from ringfence.wire.feed import Base, decode_claim, encode_claimed, parse_base
from ringfence.wire.flows import decode_flow_report
from ringfence.wire.formats import check_asked


@dataclass(frozen=True, slots=True)
class Inventory:
    """PUT /agent/v1/inventory: the whole inventory of the calling host."""

    plane: ControlPlane

    async def on_put(self, request: Request, response: Response) -> None:
        claim = decode_claim(request.body)
        response.data = encode_claimed(await self.plane.claim(host_of(request), claim))


@dataclass(frozen=True, slots=True)
class Counters:
    """POST /agent/v1/counters: what the calling host's rules have allowed, in totals."""

    plane: ControlPlane

    def on_post(self, request: Request, response: Response) -> None:
        self.plane.evidence.note_counts(host_of(request), decode_counts(request.body))
        response.status = HTTPStatus.NO_CONTENT


@dataclass(frozen=True, slots=True)
class Flows:
    """POST /agent/v1/flows: packets that the calling host refused, or would have."""

    plane: ControlPlane

    def on_post(self, request: Request, response: Response) -> None:
        self.plane.evidence.note_flows(host_of(request), decode_flow_report(request.body))
        response.status = HTTPStatus.NO_CONTENT


@dataclass(frozen=True, slots=True)
class Feed:
    """GET /agent/v1/feed: upgrades the connection to lines: views and deltas to the host, its reports from there.

    ``most``: how many may be open at once; ``meter``: how often each host may report.
    """

    plane: ControlPlane
    heartbeat_s: float
    most: int
    meter: Meter = field(default_factory=lambda: Meter(REPORT_RATE, REPORT_RATE * BURST_S))

    def on_get(self, request: Request, response: Response) -> None:
        host = host_of(request)
        upgrade = request.upgrade
        if upgrade is None or upgrade.protocol != PROTOCOL or request.method != "GET":
            text = f"expected the headers Connection: upgrade and Upgrade: {PROTOCOL}"
            raise HttpRefusal(HTTPStatus.UPGRADE_REQUIRED, text, ("upgrade", PROTOCOL))
        if self.plane.feed.count >= self.most:
            raise Busy(
                f"{self.most} agents are connected, as many as this server's limit of open files has room for: "
                "raise it (LimitNOFILE= of its systemd unit, or ulimit -Hn) and restart the server"
            )
        check_asked(request.get_param("format"))
        base = _base(request)
        self.plane.feed.wanted(host)
        FeedConnection(self.plane, host, self.heartbeat_s, self.meter).begin(upgrade.take(), base)
        response.status = HTTPStatus.SWITCHING_PROTOCOLS


def _base(request: Request) -> Base | None:
    given = [request.get_param(name) for name in ("epoch", "revision", "hash")]
    return parse_base(*map(str, given)) if any(given) else None


def add_agent_routes(app: App, feed: Feed) -> None:
    app.add_route("/agent/v1/inventory", Inventory(feed.plane))
    app.add_route("/agent/v1/counters", Counters(feed.plane))
    app.add_route("/agent/v1/flows", Flows(feed.plane))
    app.add_route("/agent/v1/feed", feed)
