"""One connection to an HTTP server, over TCP, TLS or a unix socket: a request out, its answer in.

Input: octets. Output: ``Answer``s, or an ``OSError``. It is asyncio's streams with the parser that the server uses,
too: a full HTTP client would cost every agent some megabytes.
"""

import asyncio
import ssl
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, TypeVar

import httptools

STEP_TIMEOUT_S: Final = 10.0  # to connect, to write, and for the next octets of an answer
_ANSWER_S: Final = 60.0  # for all octets of an answer, however often some come
_MOST_ANSWER_BYTES: Final = 16 << 20  # thousands of instances refused, each with a reason
_CHUNK_BYTES: Final = 64 << 10
_OTHER_ADDRESS_S: Final = 0.25  # when an address is silent for so long, the name's next one is tried as well
_SILENT: Final = "the server did not answer in time"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Answer:
    """``location``: where a redirect leads."""

    status: int
    content: bytes
    location: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is: host and port, with a TLS context if it uses TLS; or the path of a unix socket."""

    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = None
    unix: str | None = None


class Connection:
    """An open connection, for one request at a time; made by ``open_connection``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = b""  # what came behind an answer that upgraded the connection
        self.is_kept = True  # the server takes another request

    @property
    def is_open(self) -> bool:
        return not (self._writer.is_closing() or self._reader.at_eof())

    def close(self) -> None:
        self._writer.close()

    async def ask(self, request: bytes, silence_s: float = STEP_TIMEOUT_S) -> Answer:
        """The whole answer to a request; if it upgrades the connection, only its head: go on with ``read``."""
        await self.write(request)
        return await _within(_ANSWER_S, self._hear(silence_s))

    async def _hear(self, silence_s: float) -> Answer:
        heard = _Heard()
        parser = httptools.HttpResponseParser(heard)
        size_bytes = 0
        while not heard.is_whole:
            octets = await self.read(silence_s)
            size_bytes += len(octets)
            if size_bytes > _MOST_ANSWER_BYTES:
                raise ConnectionError(f"the answer is larger than {_MOST_ANSWER_BYTES} bytes")
            if not octets:
                if not heard.ends_with_connection:
                    raise ConnectionError("the connection ended before the answer was whole")
                break
            try:
                parser.feed_data(octets)
            except httptools.HttpParserUpgrade as upgrade:
                self._rest = octets[upgrade.args[0] :]
                break
            except httptools.HttpParserError as error:
                raise ConnectionError(f"no HTTP: {error}") from error
        self.is_kept = heard.is_whole and not heard.says_close and parser.get_http_version() == "1.1"
        return Answer(parser.get_status_code(), bytes(heard.body), heard.location)

    async def read(self, silence_s: float) -> bytes:
        """The next octets; none at the end."""
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
        return await _within(silence_s, self._reader.read(_CHUNK_BYTES))

    async def write(self, octets: bytes) -> None:
        self._writer.write(octets)
        await _within(STEP_TIMEOUT_S, self._writer.drain())


class _Heard:
    """The parser's callbacks."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.is_whole = False
        self.ends_with_connection = False
        self.says_close = False
        self.location: str | None = None
        self._says_its_end = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._says_its_end |= name.lower() in (b"content-length", b"transfer-encoding")
        self.says_close |= name.lower() == b"connection" and b"close" in value.lower()
        if name.lower() == b"location":
            self.location = value.decode(errors="replace")

    def on_headers_complete(self) -> None:
        self.ends_with_connection = not self._says_its_end

    def on_body(self, octets: bytes) -> None:
        self.body += octets

    def on_message_complete(self) -> None:
        self.is_whole = True


async def open_connection(place: Place) -> Connection:
    """Raises ``OSError``: ``TimeoutError`` when nobody answers there."""
    if place.unix is not None:
        opening = asyncio.open_unix_connection(place.unix)
    else:
        opening = asyncio.open_connection(place.host, place.port, ssl=place.tls, happy_eyeballs_delay=_OTHER_ADDRESS_S)
    return Connection(*await _within(STEP_TIMEOUT_S, opening))


async def _within(seconds: float, step: Awaitable[_T]) -> _T:
    try:
        async with asyncio.timeout(seconds):
            return await step
    except TimeoutError as error:
        raise TimeoutError(_SILENT) from error
