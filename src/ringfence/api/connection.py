"""One connection that speaks HTTP/1.1: from octets to requests, and from answers to octets.

- httptools parses; what it refuses is answered in JSON.
- A request head is at most ``MAX_HEAD_BYTES`` and complete ``HEAD_TIME_S`` after its first byte; a body is within the
  limits of the app, and all large ones that are not whole, of callers by TCP, within ``MOST_LARGE_BYTES``. A request is
  asked of the app when it is whole, one at a time and in order.
- Trailers are dropped (RFC 9110, 6.5.1): a proxy in front of us vouches for headers, and looks at none behind a body.
- ``Upgrade`` is left to the app, which may take the connection over, or answer as if nothing had been asked, as HTTP
  allows: the Java SDK sends ``Upgrade: h2c`` with every request, and httptools takes whatever follows such a head, the
  body included, for another protocol.

It knows no routes and no keys.
"""

import asyncio
import logging
import math
import secrets
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

import httptools

from ringfence.api.answers import HttpRefusal, answer_error, answer_refusal
from ringfence.api.exchange import REQUEST_ID_HEADER, End, Ends, HttpApp, Request, Response, Upgrade
from ringfence.policy.errors import Busy, RingfenceError, TooLarge
from ringfence.wire.answers import encode_problem

MAX_HEAD_BYTES: Final = 32 * 1024
HEAD_TIME_S: Final = 10.0
KEEP_ALIVE_S: Final = 75  # longer than clients keep idle connections, so that they close first and no POST is lost
SMALL_BYTES: Final = 32 * 1024  # a body up to this size is always taken
MOST_LARGE_BYTES: Final = 64 * 2**20  # of all larger ones together, while they are not whole: anybody may send them
MOST_WAITING: Final = 128  # requests in one piece: all other callers wait until they are answered
MAX_DRAINED_BYTES: Final = 16 * 2**20  # of a body that was refused already: read on, so that the caller sees the answer
DRAIN_TIME_S: Final = 30.0
_JOINED_BYTES: Final = 64 * 1024  # a longer answer is not copied to go out with its head
_VERSIONS: Final = frozenset({"1.0", "1.1"})
_UPGRADE_HEADERS: Final = frozenset({b"connection", b"upgrade", b"http2-settings"})
_BODILESS: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
_STATUS_LINES: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}

log = logging.getLogger("ringfence.api")


@dataclass(slots=True)
class Open:
    """What is open at a server: connections, and the tasks of answers that are not complete.

    ``large_bytes``: of large bodies that are not whole.
    """

    connections: set["Connection"] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    large_bytes: int = 0


class _Wait(Enum):
    """What a connection waits for."""

    FIRST = auto()  # the first byte of all
    HEAD = auto()  # the rest of a head
    BODY = auto()
    DRAINED = auto()  # the rest of a body that was refused
    NEXT = auto()  # another request, on a connection that is kept
    ANSWER = auto()  # of the app
    READ = auto()  # the caller, to read what it was answered


class Connection(asyncio.Protocol):
    """Created by the server for every connection."""

    def __init__(self, app: HttpApp, opened: Open) -> None:
        self._app = app
        self._open = opened
        self._loop = asyncio.get_running_loop()
        self._parser = _new_parser(self)
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0  # of the head that is read: its names and values
        self._head_arrived = 0  # all bytes since the last request was whole, or since the last of its body
        self._wanted_protocol: bytes | None = None  # of the request whose head is read once more without its upgrade
        self._reading: Request | None = None  # its body
        self._body = bytearray()
        self._large_bytes = 0  # of the body, in the sum of all
        self._drained_bytes = 0
        self._is_kept = True  # the connection, after the answer to the request that is read
        self._due: deque[tuple[Request, Response | None, bool]] = deque()
        self._is_busy = False  # an answer is waited for
        self._is_full = False  # the caller does not read
        self._is_held = False  # nothing is read from the caller
        self._is_ending = False
        self._is_taken = False
        self._wait = _Wait.FIRST
        self._deadline_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # it is always one
        self._transport = transport
        self._open.connections.add(self)
        info = transport.get_extra_info
        scheme = "http" if info("sslcontext") is None else "https"
        self._ends = Ends(_end(info("peername")), _end(info("sockname")), scheme)
        self._wait_for(_Wait.FIRST, HEAD_TIME_S)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the reason changes nothing
        if not self._is_taken:
            self._forget()
        self._due.clear()
        self._count_large(0)
        if self._reading is not None and not self._drained_bytes:
            self._reading.why = "the caller left before the body was whole"
            self._app.give_up(self._reading)

    def data_received(self, data: bytes) -> None:
        self._head_arrived += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self._serve()
            self._refuse_head(error)
            return
        self._serve()
        if self._head_arrived > MAX_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LARGE)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._serve()

    def end(self) -> None:
        """Closes the connection after the answers that are under way, because the server ends."""
        self._is_ending = True
        if self._reading is None and not self._due and not self._is_busy:
            self._close()

    def close(self) -> None:
        """Closes the connection now."""
        self._transport.close()

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = {}
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading is not None:
            return  # a trailer
        name = name.lower()
        known = self._headers.get(name)
        if known is not None and name == b"host":
            raise HttpRefusal(HTTPStatus.BAD_REQUEST, _NOT_ONE_HOST)
        self._headers[name] = value if known is None else known + b"," + value
        self._head_bytes += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        if self._head_bytes > MAX_HEAD_BYTES:
            raise HttpRefusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LARGE)
        version = self._parser.get_http_version()
        if version not in _VERSIONS:
            raise httptools.HttpParserError  # HTTP/0.9 and the like, which the parser takes
        if b"host" not in self._headers and version == "1.1":
            raise HttpRefusal(HTTPStatus.BAD_REQUEST, _NOT_ONE_HOST)
        if b"transfer-encoding" in self._headers and not _is_chunked(self._headers[b"transfer-encoding"]):
            raise HttpRefusal(HTTPStatus.BAD_REQUEST, _CODED)
        if self._parser.should_upgrade():
            return
        request = self._reading = self._begin_request()
        self._is_kept = version == "1.1" and self._parser.should_keep_alive()
        self._body.clear()
        self._drained_bytes = 0
        length = self._headers.get(b"content-length", b"")
        if length and int(length) > self._app.limits.size_bytes:
            self._refuse_body(request, self._too_large())
        elif self._headers.get(b"expect", b"").lower() == b"100-continue" and not self._is_busy and not self._due:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._head_arrived = 0
        request = self._reading
        if self._drained_bytes:
            self._drained_bytes += len(body)
            if self._drained_bytes > MAX_DRAINED_BYTES:
                self._close()
        elif request is not None:
            self._body += body
            size_bytes = len(self._body)
            if size_bytes > self._app.limits.size_bytes:
                self._refuse_body(request, self._too_large())
            elif size_bytes > SMALL_BYTES and self._ends.peer is not None:
                self._count_large(size_bytes)
                if self._open.large_bytes > MOST_LARGE_BYTES:
                    self._refuse_body(request, Busy(_TOO_MANY_LARGE))

    def on_message_complete(self) -> None:
        request = self._reading
        self._head_arrived = 0
        if request is not None:
            self._reading = None
            if self._large_bytes:
                self._count_large(0)
            if len(self._due) >= MOST_WAITING:
                raise HttpRefusal(HTTPStatus.SERVICE_UNAVAILABLE, _TOO_MANY)
            if not self._drained_bytes:
                request.body = bytes(self._body)
                self._due.append((request, None, self._is_kept))
            self._drained_bytes = 0

    def _feed(self, data: bytes) -> None:
        if self._is_taken:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._parser.get_method() == b"CONNECT":  # never anything but an upgrade; this is no proxy
                raise httptools.HttpParserInvalidMethodError from upgrade
            rest = data[upgrade.args[0] :]
            self._wanted_protocol = self._headers.get(b"upgrade")
            head = self._head_without_upgrade()
            self._parser = _new_parser(self)
            self._feed(head + rest)

    def _head_without_upgrade(self) -> bytes:
        """The head that was just parsed, once more, as a request that asks for no other protocol."""
        lines = [self._parser.get_method() + b" " + self._url + b" HTTP/" + self._parser.get_http_version().encode()]
        lines += [name + b": " + value for name, value in self._headers.items() if name not in _UPGRADE_HEADERS]
        if b"close" in map(bytes.strip, self._headers[b"connection"].lower().split(b",")):
            lines.append(b"connection: close")
        return b"\r\n".join((*lines, b"", b""))

    def _begin_request(self) -> Request:
        url = httptools.parse_url(self._url)
        raw = url.path
        if raw is None:
            raise httptools.HttpParserError  # a target that is no path
        path = raw.decode("ascii")
        target = raw if url.query is None else b"%b?%b" % (raw, url.query)
        method = self._parser.get_method().decode("ascii")
        request = Request(method, target, unquote(path) if "%" in path else path, self._headers, self._ends)
        if self._wanted_protocol is not None:
            request.upgrade = Upgrade(self._wanted_protocol.decode("latin-1").lower(), self._hand_over)
            self._wanted_protocol = None
        return request

    def _count_large(self, size_bytes: int) -> None:
        """Has ``size_bytes`` of this connection's body in the sum of all."""
        self._open.large_bytes += size_bytes - self._large_bytes
        self._large_bytes = size_bytes

    def _too_large(self) -> TooLarge:
        return TooLarge(f"expected a body of at most {self._app.limits.size_bytes} bytes")

    def _refuse_body(self, request: Request, error: RingfenceError) -> None:
        """Refuses a body before all of it has arrived. The connection goes on after the rest of that body."""
        self._drained_bytes = max(1, len(self._body))
        self._body.clear()
        self._count_large(0)
        self._due.append((request, answer_error(error), self._is_kept))

    def _hand_over(self) -> asyncio.Transport:
        """Gives the connection to another protocol: nothing that the app still answers is sent."""
        self._is_taken = True
        self._forget()
        return self._transport

    def _serve(self) -> None:
        """Gives the app the next requests; the rest wait for an answer, or for the caller to read."""
        while self._due and not self._is_busy and not self._is_full and not self._transport.is_closing():
            request, refusal, is_kept = self._due.popleft()
            answer = self._app(request) if refusal is None else self._app.refuse(request, refusal)
            if isinstance(answer, Response):
                self._send(request, answer, is_kept=is_kept)
            else:
                self._is_busy = True
                task = self._loop.create_task(self._send_later(request, answer, is_kept=is_kept))
                self._open.tasks.add(task)
                task.add_done_callback(self._open.tasks.discard)
        if bool(self._due) != self._is_held:
            self._hold()
        self._wait_on()

    def _hold(self) -> None:
        """Stops reading from a caller that sends more before its answer was sent; resumes when called again."""
        if not self._transport.is_closing():
            self._is_held = not self._is_held
            if self._is_held:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _wait_on(self) -> None:
        if self._is_taken or self._transport.is_closing():
            return
        if self._is_full and not self._is_busy:
            self._go_on_waiting_for(_Wait.READ, KEEP_ALIVE_S)
        elif self._is_busy or self._due:
            self._wait_for(_Wait.ANSWER, math.inf)
        elif self._reading is not None:
            wait = _Wait.DRAINED if self._drained_bytes else _Wait.BODY
            self._go_on_waiting_for(wait, DRAIN_TIME_S if self._drained_bytes else self._app.limits.time_s)
        elif self._head_arrived:
            self._go_on_waiting_for(_Wait.HEAD, HEAD_TIME_S)
        else:
            self._wait_for(_Wait.NEXT, KEEP_ALIVE_S)

    def _go_on_waiting_for(self, wait: _Wait, time_s: float) -> None:
        """Waits for the same thing on: a further piece of it does not extend its time."""
        if self._wait is not wait:
            self._wait_for(wait, time_s)

    async def _send_later(self, request: Request, answer: Awaitable[Response], *, is_kept: bool) -> None:
        response = await answer
        self._is_busy = False
        if not self._transport.is_closing():
            self._send(request, response, is_kept=is_kept)
            self._serve()

    def _send(self, request: Request, response: Response, *, is_kept: bool) -> None:
        """Sends a head and its body by one call to the kernel, and in one record of TLS."""
        if self._is_taken:
            if response.status != HTTPStatus.SWITCHING_PROTOCOLS:
                self._transport.close()  # it was taken, and then something broke
            return
        is_last = not is_kept or response.is_last or self._is_ending
        head = _head_of(response, is_last=is_last)
        if request.method == "HEAD":
            self._transport.write(head)
        elif len(response.data) <= _JOINED_BYTES:
            self._transport.write(head + response.data)
        else:
            self._transport.writelines((head, response.data))
        if is_last:
            self._close()

    def _close(self) -> None:
        """Closes once the caller has read what was sent; for that alone the transport would wait for ever."""
        self._transport.close()
        self._wait_for(_Wait.READ, KEEP_ALIVE_S)

    def _wait_for(self, wait: _Wait, time_s: float) -> None:
        """Uses one timer, which may fire early and is then extended, rather than one for every request."""
        self._wait = wait
        self._deadline_s = self._loop.time() + time_s
        if self._timer is None or self._deadline_s < self._timer_s:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deadline_s != math.inf:
            self._timer_s = self._deadline_s
            self._timer = self._loop.call_at(self._timer_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._loop.time() < self._deadline_s:
            self._set_timer()
            return
        match self._wait:
            case _Wait.FIRST | _Wait.HEAD:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, _TOO_SLOW)
            case _Wait.BODY if self._reading is not None:
                text = f"the body did not arrive within {self._app.limits.time_s:.0f} s"
                answer = answer_refusal(HttpRefusal(HTTPStatus.REQUEST_TIMEOUT, text))
                request, self._reading = self._reading, None
                self._send(request, self._app.refuse(request, answer), is_kept=False)
            case _ if self._is_full or self._transport.is_closing():
                self._transport.abort()  # what the caller did not read so far would keep it open
            case _:
                self._close()

    def _forget(self) -> None:
        """Nothing comes here any more; parser and connection would keep each other."""
        del self._parser
        self._open.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse_head(self, error: httptools.HttpParserError) -> None:
        """``error`` is the parser's own, or what it made of what was raised through it."""
        if isinstance(error.__context__, HttpRefusal):
            self._refuse(error.__context__.status, str(error.__context__))
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "this is not an HTTP/1.1 request")

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        """Answers, unless the answer could be taken for that of an earlier request, and closes.

        An answer that is under way goes out before that: its caller would not know what was done.
        """
        if self._transport.is_closing():
            return
        if not self._is_busy and not self._due and not self._drained_bytes:
            request_id = secrets.token_hex(8)
            response = Response(status, encode_problem(status, text))
            response.set_header(REQUEST_ID_HEADER, request_id)
            self._transport.write(_head_of(response, is_last=True) + response.data)
            address = self._ends.peer[0] if self._ends.peer else None
            fields = {"request_id": request_id, "status": status.value, "address": address, "why": text}
            log.info("refused a connection: %s", text, extra={"fields": fields})
        self._reading = None
        if self._is_busy:
            self._is_ending = True
        else:
            self._close()


_TOO_LARGE: Final = f"the request line and headers are larger than {MAX_HEAD_BYTES} bytes"
_TOO_MANY_LARGE: Final = "nothing was done, because too many large requests come at once: try again"
_TOO_MANY: Final = f"nothing was done, because {MOST_WAITING} requests before this one came at once: wait for answers"
_NOT_ONE_HOST: Final = "expected the header Host, once"  # RFC 9112, 3.2
_CODED: Final = "expected no Transfer-Encoding other than chunked"
_TOO_SLOW: Final = f"the request's headers did not arrive within {HEAD_TIME_S:.0f} s"


def _new_parser(connection: Connection) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(connection)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # else pipelining breaks behind Connection: close
    return parser


def _is_chunked(coding: bytes) -> bool:
    """Whether ``coding`` is chunked alone: we would take any other, below chunked, for the body itself."""
    return coding.strip().lower() == b"chunked"


def _head_of(response: Response, *, is_last: bool) -> bytes:
    close = b"connection: close\r\n" if is_last else b""
    if response.status in _BODILESS:
        return b"%b%b%b\r\n" % (_STATUS_LINES[response.status], response.head, close)
    return b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n" % (
        _STATUS_LINES[response.status],
        response.content_type.encode(),
        len(response.data),
        response.head,
        close,
    )


def _end(address: object) -> End | None:
    """One end of a connection; None for a unix socket's."""
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None
