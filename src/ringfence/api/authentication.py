"""Who asks: lets a request through only with a valid signature, and says whose it is.

Input: a raw request, and which route it is for. Output: an ``Actor`` (API keys) or a ``HostName`` (agents) in the
request. It decides nothing about what the caller may do.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Final

from ringfence.api.exchange import Ends, Request
from ringfence.api.rates import Gate
from ringfence.api.routes import shown_path
from ringfence.api.zones import Origin
from ringfence.control.actor import Actor
from ringfence.control.plane import ControlPlane
from ringfence.policy.errors import Denied, NotFound
from ringfence.policy.lockout import Connection, parse_connection
from ringfence.policy.values import HostName, KeyId
from ringfence.wire import hostauth
from ringfence.wire.join import JOIN_PATH
from ringfence.wire.signature import BadSignature, Window, verify_request

API_ROOT = "/v2"
AGENT_ROOT = "/agent/v1"
ZONE_ROUTE = f"{API_ROOT}/zone"
_AGENTS: Final = f"{AGENT_ROOT}/"
# Asked by who cannot sign yet: clients learn where to send what they sign, hosts join by a token.
_OPEN: Final = frozenset({("POST", JOIN_PATH), *product(("GET", "HEAD", "OPTIONS"), (ZONE_ROUTE, JOIN_PATH))})


@dataclass(frozen=True, slots=True)
class Authentication:
    """``now`` is the time of day in seconds since 1970."""

    plane: ControlPlane
    now: Callable[[], float]
    window: Window
    origin: Origin
    gate: Gate

    async def refresh(self) -> None:
        """Returns when this server knows what others have acknowledged; raises ``Busy`` if it has not for too long."""
        await self.plane.fresh()
        self.plane.require_fresh()

    def identify(self, request: Request) -> None:
        """Raises ``Denied`` unless the request is signed, or its route is open to all.

        The route that was found decides, never the spelling of the path. Agents' routes need a host's signature; all
        others, and paths without a route, an API key's. Raises ``TooMany`` when an address, key or host asks too often.
        Agents are many and may share an address, of which only their refused signatures are counted.
        """
        _check_root(request)
        request.address = self.origin.caller_address(request)
        try:
            self._identify(request)
        except Denied as error:
            request.why = error.why if isinstance(error, BadSignature) else str(error)
            self.gate.note_failure(request.address, time.monotonic())
            raise

    def _identify(self, request: Request) -> None:
        route, now_s = request.route, time.monotonic()
        if route.startswith(_AGENTS) and route != JOIN_PATH:
            request.host = self._host(request)
            self.gate.admit_host(request.host, now_s)
            return
        self.gate.admit_address(request.address, now_s)
        if (request.method, route) not in _OPEN:
            request.actor = actor = self._actor(request)
            self.gate.admit_key(KeyId(actor.name), now_s)

    def _actor(self, request: Request) -> Actor:
        key_id = verify_request(
            request.get_header(b"authorization"),
            request.signed,
            now=self.now(),
            secrets_of=self._secrets,
            window=self.window,
        )
        request.caller = key_id
        key = self.plane.owners.keys[key_id]  # it has signed
        connection = None if request.method == "GET" else _own_connection(request.ends)
        return Actor(
            key.organisation, key_id, key.role, request.address, request.request_id, key.scope, key.name, connection
        )

    def _secrets(self, key_id: KeyId) -> tuple[str, ...]:
        key = self.plane.owners.key(key_id)
        return () if key is None else key.secrets(self.now())

    def _host(self, request: Request) -> HostName:
        host = hostauth.verify_request(
            request.get_header(b"authorization"),
            request.method,
            request.target.decode("latin-1"),
            request.body,
            self.now(),
            self._public_key,
        )
        request.caller = f"host:{host}"
        self.plane.seen(host)
        return host

    def _public_key(self, name: HostName) -> bytes | None:
        host = self.plane.snapshot.hosts.get(name)
        return None if host is None else host.public_key or None


def actor_of(request: Request) -> Actor:
    """Who signed this request of the API."""
    assert request.actor is not None  # noqa: S101  narrows the type; it was identified before
    return request.actor


def host_of(request: Request) -> HostName:
    """Which host's agent signed this request."""
    assert request.host is not None  # noqa: S101  as above
    return request.host


@lru_cache(maxsize=1024)
def _own_connection(ends: Ends) -> Connection | None:
    return parse_connection("this very connection", ends.peer, ends.own)


def _check_root(request: Request) -> None:
    """Raises ``NotFound`` for a root spelled as no route is, though its path, decoded, is that of one."""
    if b"%" not in request.target:
        return
    raw = request.target.partition(b"?")[0].decode("latin-1")
    if _root_of(raw) != _root_of(request.path):
        raise NotFound(f"there is nothing at {shown_path(raw)}: the API is at {API_ROOT}")


def _root_of(path: str) -> list[str]:
    """The part that is the same for all of an API: ``/v2``, ``/agent/v1``."""
    segments = path.split("/")
    return segments[: 3 if segments[1:2] == ["agent"] else 2]
