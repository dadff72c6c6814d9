"""PURE: a host's report of its rules' counters: totals, so that a report that arrives twice counts once.

Encodes and decodes it. The size of a report is bounded, whoever sends it.
"""

from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Annotated, Final
from uuid import UUID

import msgspec

from ringfence.policy.values import RuleId
from ringfence.wire.formats import FORMAT, Lenient, decode_formatted

MOST_COUNTS: Final = 1000  # in one message

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Time = Annotated[float, msgspec.Meta(ge=0, le=2**37)]


@dataclass(frozen=True, slots=True)
class RuleCount:
    """``judged``: packets that were judged and allowed by the rule, since ``since``. Times are seconds since 1970.

    ``last_hit``: when the agent saw the number grow, late by ten seconds at most; None: never. ``connections``: how
    many the rule let begin; ``packets`` and ``octets``: of those that have ended; None where nobody counts them.
    """

    rule: RuleId
    judged: int
    last_hit: float | None
    since: float
    connections: int | None = None
    packets: int | None = None
    octets: int | None = None


FIELDS_OF: Final = attrgetter(*(field.name for field in fields(RuleCount)))  # dataclasses.astuple copies each of them


class _CountShape(Lenient, frozen=True, array_like=True):
    rule: UUID
    judged: _Count
    last_hit: _Time | None
    since: _Time
    connections: _Count | None
    packets: _Count | None
    octets: _Count | None


class _ReportShape(Lenient, frozen=True):
    format: int
    counts: Annotated[tuple[_CountShape, ...], msgspec.Meta(max_length=MOST_COUNTS)]


def encode_counts(counts: tuple[RuleCount, ...]) -> bytes:
    """The body of ``POST /agent/v1/counters``: for each rule what ``RuleCount`` has, in that order."""
    shapes = tuple(_CountShape(*FIELDS_OF(one)) for one in counts)
    return msgspec.json.encode(_ReportShape(FORMAT, shapes))


def decode_counts(body: bytes) -> tuple[RuleCount, ...]:
    shape = decode_formatted(body, _ReportShape, writer="agent")
    return tuple(RuleCount(RuleId(one.rule), *msgspec.structs.astuple(one)[1:]) for one in shape.counts)
