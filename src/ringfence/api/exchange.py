"""One request and its answer: what the front has read of it and what the log will say of it.

It stands in the ASGI scope, where every layer finds it. It knows nothing of what is asked.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import falcon.asgi
import msgspec

from ringfence.wire.signature import SignedRequest

Request = falcon.asgi.Request
Response = falcon.asgi.Response
FalconApp = falcon.asgi.App[Request, Response]

# ASGI's own names for what a server and an app say to each other.
Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID_HEADER: Final = b"x-request-id"  # on every answer; the log names it
UPGRADE: Final = "ringfence.upgrade"  # an ASGI extension: what was asked for stands in it as PROTOCOL
PROTOCOL: Final = "protocol"
WHOLE: Final = "ringfence.whole"  # stands in the scope of a request that has come to its end
_PLACE: Final = "ringfence.exchange"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The ``protocol`` that the caller wants to go on with; ``take`` gives its connection and ends HTTP on it."""

    protocol: str
    take: Callable[[], asyncio.Transport]


@dataclass(slots=True)
class Exchange:
    """``caller`` and ``why`` are filled in on the way, for the log: who asked, and why a refusal was one.

    ``address`` is the peer's until it is known that the peer is a trusted proxy, and for whom it speaks.
    """

    request_id: str
    method: str
    target: bytes  # as it came over the wire: path and, after "?", the query
    peer: str | None  # the address of the other end of the connection; None on a unix socket
    receive: Receive  # what comes after the body, i.e. the disconnect
    address: str | None
    body: bytes = b""
    status: int = 0
    caller: str | None = None
    why: str | None = None
    upgrade: Upgrade | None = None

    @property
    def signed(self) -> SignedRequest:
        """The parts that a signature covers."""
        return SignedRequest(self.method, self.target, self.body)

    async def disconnected(self) -> None:
        """Returns when the caller has gone. Only after the body was read whole."""
        while (await self.receive())["type"] != "http.disconnect":
            continue


def open_exchange(scope: Scope, receive: Receive, request_id: str) -> Exchange:
    """The exchange of a request, put into its scope."""
    query = scope["query_string"]
    client = scope.get("client")
    exchange = Exchange(
        request_id=request_id,
        method=scope["method"],
        target=scope["raw_path"] + (b"?" + query if query else b""),
        peer=client[0] if client else None,
        receive=receive,
        upgrade=scope.get("extensions", {}).get(UPGRADE, {}).get(PROTOCOL),
        address=client[0] if client else None,
    )
    scope[_PLACE] = exchange
    return exchange


def put_json(response: Response, shown: object) -> None:
    """Answers with ``shown`` as JSON."""
    response.data = msgspec.json.encode(shown)


def exchange_of(request: Request) -> Exchange:
    exchange = request.scope[_PLACE]
    assert isinstance(exchange, Exchange)  # noqa: S101  narrows the type; the front put it there
    return exchange
