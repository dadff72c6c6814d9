"""The outermost frame of an app: gives every request an id, logs one line, and never breaks.

Input: any app. Output: an app that answers an unexpected exception with 500 and no detail. It knows no routes, no keys
and no policy.
"""

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
from ringfence.api.request_lines import RequestLines

_PROCESS: Final = secrets.token_hex(4)  # a request's id is this and its number, so that no two servers' are the same
_NUMBERS: Final = count()

log = logging.getLogger("ringfence.api")


@dataclass(frozen=True, slots=True)
class Front:
    """``app``, framed; it takes bodies within ``limits``."""

    app: HttpApp
    limits: BodyLimits = field(default_factory=BodyLimits)
    _lines: RequestLines = field(default_factory=RequestLines)

    def __call__(self, request: Request) -> Answering:
        began_s = _begin(request)
        try:
            answer = self.app(request)
        except Exception:  # noqa: BLE001  the outermost frame
            answer = _broken(request)
        if isinstance(answer, Response):
            return self._end(request, answer, began_s)
        return self._await(request, answer, began_s)

    def refuse(self, request: Request, answer: Response) -> Response:
        return self._end(request, answer, _begin(request))

    def give_up(self, request: Request) -> None:
        self._lines.write_unanswered(request, 0.0)

    def end(self) -> None:
        self._lines.write()

    async def _await(self, request: Request, answer: Awaitable[Response], began_s: float) -> Response:
        try:
            response = await answer
        except Exception:  # noqa: BLE001  the outermost frame
            response = _broken(request)
        except BaseException:
            self._lines.write_unanswered(request, time.monotonic() - began_s)  # the server ends
            raise
        return self._end(request, response, began_s)

    def _end(self, request: Request, response: Response, began_s: float) -> Response:
        now_s = time.time()
        response.head += b"%b: %b\r\n%b" % (_ID_NAME, request.request_id.encode(), _date_line(int(now_s)))
        self._lines.note(request, response.status, now_s, time.monotonic() - began_s)
        return response


def _begin(request: Request) -> float:
    request.request_id = f"{_PROCESS}{next(_NUMBERS):08x}"
    return time.monotonic()


def _broken(request: Request) -> Response:
    """Called where an exception is handled."""
    log.exception("request %s broke", request.request_id, extra={"request_id": request.request_id})  # noqa: LOG004
    return answer_unexpected()


_ID_NAME: Final = REQUEST_ID_HEADER.encode()


@lru_cache(maxsize=1)
def _date_line(now_s: int) -> bytes:
    """The header ``Date``; the same for all answers of a second."""
    return f"date: {formatdate(now_s, usegmt=True)}\r\n".encode()
