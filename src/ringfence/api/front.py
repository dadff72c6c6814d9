"""The outermost frame of an app: gives every request an id, logs one line, and never breaks.

Input: any app. Output: an app that answers an unexpected exception with 500 and no detail. It knows no routes, no keys
and no policy.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from itertools import count
from typing import Final

from ringfence.api.answers import answer_unexpected
from ringfence.api.exchange import REQUEST_ID_HEADER, Answering, BodyLimits, HttpApp, Request, Response

_SHOWN_TARGET: Final = 256
_PROCESS: Final = secrets.token_hex(4)  # a request's id is this and its number, so that no two servers' are the same
_NUMBERS: Final = count()

log = logging.getLogger("ringfence.api")


@dataclass(frozen=True, slots=True)
class Front:
    """``app``, framed; it takes bodies within ``limits``."""

    app: HttpApp
    limits: BodyLimits = field(default_factory=BodyLimits)

    def __call__(self, request: Request) -> Answering:
        began_s = _begin(request)
        try:
            answer = self.app(request)
        except Exception:  # noqa: BLE001  the outermost frame
            answer = _broken(request)
        if isinstance(answer, Response):
            return _end(request, answer, began_s)
        return _await(request, answer, began_s)

    def refuse(self, request: Request, answer: Response) -> Response:
        return _end(request, answer, _begin(request))


def log_line(request: Request, status: int, took_s: float) -> None:
    """One line for a request; status 0 when it was not answered."""
    if not log.isEnabledFor(logging.INFO):
        return
    target = request.target.decode("latin-1")[:_SHOWN_TARGET]
    fields: dict[str, object] = {
        "request_id": request.request_id,
        "method": request.method,
        "path": target,
        "status": status,
        "ms": round(took_s * 1000, 1),
        "caller": request.caller,
        "address": request.address,
    }
    if request.why:
        fields["why"] = request.why
    log.handle(_Line(f"{request.method} {target} {status}", fields))


def _begin(request: Request) -> float:
    request.request_id = f"{_PROCESS}{next(_NUMBERS):08x}"
    return time.monotonic()


async def _await(request: Request, answer: Awaitable[Response], began_s: float) -> Response:
    try:
        response = await answer
    except Exception:  # noqa: BLE001  the outermost frame
        response = _broken(request)
    except BaseException:
        log_line(request, 0, time.monotonic() - began_s)  # the server ends before it could answer
        raise
    return _end(request, response, began_s)


def _broken(request: Request) -> Response:
    """Called where an exception is handled."""
    log.exception("request %s broke", request.request_id, extra={"request_id": request.request_id})  # noqa: LOG004
    return answer_unexpected()


def _end(request: Request, response: Response, began_s: float) -> Response:
    response.head += b"%b: %b\r\n%b" % (_ID_NAME, request.request_id.encode(), _date_line(int(time.time())))
    took_s = time.monotonic() - began_s
    asyncio.get_running_loop().call_soon(log_line, request, response.status, took_s)  # all lines of a turn in a row
    return response


_ID_NAME: Final = REQUEST_ID_HEADER.encode()


@lru_cache(maxsize=1)
def _date_line(now_s: int) -> bytes:
    """The header ``Date``; the same for all answers of a second."""
    return f"date: {formatdate(now_s, usegmt=True)}\r\n".encode()


class _Line(logging.LogRecord):
    """The record of one request, made often: by copying one, not by looking for what no line shows (caller, thread)."""

    def __init__(self, text: str, fields: dict[str, object]) -> None:
        made = self.__dict__ = _ALIKE.copy()
        made["msg"], made["created"], made["fields"] = text, time.time(), fields


_ALIKE: Final = vars(logging.LogRecord(log.name, logging.INFO, __file__, 0, "", (), None))
