"""Who asks: the middleware that lets a request through only with a valid signature, and says whose it is.

Input: the raw request as the front read it. Output: an ``Actor`` (API keys) or a ``HostName`` (agents) in the request's
context. It decides nothing about what the caller may do.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import falcon

from ringfence.api.exchange import Exchange, Request, Response, exchange_of
from ringfence.api.rates import Gate
from ringfence.api.zones import Origin
from ringfence.control.actor import Actor
from ringfence.control.plane import ControlPlane
from ringfence.policy.errors import Denied, NotFound
from ringfence.policy.lockout import parse_connection
from ringfence.policy.values import HostName, KeyId
from ringfence.wire import hostauth
from ringfence.wire.join import JOIN_PATH
from ringfence.wire.signature import BadSignature, Window, verify_request

API_ROOT = "/v2"
AGENT_ROOT = "/agent/v1"
ZONE_ROUTE = f"{API_ROOT}/zone"
# Asked by who cannot sign yet: clients learn where to send what they sign, hosts join by a token.
_OPEN = frozenset({("GET", ZONE_ROUTE), ("GET", JOIN_PATH), ("POST", JOIN_PATH)})


@dataclass(frozen=True, slots=True)
class Authentication:
    """Falcon middleware. ``now`` is the time of day in seconds since 1970."""

    plane: ControlPlane
    now: Callable[[], float]
    window: Window
    origin: Origin
    gate: Gate

    async def process_request(self, request: Request, _: Response) -> None:
        """Raises ``NotFound`` for a root spelled as no route is, which Falcon would route all the same."""
        raw = exchange_of(request).target.partition(b"?")[0].decode("latin-1")
        if raw.startswith("//") or (raw != request.path and _root_of(raw) != _root_of(request.path)):
            raise NotFound(f"there is nothing at {ascii(raw)[1:-1][:128]}: the API is at {API_ROOT}")

    async def process_resource(self, request: Request, _: Response, resource: object, __: dict[str, object]) -> None:
        """Lets a routed request through to its resource: by the route that was found, never by how the path looks.

        Refuses OPTIONS, which Falcon would answer by itself: browsers are no callers of this API.
        """
        await self.plane.fresh()
        self.plane.require_fresh()
        self.identify(request)
        if request.method == "OPTIONS":
            methods = ("GET", "POST", "PUT", "DELETE")
            raise falcon.HTTPMethodNotAllowed([name for name in methods if hasattr(resource, f"on_{name.lower()}")])

    def identify(self, request: Request) -> None:
        """Raises ``Denied`` unless the request is signed, or is one of those that are open to all.

        Agents' routes take a host's signature; every other one, and what no route was found for, an API key's.
        Raises ``TooMany`` when an address or key asks too often. Agents are many, and at times behind one address: only
        their refused signatures are counted.
        """
        exchange = exchange_of(request)
        exchange.address = self.origin.caller_address(request)
        try:
            self._identify(request, exchange)
        except Denied as error:
            exchange.why = error.why if isinstance(error, BadSignature) else str(error)
            self.gate.note_failure(exchange.address, time.monotonic())
            raise

    def _identify(self, request: Request, exchange: Exchange) -> None:
        route = request.uri_template or ""
        if route.startswith(f"{AGENT_ROOT}/") and route != JOIN_PATH:
            request.context.host = self._host(request, exchange)
            return
        self.gate.admit_address(exchange.address, time.monotonic())
        if (request.method, route) not in _OPEN:
            actor = self._actor(request, exchange)
            self.gate.admit_key(KeyId(actor.name), time.monotonic())
            request.context.actor = actor

    def _actor(self, request: Request, exchange: Exchange) -> Actor:
        key_id = verify_request(
            request.get_header("Authorization"),
            exchange.signed,
            now=self.now(),
            secrets_of=self._secrets,
            window=self.window,
        )
        exchange.caller = key_id
        key = self.plane.owners.keys[key_id]  # it has signed
        address, request_id = exchange.address, exchange.request_id
        ends = (request.scope.get(name) for name in ("client", "server"))
        connection = None if request.method == "GET" else parse_connection("this very connection", *ends)
        return Actor(key.organisation, key_id, key.role, address, request_id, key.scope, key.name, connection)

    def _secrets(self, key_id: KeyId) -> tuple[str, ...]:
        key = self.plane.owners.key(key_id)
        return () if key is None else key.secrets(self.now())

    def _host(self, request: Request, exchange: Exchange) -> HostName:
        host = hostauth.verify_request(
            request.get_header("Authorization"),
            exchange.method,
            exchange.target.decode("latin-1"),
            exchange.body,
            self.now(),
            self._public_key,
        )
        exchange.caller = f"host:{host}"
        self.plane.seen(host)
        return host

    def _public_key(self, name: HostName) -> bytes | None:
        host = self.plane.snapshot.hosts.get(name)
        return None if host is None else host.public_key or None


def actor_of(request: Request) -> Actor:
    """Who signed this request of the API."""
    actor = request.context.actor
    assert isinstance(actor, Actor)  # noqa: S101  narrows the type; the middleware put it there
    return actor


def host_of(request: Request) -> HostName:
    """Which host's agent signed this request."""
    return HostName(request.context.host)


def _root_of(path: str) -> list[str]:
    """The part that is the same for all of an API: ``/v2``, ``/agent/v1``."""
    segments = path.split("/")
    return segments[: 3 if segments[1:2] == ["agent"] else 2]
