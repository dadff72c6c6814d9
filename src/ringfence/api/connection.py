"""One connection: uvicorn's httptools protocol, with the limits it lacks and without its h2c trap.

- A request head is at most ``MAX_HEAD_BYTES`` and complete ``HEAD_TIME_S`` after its first byte.
- ``Upgrade`` is left to the app, which may take the connection over, or answer as if nothing had been asked, as HTTP
  allows: the Java SDK sends ``Upgrade: h2c`` with every request, and httptools takes whatever follows such a head, the
  body included, for another protocol.
- What the parser refuses is answered in JSON.

Input: bytes of one connection. Output: ASGI calls. It knows no app.
"""

import asyncio
import logging
import secrets
from http import HTTPStatus
from typing import Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ringfence.api.exchange import PROTOCOL, REQUEST_ID_HEADER, UPGRADE, WHOLE, Upgrade
from ringfence.api.joined_writes import JoinedWrites
from ringfence.wire.answers import MEDIA_TYPE, encode_problem

MAX_HEAD_BYTES: Final = 32 * 1024
HEAD_TIME_S: Final = 10.0
MAX_DRAINED_BYTES: Final = 16 * 2**20  # of a body that was refused already: read on, so that the caller sees the answer
DRAIN_TIME_S: Final = 30.0
_VERSIONS: Final = frozenset({"1.0", "1.1"})
_UPGRADE_HEADERS: Final = frozenset({b"connection", b"upgrade", b"http2-settings"})


log = logging.getLogger("ringfence.api")


class _HeadTooLarge(Exception):
    """Raised through the parser, which turns it into its own error."""


class Connection(HttpToolsProtocol):
    """Created by the server for every connection; uvicorn's own class keeps the rest of the state."""

    transport: JoinedWrites
    patience: asyncio.TimerHandle | None = None  # ends the connection when its caller dawdles
    head_bytes: int = 0
    in_head: bool = True
    drained_bytes: int = 0
    wanted_protocol: bytes | None = None  # of the request whose head is read once more without its upgrade

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self.transport = JoinedWrites(transport, self.loop)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_patience()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self.head_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self._refuse_head(error)
            return
        if self.in_head and self.head_bytes > MAX_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LARGE)
        elif self.in_head and self.head_bytes and self.patience is None:
            self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.in_head = True
        self.drained_bytes = 0

    def on_headers_complete(self) -> None:
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES:
            raise _HeadTooLarge
        if self.parser.get_http_version() not in _VERSIONS:
            raise httptools.HttpParserError  # HTTP/0.9 and the like, which the parser takes and Falcon does not
        self.in_head = False
        self.head_bytes = 0
        self._forget_patience()
        if not self.parser.should_upgrade():
            wanted, self.wanted_protocol = self.wanted_protocol, None
            if wanted is not None:
                asked = Upgrade(wanted.decode("latin-1").lower(), self._hand_over)
                self.scope["extensions"] = {UPGRADE: {PROTOCOL: asked}}
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete:
            self._drain(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.in_head = True
        self.head_bytes = 0
        self._forget_patience()
        self.scope[WHOLE] = True  # type: ignore[typeddict-unknown-key]  # ours
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.parser.get_method() == b"CONNECT":  # never anything but an upgrade; this is no proxy
                raise httptools.HttpParserInvalidMethodError from upgrade
            rest = data[upgrade.args[0] :]
            self.wanted_protocol = next((value for name, value in self.headers if name == b"upgrade"), None)
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn: else pipelining breaks
            self._feed(head + rest)

    def _head_without_upgrade(self) -> bytes:
        """The head that was just parsed, once more, as a request that asks for no other protocol."""
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        lines += [name + b": " + value for name, value in self.headers if name not in _UPGRADE_HEADERS]
        return b"\r\n".join((*lines, b"", b""))

    def _hand_over(self) -> asyncio.Transport:
        """The connection is another protocol's from here on: nothing that the app still answers is sent."""
        self._forget_patience()
        self._unset_keepalive_if_required()
        self.cycle.disconnected = True
        self.connections.discard(self)
        self.transport.flush()
        return self.transport.whole

    def _may_answer(self) -> bool:
        """Whether an answer now would be taken for that of the request at fault, not of one before it."""
        cycle = self.cycle
        return cycle is None or cycle.response_complete or (cycle.more_body and not cycle.response_started)

    def _drain(self, size_bytes: int) -> None:
        """Counts what arrives of a body that was answered already."""
        self.drained_bytes += size_bytes
        if self.drained_bytes > MAX_DRAINED_BYTES:
            self.transport.close()
        elif self.patience is None:
            self.patience = self.loop.call_later(DRAIN_TIME_S, self.transport.close)

    def _await_head(self) -> None:
        self.patience = self.loop.call_later(HEAD_TIME_S, self._refuse, HTTPStatus.REQUEST_TIMEOUT, _TOO_SLOW)

    def _forget_patience(self) -> None:
        if self.patience is not None:
            self.patience.cancel()
            self.patience = None

    def _refuse_head(self, error: httptools.HttpParserError) -> None:
        if isinstance(error.__context__, _HeadTooLarge):
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LARGE)
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "this is not an HTTP/1.1 request")

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        """Answers, unless another answer is under way on this connection, and closes."""
        self._forget_patience()
        if self.transport.is_closing():
            return
        if self._may_answer():
            request_id = secrets.token_hex(8)
            self.transport.write(_render(status, request_id, encode_problem(status, text)))
            address = self.client[0] if self.client else None
            fields = {"request_id": request_id, "status": status.value, "address": address, "why": text}
            log.info("refused a connection: %s", text, extra={"fields": fields})
        self.transport.close()


_TOO_LARGE: Final = f"the request line and headers are larger than {MAX_HEAD_BYTES} bytes"
_TOO_SLOW: Final = f"the request's headers did not arrive within {HEAD_TIME_S:.0f} s"


def _render(status: HTTPStatus, request_id: str, body: bytes) -> bytes:
    headers = (
        f"content-type: {MEDIA_TYPE}",
        f"content-length: {len(body)}",
        f"{REQUEST_ID_HEADER.decode()}: {request_id}",
        "connection: close",
    )
    return STATUS_LINE[status.value] + "\r\n".join(headers).encode() + b"\r\n\r\n" + body
