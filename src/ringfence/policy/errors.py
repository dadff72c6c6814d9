"""All errors that ringfence raises on purpose, in three families by who can mend them.

The caller mends a ``CallerError`` (another request), time or another change mends a ``StateError``, and the operator
of a host mends an ``OperatorError``. ``api/answers.py`` holds the one table that maps them to HTTP answers.
"""

import re
from typing import Final

_NUMBER: Final = re.compile(r"\[Errno -?\d+\] ")  # before the system's words


class RingfenceError(Exception):
    """Base of every error that ringfence raises on purpose; ``str(error)`` is a sentence for whoever reads it."""


class CallerError(RingfenceError):
    """The request itself is at fault; sending it again unchanged fails again.

    ``field`` is the path of the offending part, e.g. ``$.icmp.type``, or None when the whole request is meant.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message if field is None else f"{field}: {message}")
        self.field = field


class Invalid(CallerError):
    """A value is of the wrong type, out of range or against the rules of the API."""


class NotFound(CallerError):
    """The thing that the request names does not exist, or not for this caller."""


class NotOffered(CallerError):
    """A part of the Exoscale API, or a setting, that this server does not offer."""


class Denied(CallerError):
    """The request is not signed, its signature is wrong, or this key or host may not make it."""


class Stranger(Denied):
    """This server does not know the host that asks: it was never added, was removed, or has another key."""


class TooLarge(CallerError):
    """The request's body is larger than the limit."""


class TooMany(CallerError):
    """The caller asks more often than it may; after ``retry_after_s`` it may again."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StateError(RingfenceError):
    """The request is well formed but the present state refuses it; another state may accept it."""


class Conflict(StateError):
    """The request contradicts what exists, e.g. a taken name or a group in use; the text names what is in the way."""


class Busy(StateError):
    """Nothing was applied and the same request may succeed later."""


class QuotaReached(StateError):
    """The organisation has reached one of its quotas; the text names the quota and its value."""


class OperatorError(RingfenceError):
    """A host, a file or the kernel refused: ``step`` says what was tried, ``reason`` why it failed."""

    def __init__(self, step: str, reason: str, *, host: str | None = None) -> None:
        super().__init__(f"{step}: {reason}" if host is None else f"{host}: {step}: {reason}")
        self.step = step
        self.reason = reason
        self.host = host


def without_number(text: str) -> str:
    """What an error of the operating system says, without the numbers that only its manual explains."""
    return _NUMBER.sub("", text)
