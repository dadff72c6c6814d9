"""PURE: the body of every error answer, readable by all official clients.

Input: a status and a sentence. Output: JSON bytes. egoscale and Terraform print ``message``; the rest is RFC 9457.
"""

from http import HTTPStatus
from typing import Final

import msgspec

MEDIA_TYPE: Final = "application/json"


class _Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    message: str
    type: str
    title: str
    status: int
    detail: str
    field: str | None = None


def encode_problem(status: HTTPStatus, message: str, field: str | None = None) -> bytes:
    """The body of an error answer; ``field`` is the path of the offending part of the request, if there is one."""
    return msgspec.json.encode(
        _Problem(message, f"urn:ringfence:error:{_slug(status)}", status.phrase, status.value, message, field)
    )


def _slug(status: HTTPStatus) -> str:
    return status.name.lower().replace("_", "-")
