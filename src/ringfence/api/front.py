"""The outermost frame of an app: gives every request an id, reads its body within limits, logs one line, never breaks.

Input: any ASGI app. Output: an ASGI app that answers an unexpected exception with 500 and no detail. It knows no
routes, no keys and no policy.
"""

import asyncio
import logging
import math
import secrets
import time
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from itertools import count
from typing import Final

from ringfence.api.answers import Answer, answer_error, answer_status, answer_unexpected
from ringfence.api.exchange import (
    REQUEST_ID_HEADER,
    WHOLE,
    Asgi,
    Exchange,
    Message,
    Receive,
    Scope,
    Send,
    open_exchange,
)
from ringfence.policy.errors import TooLarge

_SHOWN_TARGET: Final = 256
_PROCESS: Final = secrets.token_hex(4)  # a request's id is this and its number, so that no two servers' are the same
_NUMBERS: Final = count()

log = logging.getLogger("ringfence.api")


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """At most ``size_bytes``, all of it within ``time_s`` of the headers."""

    size_bytes: int = 2**20
    time_s: float = 30.0


class _Gone(Exception):
    """The caller left before the request was whole: there is nobody to answer, and nothing may be done."""


class _TooSlow(Exception):
    """The body did not come in time."""


def front(app: Asgi, limits: BodyLimits = BodyLimits()) -> Asgi:
    """``app``, framed."""

    async def framed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        exchange = open_exchange(scope, receive, f"{_PROCESS}{next(_NUMBERS):08x}")
        started = time.monotonic()
        try:
            await _answer(app, scope, exchange, limits, _marked(send, exchange))
        finally:
            _log_line(exchange, time.monotonic() - started)

    return framed


async def _answer(app: Asgi, scope: Scope, exchange: Exchange, limits: BodyLimits, send: Send) -> None:
    try:
        if announced := _announced_size(scope):
            exchange.body = await _read_body(announced, exchange.receive, limits, is_here=WHOLE in scope)
        await app(scope, _replay(exchange), send)
    except TooLarge as error:
        await _send(send, answer_error(error))
    except _Gone:
        exchange.why = "the caller left before the body was whole"
    except _TooSlow:
        text = f"the body did not arrive within {limits.time_s:.0f} s"
        await _send(send, answer_status(HTTPStatus.REQUEST_TIMEOUT, text), close=True)
    except Exception:
        log.exception("request %s broke", exchange.request_id, extra={"request_id": exchange.request_id})
        if exchange.status:
            raise  # half an answer is out: only cutting the connection tells the caller that it is not whole
        await _send(send, answer_unexpected())


async def _read_body(announced: float, receive: Receive, limits: BodyLimits, *, is_here: bool) -> bytes:
    """The whole body; refused as soon as it is announced, or turns out, to be too large."""
    if announced is not math.inf:
        _check_size(announced, limits)
    if is_here:  # most are, and a time limit costs more than all of the reading
        return await _join_parts(receive, limits)
    try:
        async with asyncio.timeout(limits.time_s):
            return await _join_parts(receive, limits)
    except TimeoutError as error:
        raise _TooSlow from error


async def _join_parts(receive: Receive, limits: BodyLimits) -> bytes:
    parts = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        parts += message.get("body", b"")
        _check_size(len(parts), limits)
        if not message.get("more_body", False):
            return bytes(parts)


def _announced_size(scope: Scope) -> float:
    """Infinite for a body that tells its own end. One that is not announced is none (RFC 9112, 6.3)."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
        if name == b"transfer-encoding":
            return math.inf
    return 0


def _check_size(size_bytes: float, limits: BodyLimits) -> None:
    if size_bytes > limits.size_bytes:
        raise TooLarge(f"expected a body of at most {limits.size_bytes} bytes")


def _replay(exchange: Exchange) -> Receive:
    """A channel that gives the body in one piece, then whatever comes after it."""
    first: list[Message] = [{"type": "http.request", "body": exchange.body, "more_body": False}]

    async def receive() -> Message:
        return first.pop() if first else await exchange.receive()

    return receive


def _marked(send: Send, exchange: Exchange) -> Send:
    """``send`` that notes the status and adds the request's id and the date to the answer."""
    request_id = (REQUEST_ID_HEADER, exchange.request_id.encode())

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
            message["headers"] = [*message.get("headers", ()), request_id, (b"date", _date(int(time.time())))]
        await send(message)

    return marked


@lru_cache(maxsize=1)
def _date(now_s: int) -> bytes:
    """Of the ``Date`` header; the same for all answers of a second."""
    return formatdate(now_s, usegmt=True).encode()


async def _send(send: Send, answer: Answer, *, close: bool = False) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer.body)).encode())]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status.value, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


class _Line(logging.LogRecord):
    """The record of one request, made often: by copying one, not by looking for what no line shows (caller, thread)."""

    def __init__(self, text: str, fields: dict[str, object]) -> None:
        self.__dict__ = {**_ALIKE, "msg": text, "created": time.time(), "fields": fields}


_ALIKE: Final = vars(logging.LogRecord(log.name, logging.INFO, __file__, 0, "", (), None))


def _log_line(exchange: Exchange, took_s: float) -> None:
    if not log.isEnabledFor(logging.INFO):
        return
    target = exchange.target.decode("latin-1")[:_SHOWN_TARGET]
    fields: dict[str, object] = {
        "request_id": exchange.request_id,
        "method": exchange.method,
        "path": target,
        "status": exchange.status,
        "ms": round(took_s * 1000, 1),
        "caller": exchange.caller,
        "address": exchange.address,
    }
    if exchange.why:
        fields["why"] = exchange.why
    log.handle(_Line(f"{exchange.method} {target} {exchange.status}", fields))
