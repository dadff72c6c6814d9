"""What each rule has allowed in total, over recompilations, restarts and new tables.

Input: the kernel's counters, read every ten seconds, and the connections of ``allowed``, if that is on. Output: totals,
kept in the agent's folder and sent to the server. A counter that is smaller than before is a new one: its value is
added to the total.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from ringfence.agent.client import Server
from ringfence.agent.doors.files import FilesDoor
from ringfence.policy.errors import OperatorError
from ringfence.policy.program.names import parse_rule_counter, rule_counter
from ringfence.policy.values import RuleId
from ringfence.wire.counters import MOST_COUNTS, RuleCount

READ_S: Final = 10.0
SAVE_S: Final = 60.0
FILE: Final = "counters.json"
_FORMAT: Final = 3


class _Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, gc=False):
    """A ``RuleCount`` without its rule, which the key tells; small, because there are tens of thousands.

    ``seen``: the kernel's counter when it was read last.
    """

    seen: int
    judged: int
    last_hit: float | None
    since: float
    connections: int | None = None
    packets: int | None = None
    octets: int | None = None


@dataclass(slots=True)
class Gain:
    """Connections that a rule allowed to begin, and packets and octets of those that ended, if conntrack counts."""

    connections: int = 0
    packets: int | None = None
    octets: int | None = None


class _KeptShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    rules: dict[str, _Known]  # by the counter's name


class RuleCounts:
    """Totals by rule, kept until the rule is deleted."""

    def __init__(self, files: FilesDoor, folder: Path) -> None:
        self._files = files
        self._file = folder / FILE
        self._known: dict[str, _Known] = {}  # by the counter's name, so that no id need be read ten thousand times
        self._untold: set[str] = set()
        self._saved: Mapping[str, _Known] | None = None

    def load(self) -> None:
        """Continues from what was saved, if there is anything. Raises ``OperatorError``, when that is damaged, too."""
        content = self._files.read(self._file)
        if content is None:
            return
        try:
            kept = msgspec.json.decode(content, type=_KeptShape)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise OperatorError(f"read {self._file}", "damaged, or of another version") from error
        if kept.format != _FORMAT:
            raise OperatorError(f"read {self._file}", "of another version")
        self._known = {name: one for name, one in kept.rules.items() if parse_rule_counter(name)}
        self.tell_all()

    def save(self) -> None:
        """Saves the totals, if they changed since they were saved. Raises ``OperatorError``."""
        known = self._known
        if self._saved == known:
            return
        self._files.replace(self._file, msgspec.json.encode(_KeptShape(_FORMAT, known)))
        self._saved = known

    def update(self, hits: Mapping[str, int], now: float) -> None:
        """Adds what the kernel's counters grew by; ``now`` in seconds since 1970. O(counters)."""
        changed: dict[str, _Known] = {}
        for name, seen in hits.items():
            before = self._known.get(name)
            if before is not None:
                if before.seen != seen:
                    changed[name] = _added(before, seen, now)
            elif parse_rule_counter(name) is not None:
                changed[name] = _added(_begun(now), seen, now)
        if changed:
            self._known = self._known | changed
            self._untold |= changed.keys()

    def add(self, gains: Mapping[RuleId, Gain], now: float) -> None:
        """Adds the connections since the last call. O(counters), if there are any."""
        changed: dict[str, _Known] = {}
        for rule, gain in gains.items():
            name = rule_counter(rule)
            changed[name] = _grown(self._known.get(name) or _begun(now), gain, now)
        if changed:
            self._known = self._known | changed
            self._untold |= changed.keys()

    def keep_only(self, rules: Iterable[RuleId]) -> None:
        """Forgets all other rules. A counter may be missing for a moment, with its table, while its rule exists."""
        kept = {rule_counter(rule) for rule in rules}
        self._known = {name: one for name, one in self._known.items() if name in kept}
        self._untold &= kept

    def tell_all(self) -> None:
        """Sends everything again, as to a server that knows nothing."""
        self._untold = set(self._known)

    async def send(self, server: Server) -> None:
        """Sends what changed, in bounded reports. Raises ``OperatorError``; what was not sent is sent next time."""
        while self._untold:
            some = {name: self._known[name] for name in islice(self._untold, MOST_COUNTS)}
            rules = ((parse_rule_counter(name), known) for name, known in some.items())
            counts = (RuleCount(rule, *msgspec.structs.astuple(known)[1:]) for rule, known in rules if rule)
            await server.counters(tuple(counts))
            # What grew meanwhile is sent again.
            self._untold.difference_update(name for name, told in some.items() if self._known.get(name, told) == told)
        self._untold = set()  # an emptied set keeps its memory


def _begun(now: float) -> _Known:
    return _Known(seen=0, judged=0, last_hit=None, since=now)


def _added(before: _Known, seen: int, now: float) -> _Known:
    grown = seen - before.seen if seen >= before.seen else seen
    if grown == 0:
        return msgspec.structs.replace(before, seen=seen)
    return msgspec.structs.replace(before, seen=seen, judged=before.judged + grown, last_hit=round(now, 3))


def _grown(known: _Known, gain: Gain, now: float) -> _Known:
    return msgspec.structs.replace(
        known,
        last_hit=round(now, 3) if gain.connections else known.last_hit,
        connections=_sum(known.connections, gain.connections),
        packets=_sum(known.packets, gain.packets),
        octets=_sum(known.octets, gain.octets),
    )


def _sum(known: int | None, more: int | None) -> int | None:
    return known if more is None else (known or 0) + more
