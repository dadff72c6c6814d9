"""The log lines of requests: noted when they are answered, and formatted and written together some milliseconds later.

Nobody's answer waits for a line, and lines formed in a row cost half of what they would one by one. A process that is
killed takes those with it that it noted last.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ringfence.api.exchange import Request
from ringfence.log import ManyLines, Row

LATE_S: Final = 0.01  # at most, while the event loop keeps its time
_SHOWN_TARGET: Final = 256

log = logging.getLogger("ringfence.api")


class _Noted(NamedTuple):
    request: Request
    status: int
    at_s: float
    took_s: float


@dataclass(frozen=True, slots=True)
class RequestLines:
    """The log lines of one app."""

    _noted: list[_Noted] = field(default_factory=list)

    def note(self, request: Request, status: int, at_s: float, took_s: float) -> None:
        """A request was answered at ``at_s``, in seconds since 1970."""
        self._noted.append(_Noted(request, status, at_s, took_s))
        if len(self._noted) == 1:
            asyncio.get_running_loop().call_later(LATE_S, self.write)

    def write_unanswered(self, request: Request, took_s: float) -> None:
        """Writes the line of a request that gets no answer, with status 0; the event loop may be ending."""
        self._noted.append(_Noted(request, 0, time.time(), took_s))
        self.write()

    def write(self) -> None:
        """Writes what was noted so far."""
        if self._noted and log.isEnabledFor(logging.INFO):
            log.handle(ManyLines(log, [_row(noted) for noted in self._noted]))
        self._noted.clear()


def _row(noted: _Noted) -> Row:
    request, status, at_s, took_s = noted
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
    return at_s, f"{request.method} {target} {status}", fields
