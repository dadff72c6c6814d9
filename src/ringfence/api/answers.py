"""The one table from ringfence's errors to HTTP answers, and the answers themselves.

Input: an error. Output: status and JSON body. It knows no routes.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from ringfence.api.exchange import Response
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


class HttpRefusal(Exception):
    """A refusal at the level of HTTP, for which ringfence has no error class. ``header``: one to add to the answer."""

    def __init__(self, status: HTTPStatus, text: str, header: tuple[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.header = header


def answer_error(error: RingfenceError) -> Response:
    """The answer for an error. The message of one that the operator must mend is only in the log."""
    status = next(STATUS[ancestor] for ancestor in type(error).__mro__ if ancestor in STATUS)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        return answer_unexpected()
    field = error.field if isinstance(error, CallerError) else None
    response = Response(status, encode_problem(status, str(error), field))
    if isinstance(error, TooMany):
        response.set_header("retry-after", str(error.retry_after_s))
    return response


def answer_unexpected() -> Response:
    """The answer for an unexpected exception. It reveals nothing; the log has the details under the request's id."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    text = "the server could not do this and applied nothing; its log says why, under this answer's request id"
    return Response(status, encode_problem(status, text))


def answer_refusal(refusal: HttpRefusal) -> Response:
    response = Response(refusal.status, encode_problem(refusal.status, str(refusal)))
    if refusal.header is not None:
        response.set_header(*refusal.header)
    return response
