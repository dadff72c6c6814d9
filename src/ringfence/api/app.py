"""The public app: routes, authentication and one shape for every refusal, as one app.

Input: a control plane and how callers reach us. Output: the app that every public listener serves. It opens no sockets.
"""

import time
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

from ringfence.api.account import add_account_routes
from ringfence.api.agents import Feed, add_agent_routes
from ringfence.api.authentication import API_ROOT, ZONE_ROUTE, Authentication, actor_of
from ringfence.api.authority import Authority
from ringfence.api.change import AllowResource
from ringfence.api.exchange import BodyLimits, Request
from ringfence.api.feed_connection import HEARTBEAT_S
from ringfence.api.front import Front
from ringfence.api.groups import add_group_routes
from ringfence.api.instances import add_instance_routes
from ringfence.api.join import Join
from ringfence.api.rates import Gate, RateLimits
from ringfence.api.routes import App, refuse_unknown, shown_path
from ringfence.api.zones import Origin, ZoneList
from ringfence.control.plane import ControlPlane
from ringfence.policy.errors import NotOffered
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


def build_app(plane: ControlPlane, options: ApiOptions = ApiOptions(), *, authority: Authority | None = None) -> Front:
    """The API of the official clients under /v2, that of the agents under /agent/v1, and who signs may allow itself in.

    ``authority`` is the own CA, if TLS is by its certificate.
    """
    authentication = Authentication(plane, time.time, options.window, options.origin, Gate(options.rates))
    app = App(
        fresh=authentication.refresh if plane.is_shared else None,
        admit=authentication.identify,
        unrouted=partial(_refuse_unrouted, authentication),
    )
    app.add_route(ZONE_ROUTE, ZoneList(plane.settings.zone, options.origin))
    add_group_routes(app, plane)
    add_instance_routes(app, plane)
    add_account_routes(app, plane, time.time)
    add_agent_routes(app, Feed(plane, options.heartbeat_s, options.most_feeds))
    app.add_route("/admin/v1/allow", AllowResource(plane, actor_of))
    app.add_route(JOIN_PATH, Join(plane, authority))
    return Front(app, options.body)


def _refuse_unrouted(authentication: Authentication, request: Request) -> NoReturn:
    """What answers where there is no route; below /v2, who has not signed does not learn that there is none."""
    if request.path != API_ROOT and not request.path.startswith(f"{API_ROOT}/"):
        refuse_unknown(request)
    authentication.identify(request)
    shown = shown_path(request.path.removeprefix(API_ROOT).removeprefix("/"))
    raise NotOffered(
        f"{shown or 'an empty path'} is not offered: ringfence serves the security group operations of the "
        "Exoscale API, and of zones, instances and operations what its clients need for them"
    )
