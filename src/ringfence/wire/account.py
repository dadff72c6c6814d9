"""PURE: what the API shows of an organisation itself: its quotas, and the events of its history.

Output: JSON bytes in the shapes of the official openapi.json (list-quotas, get-quota, list-events). Also reads the
period that a caller asks for.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from ringfence.policy.errors import Invalid

DAY_S: Final = 24 * 3600
_HANDLERS: Final = {
    "AddRule": "add-rule-to-security-group",
    "DeleteRule": "delete-rule-from-security-group",
    "AddSource": "add-external-source-to-security-group",
    "RemoveSource": "remove-external-source-from-security-group",
    "Attach": "attach-instance-to-security-group",
    "Detach": "detach-instance-from-security-group",
    "CreateGroup": "create-security-group",
    "DeleteGroup": "delete-security-group",
}
_WORD: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


class _Shape(msgspec.Struct, frozen=True, rename="kebab", omit_defaults=True):
    """An answer: a field at its default is absent."""


class QuotaShape(msgspec.Struct, frozen=True):
    """One limit: ``usage`` and ``limit``, -1 for none, of ``resource``."""

    resource: str
    usage: int
    limit: int


class _Quotas(msgspec.Struct, frozen=True):
    quotas: tuple[QuotaShape, ...]


class _Key(_Shape, frozen=True):
    key: str
    name: str | None = None


class _Event(_Shape, frozen=True):
    timestamp: str
    handler: str
    message: str
    status: int
    zone: str
    request_id: str | None = None
    source_ip: str | None = None
    iam_api_key: _Key | None = None


@dataclass(frozen=True, slots=True)
class EventLine:
    """One change, to be shown as an event. ``key`` is None if the operator or a host made it, as ``actor`` says."""

    at: int  # seconds since the epoch
    actor: str
    key: str | None
    key_name: str | None
    address: str | None
    request_id: str | None
    action: str
    text: str


def encode_quota(quota: QuotaShape) -> bytes:
    return msgspec.json.encode(quota)


def encode_quotas(quotas: Iterable[QuotaShape]) -> bytes:
    return msgspec.json.encode(_Quotas(tuple(quotas)))


def encode_events(lines: Iterable[EventLine], zone: str) -> bytes:
    """The events of ``lines``. All were accepted, so their status is 200."""
    return msgspec.json.encode([_event(line, zone) for line in lines])


def decode_period(arguments: tuple[tuple[str, str], ...], now_s: int) -> tuple[int, int]:
    """``from`` and ``to`` as seconds since the epoch; by default the last day, or the day before ``to``."""
    given: dict[str, str] = {}
    for name, value in arguments:
        if name not in {"from", "to"} or name in given:
            raise Invalid("expected from and to, each at most once", field=f"?{ascii(name)[1:-1][:64]}")
        given[name] = value
    until = _moment(given["to"], "to") if "to" in given else now_s
    since = _moment(given["from"], "from") if "from" in given else until - DAY_S
    if since > until:
        raise Invalid("expected a moment that is not after ?to", field="?from")
    return since, until


def _moment(text: str, name: str) -> int:
    """A date and time of RFC 3339; without an offset it is UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid(
            f"expected a time such as 2026-01-31T00:00:00Z, got {ascii(text)[:64]}", field=f"?{name}"
        ) from error
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def _event(line: EventLine, zone: str) -> _Event:
    time = datetime.fromtimestamp(line.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    by = "" if line.key else f" by {line.actor}"
    return _Event(
        timestamp=time,
        handler=_HANDLERS.get(line.action) or _WORD.sub("-", line.action).lower(),
        message=f"{line.text}{by}",
        status=200,
        zone=zone,
        request_id=line.request_id,
        source_ip=line.address,
        iam_api_key=_Key(line.key, line.key_name) if line.key else None,
    )
