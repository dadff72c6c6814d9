"""The public app: routes, authentication and one shape for every refusal, as one ASGI app.

Input: a control plane and how callers reach us. Output: the app that every public listener serves. It opens no sockets.
"""

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

import falcon
import falcon.asgi

from ringfence.api.account import add_account_routes
from ringfence.api.agents import Feed, add_agent_routes
from ringfence.api.answers import Answer, answer_error, answer_http_error
from ringfence.api.authentication import API_ROOT, ZONE_ROUTE, Authentication, actor_of
from ringfence.api.authority import Authority
from ringfence.api.change import AllowResource
from ringfence.api.exchange import Asgi, FalconApp, Request, Response, exchange_of
from ringfence.api.feed_connection import HEARTBEAT_S
from ringfence.api.front import BodyLimits, front
from ringfence.api.groups import add_group_routes
from ringfence.api.instances import add_instance_routes
from ringfence.api.join import Join
from ringfence.api.operator import Fresh
from ringfence.api.rates import Gate, RateLimits
from ringfence.api.zones import Origin, ZoneList
from ringfence.control.plane import ControlPlane
from ringfence.policy.errors import NotFound, NotOffered, OperatorError, RingfenceError
from ringfence.wire.answers import MEDIA_TYPE
from ringfence.wire.join import JOIN_PATH
from ringfence.wire.signature import Window


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """What an operator may choose about the public app."""

    window: Window = field(default_factory=Window)
    body: BodyLimits = field(default_factory=BodyLimits)
    origin: Origin = field(default_factory=Origin)
    rates: RateLimits = field(default_factory=RateLimits)
    heartbeat_s: float = HEARTBEAT_S  # of the agents' feeds
    most_feeds: int = 1000  # open at once; the server says how many its limit of open files has room for


def build_app(
    plane: ControlPlane,
    options: ApiOptions = ApiOptions(),
    *,
    now: Callable[[], float] = time.time,
    authority: Authority | None = None,
) -> Asgi:
    """The API of the official clients under /v2, that of the agents under /agent/v1, and who signs may allow itself in.

    ``now`` is the time of day that signatures are judged by; ``authority`` is the own CA, if TLS is by its certificate.
    """
    authentication = Authentication(plane, now, options.window, options.origin, Gate(options.rates))
    app = bare_app(authentication)
    app.add_route(ZONE_ROUTE, ZoneList(plane.settings.zone, options.origin))
    add_group_routes(app, plane)
    add_instance_routes(app, plane)
    add_account_routes(app, plane, now)
    add_agent_routes(app, Feed(plane, options.heartbeat_s, options.most_feeds))
    app.add_route("/admin/v1/allow", AllowResource(plane, actor_of))
    app.add_route(JOIN_PATH, Join(plane, authority))
    app.add_sink(_refuse_unoffered(authentication), f"{API_ROOT}(?:/|$)")
    return front(app, options.body)


def bare_app(*middleware: Authentication | Fresh) -> FalconApp:
    """A Falcon app without routes whose every refusal has our shape."""
    app = falcon.asgi.App(media_type=MEDIA_TYPE, middleware=list(middleware))
    app.add_error_handler(RingfenceError, _answer_ringfence_error)
    app.add_error_handler(falcon.HTTPError, _answer_falcon_error)
    app.add_error_handler(Exception, _raise_unexpected)
    app.add_sink(_refuse_unknown, "/")
    return app


def _refuse_unoffered(authentication: Authentication) -> Callable[..., Coroutine[object, object, None]]:
    """What answers below /v2 where there is no route; who has not signed does not learn that there is none."""

    async def refuse(req: Request, resp: Response | None, **_: str) -> None:  # noqa: ARG001  Falcon's signature
        authentication.identify(req)
        shown = ascii(req.path.removeprefix(API_ROOT).removeprefix("/"))[1:-1][:128]
        raise NotOffered(
            f"{shown or 'an empty path'} is not offered: ringfence serves the security group operations of the "
            "Exoscale API, and of zones, instances and operations what its clients need for them"
        )

    return refuse


async def _refuse_unknown(req: Request, resp: Response | None, **_: str) -> None:  # noqa: ARG001  Falcon's signature
    raise NotFound(f"there is nothing at {ascii(req.path)[1:-1][:128]}: the API is at /v2")


async def _answer_ringfence_error(
    request: Request, response: Response, error: RingfenceError, _: dict[str, object]
) -> None:
    if isinstance(error, OperatorError):
        exchange_of(request).why = str(error)
    _put(response, answer_error(error))


async def _answer_falcon_error(
    request: Request, response: Response, error: falcon.HTTPError, _: dict[str, object]
) -> None:
    _put(response, answer_http_error(error, request.method, request.path))
    if isinstance(error, falcon.HTTPMethodNotAllowed):
        response.set_header("Allow", ", ".join(sorted(_allowed(error))))


def _allowed(error: falcon.HTTPMethodNotAllowed) -> set[str]:
    """Falcon adds OPTIONS by itself; we answer it with 405 too."""
    named = dict(error.headers or {}).get("Allow", "")
    return {method.strip() for method in named.split(",")} - {"OPTIONS"}


async def _raise_unexpected(_: Request, __: Response, error: Exception, ___: dict[str, object]) -> None:
    """Leaves what nobody expected to the front, which logs it once."""
    raise error


def _put(response: Response, answer: Answer) -> None:
    response.status = answer.status.value
    response.content_type = MEDIA_TYPE
    response.data = answer.body
    if answer.retry_after_s is not None:
        response.set_header("Retry-After", str(answer.retry_after_s))
