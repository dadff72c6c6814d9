"""The one table from ringfence's errors to HTTP answers, and the answers themselves.

Input: an error of ``policy.errors`` or of Falcon. Output: status and JSON body. It knows no routes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import falcon

from ringfence.policy.errors import (
    Busy,
    CallerError,
    Conflict,
    Denied,
    Invalid,
    NotFound,
    NotOffered,
    OperatorError,
    QuotaReached,
    RingfenceError,
    StateError,
    Stranger,
    TooLarge,
    TooMany,
)
from ringfence.wire.answers import encode_problem

# Looked up along an error's ancestors, so that a subclass needs no row of its own. 5xx says "nothing was applied,
# send it again": egoscale repeats even a POST on it, so nothing else may be answered so.
STATUS: Final[Mapping[type[RingfenceError], HTTPStatus]] = {
    Invalid: HTTPStatus.BAD_REQUEST,
    Denied: HTTPStatus.FORBIDDEN,
    Stranger: HTTPStatus.UNAUTHORIZED,
    NotFound: HTTPStatus.NOT_FOUND,
    NotOffered: HTTPStatus.NOT_FOUND,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    TooMany: HTTPStatus.TOO_MANY_REQUESTS,
    Conflict: HTTPStatus.CONFLICT,
    QuotaReached: HTTPStatus.CONFLICT,
    Busy: HTTPStatus.SERVICE_UNAVAILABLE,
    OperatorError: HTTPStatus.INTERNAL_SERVER_ERROR,
    CallerError: HTTPStatus.BAD_REQUEST,
    StateError: HTTPStatus.CONFLICT,
    RingfenceError: HTTPStatus.INTERNAL_SERVER_ERROR,
}


@dataclass(frozen=True, slots=True)
class Answer:
    status: HTTPStatus
    body: bytes
    retry_after_s: int | None = None  # after which the same request may be sent again


def answer_error(error: RingfenceError) -> Answer:
    """What the caller is told. The words of an error that the operator must mend stay in the log."""
    status = next(STATUS[ancestor] for ancestor in type(error).__mro__ if ancestor in STATUS)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        return answer_unexpected()
    field = error.field if isinstance(error, CallerError) else None
    retry_after_s = error.retry_after_s if isinstance(error, TooMany) else None
    return Answer(status, encode_problem(status, str(error), field), retry_after_s)


def answer_unexpected() -> Answer:
    """Something broke: nothing is revealed, the log line with the request's id says what."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    text = "the server could not do this and applied nothing; its log says why, under this answer's request id"
    return Answer(status, encode_problem(status, text))


def answer_status(status: HTTPStatus, text: str) -> Answer:
    """A refusal that no error stands for: of the HTTP level itself."""
    return Answer(status, encode_problem(status, text))


def answer_http_error(error: falcon.HTTPError, method: str, path: str) -> Answer:
    """What Falcon itself refuses (a wrong method, a bad header), in our shape."""
    status = HTTPStatus(error.status_code)
    shown = ascii(path)[1:-1][:128]
    match status:
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return answer_status(status, f"{method} is not a method of {shown}; the Allow header names those that are")
        case HTTPStatus.NOT_FOUND:
            return answer_status(status, f"there is nothing at {shown}")
        case _:
            return answer_status(status, error.title or status.phrase)
