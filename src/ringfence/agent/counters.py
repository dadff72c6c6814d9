"""What each rule has allowed, over recompiles, restarts and tables made anew: the kernel's counters, added up.

Input: the kernel's counters, read every ten seconds, and the connections that ``allowed`` hears of, if it does. Output:
totals, kept in the agent's folder and told to the server. A counter that is smaller than it was is a new one: what it
counts is added to what was known.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from ringfence.agent.client import Server
from ringfence.agent.doors.files import FilesDoor
from ringfence.policy.program.names import parse_rule_counter, rule_counter
from ringfence.policy.values import RuleId
from ringfence.wire.counters import MOST_COUNTS, RuleCount

READ_S: Final = 10.0
SAVE_S: Final = 60.0
FILE: Final = "counters.json"
_FORMAT: Final = 3


class _Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, gc=False):
    """A ``RuleCount`` but for the rule, which its counter's name tells; kept by the ten thousand, and so in the file.

    ``seen``: what the kernel's counter said when it was read last.
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
    """Connections that began by a rule, and of those that ended packets and octets in both directions, if counted."""

    connections: int = 0
    packets: int | None = None
    octets: int | None = None


class _KeptShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    rules: dict[str, _Known]  # by the counter's name


class RuleCounts:
    """Totals by rule, which are kept until the rule itself is gone."""

    def __init__(self, files: FilesDoor, folder: Path) -> None:
        self._files = files
        self._file = folder / FILE
        self._known: dict[str, _Known] = {}  # by the counter's name, so that no id need be read ten thousand times
        self._untold: set[str] = set()
        self._saved: Mapping[str, _Known] | None = None

    def load(self) -> None:
        """Go on from what was saved; from nothing when that is absent or damaged. Raises ``OperatorError``."""
        try:
            kept = msgspec.json.decode(self._files.read(self._file) or b"", type=_KeptShape)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if kept.format == _FORMAT:
            self._known = {name: one for name, one in kept.rules.items() if parse_rule_counter(name)}
        self.tell_all()

    def save(self) -> None:
        """Keep the totals, if they are others than those kept. Raises ``OperatorError``."""
        known = self._known
        if self._saved == known:
            return
        self._files.replace(self._file, msgspec.json.encode(_KeptShape(_FORMAT, known)))
        self._saved = known

    def update(self, hits: Mapping[str, int], now: float) -> None:
        """Take note of what the kernel's counters say at ``now``. O(counters)."""
        changed: dict[str, _Known] = {}
        for name, packets in hits.items():
            before = self._known.get(name)
            if before is not None:
                if before.seen != packets:
                    changed[name] = _added(before, packets, now)
            elif parse_rule_counter(name) is not None:
                changed[name] = _added(_begun(now), packets, now)
        if changed:
            self._known = self._known | changed
            self._untold |= changed.keys()

    def add(self, gains: Mapping[RuleId, Gain], now: float) -> None:
        """Take note of connections since the last call. O(counters), if there are any."""
        changed: dict[str, _Known] = {}
        for rule, gain in gains.items():
            name = rule_counter(rule)
            changed[name] = _grown(self._known.get(name) or _begun(now), gain, now)
        if changed:
            self._known = self._known | changed
            self._untold |= changed.keys()

    def keep_only(self, rules: Iterable[RuleId]) -> None:
        """Forget the rules that are no more: not those whose counters are gone for a moment with their table."""
        kept = {rule_counter(rule) for rule in rules}
        self._known = {name: one for name, one in self._known.items() if name in kept}
        self._untold &= kept

    def tell_all(self) -> None:
        """The server knows nothing any more."""
        self._untold = set(self._known)

    async def send(self, server: Server) -> None:
        """What changed since it was told, in bounded reports. Raises ``OperatorError``; what was not told stays so."""
        while self._untold:
            some = {name: self._known[name] for name in islice(self._untold, MOST_COUNTS)}
            rules = ((parse_rule_counter(name), known) for name, known in some.items())
            counts = (RuleCount(rule, *msgspec.structs.astuple(known)[1:]) for rule, known in rules if rule)
            await server.counters(tuple(counts))
            # What grew meanwhile is told again.
            self._untold.difference_update(name for name, told in some.items() if self._known.get(name, told) == told)
        self._untold = set()  # an emptied one keeps room for all that was in it


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
