"""One request and its answer, as every layer between a connection and a resource sees them.

Input: what came over the wire. Output: the same as values, and what the log will say of it. It knows nothing of what
is asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol
from urllib.parse import parse_qsl

import msgspec

from ringfence.control.actor import Actor
from ringfence.policy.errors import Invalid
from ringfence.policy.values import HostName
from ringfence.wire.answers import MEDIA_TYPE
from ringfence.wire.signature import SignedRequest

REQUEST_ID_HEADER: Final = "x-request-id"  # on every answer; the log names it

End = tuple[str, int]  # address and port


class Ends(NamedTuple):
    """The addresses of a connection's ends, None where there is none, as on a unix socket."""

    peer: End | None
    own: End | None
    scheme: str = "http"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The ``protocol`` that the caller wants to go on with; ``take`` gives its connection and ends HTTP on it."""

    protocol: str
    take: Callable[[], asyncio.Transport]


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """A body may have ``size_bytes`` bytes, and must be complete ``time_s`` seconds after the headers."""

    size_bytes: int = 2**20
    time_s: float = 30.0


class Request:
    """What is known below is filled in on the way: by the front, by who authenticates, by the routes.

    ``caller`` and ``why`` are for the log: who asked, and why a refusal was one. ``address`` is the peer's until it is
    known that the peer is a trusted proxy, and for whom it speaks.
    """

    body = b""
    upgrade: Upgrade | None = None
    request_id = ""
    route = ""  # the template of the route that it is for
    caller: str | None = None
    why: str | None = None
    actor: Actor | None = None  # whose key signed it
    host: HostName | None = None  # whose agent signed it

    def __init__(self, method: str, target: bytes, path: str, headers: Mapping[bytes, bytes], ends: Ends) -> None:
        self.method = method
        self.target = target  # as it came over the wire: path and, after "?", the query
        self.path = path  # decoded
        self.headers = headers  # by their names in lower case; one that came more than once has its values joined
        self.ends = ends
        self.address = ends.peer[0] if ends.peer else None

    @property
    def signed(self) -> SignedRequest:
        """The parts that a signature covers."""
        return SignedRequest(self.method, self.target, self.body)

    def get_header(self, name: bytes) -> str | None:
        """The value of a header, by its name in lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    @cached_property
    def params(self) -> dict[str, str]:
        """The query's arguments by name; the last one of several with the same name."""
        query = self.target.partition(b"?")[2]
        return dict(parse_qsl(query.decode("utf-8", "replace"), keep_blank_values=True)) if query else {}

    def get_param(self, name: str) -> str | None:
        """An argument of the query."""
        return self.params.get(name)

    def require_param(self, name: str) -> str:
        """An argument of the query; raises ``Invalid`` if it is missing."""
        found = self.params.get(name)
        if found is None:
            raise Invalid("required, but not given", field=f"?{name}")
        return found

    def get_param_as_int(self, name: str, *, least: int | None = None, most: int | None = None) -> int | None:
        """An argument that is a whole number from ``least`` to ``most``; raises ``Invalid`` for others."""
        found = self.params.get(name)
        if found is None:
            return None
        try:
            number = int(found)
        except ValueError as error:
            raise Invalid("expected a whole number", field=f"?{name}") from error
        if (least is not None and number < least) or (most is not None and number > most):
            bounds = f"from {least}" + ("" if most is None else f" to {most}")
            raise Invalid(f"expected a whole number {bounds}, got {number}", field=f"?{name}")
        return number

    def get_param_as_bool(self, name: str) -> bool:
        """Whether an argument is given as ``true``; raises ``Invalid`` for what is neither true nor false."""
        found = self.params.get(name, "false").lower()
        if found not in {"true", "false"}:
            raise Invalid("expected true or false", field=f"?{name}")
        return found == "true"


class Response:
    """An answer, sent as a whole. ``is_last``: the connection ends after it."""

    __slots__ = ("content_type", "data", "head", "is_last", "status")

    def __init__(self, status: HTTPStatus = HTTPStatus.OK, data: bytes = b"") -> None:
        self.status: int = status
        self.data = data
        self.content_type = MEDIA_TYPE
        self.head = b""  # further headers, as they go over the wire
        self.is_last = False

    def set_header(self, name: str, value: str) -> None:
        self.head += f"{name}: {value}\r\n".encode("latin-1")


Answering = Response | Awaitable[Response]  # an answer at once, or one that has to be waited for


class HttpApp(Protocol):
    """The application that a connection gives its requests to."""

    @property
    def limits(self) -> BodyLimits:
        """Of the bodies that it takes."""

    def __call__(self, request: Request) -> Answering:
        """The answer; raises nothing."""

    def refuse(self, request: Request, answer: Response) -> Response:
        """The answer to send for a request that the connection itself had to refuse."""

    def give_up(self, request: Request) -> None:
        """Logs a request whose caller left before it was complete."""

    def end(self) -> None:
        """Nothing is asked any more."""


def put_json(response: Response, shown: object) -> None:
    """Answers with ``shown`` as JSON."""
    response.data = msgspec.json.encode(shown)
