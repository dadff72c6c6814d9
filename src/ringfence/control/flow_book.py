"""What hosts told of refused packets and allowed connections: the newest of each host, in memory only.

Input: hosts' reports, which are hosts' words: an instance that is not theirs is not believed. Output: numbered records,
so that whoever follows them can say from where on. A restart of the server forgets them; each host's own file has more.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

import msgspec

from ringfence.policy.model import Snapshot
from ringfence.policy.values import HostName
from ringfence.wire.flows import FlowRecord, FlowReport

MOST_KEPT: Final = 1000  # of each host, refused and allowed each: what is allowed pushes out nothing refused


@dataclass(frozen=True, slots=True)
class Kept:
    """``number`` counts the records of all hosts since the server began. ``untold`` came before it and was not sent."""

    number: int
    host: HostName
    record: FlowRecord
    untold: int = 0


class FlowBook:
    """Lives in the event loop's thread."""

    def __init__(self) -> None:
        self._refused: dict[HostName, deque[Kept]] = {}
        self._allowed: dict[HostName, deque[Kept]] = {}
        self._untold: dict[HostName, int] = {}
        self._last = 0

    def add(self, host: HostName, report: FlowReport, snapshot: Snapshot) -> None:
        self._untold[host] = self._untold.get(host, 0) + report.untold
        for record in report.records:
            self._last += 1
            book = self._allowed if record.is_allowed else self._refused
            kept = book.setdefault(host, deque(maxlen=MOST_KEPT))
            kept.append(Kept(self._last, host, _believed(record, host, snapshot), self._untold.pop(host, 0)))

    def forget(self, host: HostName) -> None:
        """The host was removed."""
        self._refused.pop(host, None)
        self._allowed.pop(host, None)
        self._untold.pop(host, None)

    def after(self, number: int, host: HostName | None = None, *, allowed: bool = False) -> list[Kept]:
        """The refused packets after that number, and with ``allowed`` connections too, oldest first. O(kept)."""
        books = [self._refused, self._allowed] if allowed else [self._refused]
        kept = (one for book in books for name, held in book.items() if host in (None, name) for one in held)
        return sorted((one for one in kept if one.number > number), key=lambda one: one.number)

    def connections(self, host: HostName) -> list[FlowRecord]:
        """The connections that a host told of, oldest first; none of a host that tells of none."""
        return [one.record for one in self._allowed.get(host, ())]


def _believed(record: FlowRecord, host: HostName, snapshot: Snapshot) -> FlowRecord:
    instance = snapshot.instances.get(record.instance_id) if record.instance_id else None
    is_its_own = instance is not None and instance.host == host
    return record if is_its_own else msgspec.structs.replace(record, instance=None, peer_groups=())
