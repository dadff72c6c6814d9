"""HTTP to one server, over TCP, TLS or a unix socket: requests in, answers out, each tried once.

Input: the server's address as an operator writes it. What the network does comes out as an ``OperatorError``. It is
httpcore alone, for an agent's memory: httpx loads a terminal's colours and a lexer with it.
"""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

import httpcore
import msgspec

from ringfence.agent.channel import ServerPlace
from ringfence.policy.errors import OperatorError

ANSWER_TIMEOUT_S: Final = 10.0
UNAUTHORIZED: Final = 401
SWITCHING_PROTOCOLS: Final = 101
_KEPT_S: Final = 60.0  # a connection that nobody uses
_SHOWN: Final = 300
_UNIX: Final = "unix:"
_PORTS: Final = {"http": 80, "https": 443}

Headers = dict[bytes | str, bytes | str]


class _Problem(msgspec.Struct, frozen=True):
    message: str


class HttpClient:
    """One server at ``base``; ``host`` is what requests call it."""

    def __init__(self, pool: httpcore.AsyncConnectionPool, base: str) -> None:
        self._pool = pool
        self.base = base
        self._host = urlsplit(base).netloc

    async def request(
        self, method: str, path: str, *, content: bytes = b"", headers: Headers | None = None
    ) -> httpcore.Response:
        """The whole answer; it may be an error of the server's."""
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), ANSWER_TIMEOUT_S)
        kind: Headers = {"Content-Type": "application/json"} if content else {}
        sent: Headers = {"Host": self._host, **kind, **(headers or {})}
        return await self._pool.request(
            method, self.base + path, headers=sent, content=content, extensions={"timeout": timeouts}
        )

    def stream(
        self, path: str, *, headers: Headers, silence_s: float
    ) -> AbstractAsyncContextManager[httpcore.Response]:
        """The beginning of an answer to GET, which may be silent for ``silence_s``; what follows is read from it."""
        timeouts = dict.fromkeys(("connect", "write", "pool"), ANSWER_TIMEOUT_S) | {"read": silence_s}
        sent: Headers = {"Host": self._host, **headers}
        return self._pool.stream("GET", self.base + path, headers=sent, extensions={"timeout": timeouts})


@asynccontextmanager
async def open_client(
    address: str, verify: Callable[[], ssl.SSLContext], *, insecure: bool = False
) -> AsyncIterator[HttpClient]:
    """HTTP to ``address``, as ``client.open_server`` takes it; ``verify`` is asked for unless it is a unix socket."""
    if address.startswith(_UNIX):
        base = "http://ringfence"
        pool = httpcore.AsyncConnectionPool(uds=address.removeprefix(_UNIX), keepalive_expiry=_KEPT_S)
    else:
        base = _checked_url(address, insecure=insecure)
        pool = httpcore.AsyncConnectionPool(ssl_context=verify(), keepalive_expiry=_KEPT_S)
    async with pool:
        yield HttpClient(pool, base)


def trust(ca: bytes | None) -> ssl.SSLContext:
    """Verifies servers by this CA (DER) and no other, or by the system's store when there is none."""
    return ssl.create_default_context(cadata=ca) if ca else ssl.create_default_context()


def place_of(address: str) -> ServerPlace | None:
    """Where on the network the server at ``address`` is; None if it is nowhere there, as a unix socket is."""
    try:
        url = urlsplit("" if address.startswith(_UNIX) else address)
        port = url.port or _PORTS.get(url.scheme)
    except ValueError:
        return None
    return ServerPlace(url.hostname, port) if url.hostname and port else None


def is_success(answer: httpcore.Response) -> bool:
    return answer.status // 100 == 2  # noqa: PLR2004  2xx


def message_of(answer: httpcore.Response) -> str:
    """The sentence in an error of the server's; of anybody else's error, which may be on the way, its beginning."""
    try:
        return msgspec.json.decode(answer.content, type=_Problem).message[:_SHOWN]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return answer.content.decode(errors="replace")[:_SHOWN]


class network_errors:  # noqa: N801  read as a with-statement
    """Turns what the network does into an ``OperatorError`` that names the step."""

    def __init__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, httpcore.TimeoutException):
            raise OperatorError(self._step, "the server did not answer in time") from error
        if isinstance(error, httpcore.NetworkError | httpcore.ProtocolError | OSError):
            raise OperatorError(self._step, str(error) or type(error).__name__) from error


def _checked_url(address: str, *, insecure: bool) -> str:
    step = f"use the server address {address!r}"
    url = _split(address, step)
    if url.scheme not in _PORTS or not url.hostname:
        raise OperatorError(step, "expected https://HOST:PORT, http://127.0.0.1:PORT or unix:PATH")
    if url.path.rstrip("/") not in ("", "/v2") or url.query:
        raise OperatorError(step, "expected no path: agents have their own below it")
    if url.scheme == "http" and not (insecure or _is_loopback(url.hostname)):
        raise OperatorError(step, "over plain HTTP anybody on the way could send this host other rules; use https://")
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}"


def _split(address: str, step: str) -> SplitResult:
    try:
        url = urlsplit(address)
        if url.port == 0 or not address.isascii():
            raise OperatorError(step, "expected a name or an address in ASCII, and a port above 0")
    except ValueError as error:
        raise OperatorError(step, str(error)) from error
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
