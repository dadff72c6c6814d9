"""Who asks: the middleware that lets a request through only with a valid signature, and says whose it is.

Input: the raw request as the front read it. Output: an ``Actor`` (API keys) or a ``HostName`` (agents) in the request's
context. It decides nothing about what the caller may do.
"""

from collections.abc import Callable
from dataclasses import dataclass

import falcon

from ringfence.api.exchange import Exchange, Request, Response, exchange_of
from ringfence.control.actor import Actor
from ringfence.control.plane import ControlPlane
from ringfence.policy.errors import Denied
from ringfence.policy.values import HostName, KeyId
from ringfence.wire import hostauth
from ringfence.wire.signature import BadSignature, Window, verify_request

API_ROOT = "/v2"
AGENT_ROOT = "/agent/v1"


@dataclass(frozen=True, slots=True)
class Authentication:
    """Falcon middleware. ``now`` is the time of day in seconds since 1970."""

    plane: ControlPlane
    now: Callable[[], float]
    window: Window

    async def process_request(self, request: Request, _: Response) -> None:
        """Raises ``Denied`` unless the request is signed, or is the one that clients send unsigned (list-zones)."""
        exchange = exchange_of(request)
        try:
            if _is_below(request.path, AGENT_ROOT):
                request.context.host = self._host(request, exchange)
            elif _is_below(request.path, API_ROOT) and (request.method, request.path) != ("GET", f"{API_ROOT}/zone"):
                request.context.actor = self._actor(request, exchange)
        except Denied as error:
            exchange.why = error.why if isinstance(error, BadSignature) else str(error)
            raise

    async def process_resource(self, request: Request, _: Response, resource: object, __: dict[str, object]) -> None:
        """Refuses OPTIONS, which Falcon would answer by itself: browsers are no callers of this API."""
        if request.method == "OPTIONS":
            methods = ("GET", "POST", "PUT", "DELETE")
            raise falcon.HTTPMethodNotAllowed([name for name in methods if hasattr(resource, f"on_{name.lower()}")])

    def _actor(self, request: Request, exchange: Exchange) -> Actor:
        key_id = verify_request(
            request.get_header("Authorization"),
            exchange.signed,
            now=self.now(),
            secret_of=self._secret,
            window=self.window,
        )
        exchange.caller = key_id
        key = self.plane.key(key_id)
        if key is None:  # revoked since its secret was looked up
            raise BadSignature("unknown key")
        return Actor(key.organisation, key_id, key.role, exchange.address, exchange.request_id)

    def _secret(self, key_id: KeyId) -> str | None:
        key = self.plane.key(key_id)
        return None if key is None else key.secret

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
        return None if host is None else host.public_key


def actor_of(request: Request) -> Actor:
    """Who signed this request of the API."""
    actor = request.context.actor
    assert isinstance(actor, Actor)  # noqa: S101  narrows the type; the middleware put it there
    return actor


def host_of(request: Request) -> HostName:
    """Which host's agent signed this request."""
    return HostName(request.context.host)


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")
