"""HTTP to one server, over TCP, TLS or a unix socket: requests in, answers out, each tried once.

Input: the server's address as an operator writes it. Network errors come out as ``OperatorError``.
"""

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from ringfence.agent.channel import ServerPlace
from ringfence.agent.doors.http_connection import Answer, Connection, Place, open_connection
from ringfence.policy.errors import OperatorError, without_number

UNAUTHORIZED: Final = 401
SWITCHING_PROTOCOLS: Final = 101
_KEPT_S: Final = 60.0  # a connection that nobody uses
_SHOWN: Final = 300
_REFUSED: Final = re.compile(r"\[Errno (\d+)\] Connect call failed")  # asyncio's words, also several in a row
_UNIX: Final = "unix:"
_PORTS: Final = {"http": 80, "https": 443}
_UNTIMELY: Final = (9, 10)  # openssl-verify(1): not yet valid, or expired
_OTHER_NAME: Final = (62, 64)  # of a host, or of an address
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class _Problem(msgspec.Struct, frozen=True):
    message: str


class HttpClient:
    """One server at ``place``; open connections are reused for a while. ``name`` is its address for error texts."""

    def __init__(self, place: Place, name: str, host: str) -> None:
        """``host``: for the header of that name."""
        self.place = place
        self.name = name
        self._host = host
        self._idle: list[tuple[Connection, float]] = []  # each since when

    async def request(
        self, method: str, path: str, *, content: bytes = b"", headers: Mapping[str, str] = _NO_HEADERS
    ) -> Answer:
        """The whole answer, whatever its status."""
        connection = self._kept() or await open_connection(self.place)
        is_kept = False
        try:
            answer = await connection.ask(self._render(method, path, content, headers))
            is_kept = connection.is_kept
        finally:
            if not is_kept:
                connection.close()
        self._idle.append((connection, asyncio.get_running_loop().time()))
        return answer

    @asynccontextmanager
    async def upgrade(
        self, path: str, headers: Mapping[str, str], *, silence_s: float
    ) -> AsyncIterator[tuple[Answer, Connection]]:
        """The answer to a request to upgrade, and the connection of its own that it was sent over."""
        connection = await open_connection(self.place)
        try:
            yield await connection.ask(self._render("GET", path, b"", headers), silence_s), connection
        finally:
            connection.close()

    def close(self) -> None:
        for connection, _ in self._idle:
            connection.close()
        self._idle = []

    def _kept(self) -> Connection | None:
        """An idle connection that is still open; closes those that are not, or have been idle too long."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection, since = self._idle.pop()
            if connection.is_open and now - since < _KEPT_S:
                return connection
            connection.close()
        return None

    def _render(self, method: str, path: str, content: bytes, headers: Mapping[str, str]) -> bytes:
        kind = {"Content-Type": "application/json", "Content-Length": str(len(content))} if content else {}
        lines = (f"{name}: {value}\r\n" for name, value in {"Host": self._host, **kind, **headers}.items())
        return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("ascii") + content


@asynccontextmanager
async def open_client(
    address: str, verify: Callable[[], ssl.SSLContext], *, insecure: bool = False
) -> AsyncIterator[HttpClient]:
    """HTTP to ``address``, in the forms of ``client.open_server``; ``verify`` makes the TLS context for https."""
    with closing(_client(address, verify, insecure=insecure)) as client:
        yield client


def _client(address: str, verify: Callable[[], ssl.SSLContext], *, insecure: bool) -> HttpClient:
    if address.startswith(_UNIX):
        return HttpClient(Place(unix=address.removeprefix(_UNIX)), address, "ringfence")
    base = _checked_url(address, insecure=insecure)
    url = urlsplit(base)
    tls = verify() if url.scheme == "https" else None
    return HttpClient(Place(url.hostname or "", url.port or _PORTS[url.scheme], tls), base, url.netloc)


def trust(ca: bytes | None) -> ssl.SSLContext:
    """A TLS context that trusts this CA (DER) alone, or the system's store when there is none."""
    return ssl.create_default_context(cadata=ca) if ca else ssl.create_default_context()


def place_of(address: str) -> ServerPlace | None:
    """The network place of the server at ``address``; None for a unix socket."""
    try:
        url = urlsplit("" if address.startswith(_UNIX) else address)
        port = url.port or _PORTS.get(url.scheme)
    except ValueError:
        return None
    return ServerPlace(url.hostname, port) if url.hostname and port else None


def is_success(answer: Answer) -> bool:
    return answer.status // 100 == 2  # noqa: PLR2004  2xx


def message_of(answer: Answer) -> str:
    """The message in a server's error; of another error, say a proxy's, its first words."""
    if answer.location is not None:
        place = _in_a_line(answer.location)
        return f"go to {place}; redirects are not followed, so give the address that itself answers"
    try:
        text = msgspec.json.decode(answer.content, type=_Problem).message
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = answer.content.decode(errors="replace")
    return _in_a_line(text) or "it gave no reason"


def _in_a_line(text: str) -> str:
    """Without what moves a terminal's cursor, for it is not known who wrote it."""
    printable = (character if character.isprintable() else " " for character in text[:_SHOWN])
    return " ".join("".join(printable).split())


class network_errors:  # noqa: N801  read as a with-statement
    """Turns an ``OSError`` into an ``OperatorError`` that names the step."""

    def __init__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise OperatorError(self._step, reason_of(error)) from error


def reason_of(error: OSError) -> str:
    """In words, without the system's numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}; {advice_on(error)}"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "whoever answers there speaks no TLS: is it another port, or plain http:// on loopback?"
    said = _REFUSED.sub(lambda found: os.strerror(int(found[1])), str(error))
    return without_number(said) or type(error).__name__


def advice_on(error: ssl.SSLCertVerificationError) -> str:
    """What to do about a certificate that is not accepted."""
    if error.verify_code in _UNTIMELY:
        return (
            "compare this host's clock with the server's; if it is right, the server's certificate must be renewed"
            " (there: ringfence server init --name NAME)"
        )
    if error.verify_code in _OTHER_NAME:
        return "use a name that it is for, or on the server: ringfence server init --name NAME, with this one"
    return "either the server has another CA than when this host joined, then join again; or another server answers"


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
        (url.hostname or "").encode("idna")  # as the resolver does it, whose error comes at each try
    except UnicodeError as error:
        raise OperatorError(step, f"{url.hostname!r} is no name of a host: a part is empty or too long") from error
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
