"""What each rule has allowed, over recompiles, restarts and tables made anew: the kernel's counters, added up.

Input: the kernel's counters, read every ten seconds. Output: totals, kept in the agent's folder and told to the server.
A counter that is smaller than it was is a new one: what it counts is added to what was known.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from ringfence.agent.client import Server
from ringfence.agent.doors.files import FilesDoor
from ringfence.nft import Hits
from ringfence.policy.names import parse_rule_counter
from ringfence.policy.values import RuleId
from ringfence.wire.counters import MOST_COUNTS, RuleCount

READ_S: Final = 10.0
SAVE_S: Final = 60.0
FILE: Final = "counters.json"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class _Known:
    """``seen``: what the kernel's counter said when it was read last."""

    count: RuleCount
    seen: int


class _KeptShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    rules: dict[str, tuple[int, int, float | None, float]]  # judged, seen, last hit, since


class RuleCounts:
    """Totals by rule. A rule that the kernel counts no more is forgotten with the next reading."""

    def __init__(self, files: FilesDoor, folder: Path) -> None:
        self._files = files
        self._file = folder / FILE
        self._known: dict[RuleId, _Known] = {}
        self._untold: set[RuleId] = set()
        self._saved: Mapping[RuleId, _Known] | None = None

    def load(self) -> None:
        """Go on from what was saved; from nothing when that is absent or damaged. Raises ``OperatorError``."""
        try:
            kept = msgspec.json.decode(self._files.read(self._file) or b"", type=_KeptShape)
            known = {RuleId(UUID(rule)): values for rule, values in kept.rules.items()}
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
            return
        self._known = {
            rule: _Known(RuleCount(rule, judged, last_hit, since), seen)
            for rule, (judged, seen, last_hit, since) in known.items()
        }
        self._untold = set(self._known)

    def save(self) -> None:
        """Keep the totals, if they are others than those kept. Raises ``OperatorError``."""
        if self._saved == self._known:
            return
        rules = {
            str(rule): (one.count.judged, one.seen, one.count.last_hit, one.count.since)
            for rule, one in self._known.items()
        }
        self._files.replace(self._file, msgspec.json.encode(_KeptShape(_FORMAT, rules)))
        self._saved = dict(self._known)

    def update(self, hits: Mapping[str, Hits], now: float) -> None:
        """Take note of what the kernel's counters say at ``now``. O(counters)."""
        known: dict[RuleId, _Known] = {}
        for name, hit in hits.items():
            rule = parse_rule_counter(name)
            if rule is not None:
                before = self._known.get(rule)
                known[rule] = after = _added(before or _Known(RuleCount(rule, 0, None, now), 0), hit.packets, now)
                if after is not before:
                    self._untold.add(rule)
        self._known = known
        self._untold &= known.keys()

    def tell_all(self) -> None:
        """The server knows nothing any more."""
        self._untold = set(self._known)

    async def send(self, server: Server) -> None:
        """What changed since it was told, in bounded reports. Raises ``OperatorError``; what was not told stays so."""
        while self._untold:
            some = sorted(self._untold)[:MOST_COUNTS]
            told = tuple(self._known[rule].count for rule in some)
            await server.counters(told)
            for one in told:
                known = self._known.get(one.rule)
                if known is None or known.count == one:  # else it grew meanwhile, and is told again
                    self._untold.discard(one.rule)


def _added(before: _Known, seen: int, now: float) -> _Known:
    grown = seen - before.seen if seen >= before.seen else seen
    if grown == 0:
        return before if seen == before.seen else replace(before, seen=seen)
    count = replace(before.count, judged=before.count.judged + grown, last_hit=round(now, 3))
    return _Known(count, seen)
