"""The refused packets and allowed connections that hosts reported: the newest of each host, in memory only.

A host is not believed about instances of other hosts. Records are numbered, so that a reader can continue where it
stopped; their sums go further back. A restart of the server forgets them; each host's own file has more.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import HostName
from ringfence.wire.flows import FlowRecord, FlowReport, flow_of

MOST_KEPT: Final = 1000  # of each host, for refused and allowed each, so that neither pushes out the other


@dataclass(frozen=True, slots=True)
class Kept:
    """``number`` counts the records of all hosts since the server started; ``untold`` records before it are missing."""

    number: int
    host: HostName
    record: FlowRecord
    untold: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """The sum of the records of one flow (``wire.flows.flow_of``), and the newest. Times in seconds since 1970."""

    record: FlowRecord
    packets: int
    first: float
    last: float


@dataclass(slots=True)
class _Shelf:
    """One host's newest records and newest sums."""

    newest: deque[Kept] = field(default_factory=lambda: deque(maxlen=MOST_KEPT))
    tallies: dict[FlowRecord, Tally] = field(default_factory=dict)  # the one that grew last comes last

    def add(self, kept: Kept) -> None:
        self.newest.append(kept)
        record = kept.record
        known = self.tallies.pop(flow := flow_of(record), None)
        packets = record.packets + (known.packets if known else 0)
        self.tallies[flow] = Tally(record, packets, known.first if known else record.at, record.at)
        if len(self.tallies) > MOST_KEPT:
            del self.tallies[next(iter(self.tallies))]


class FlowBook:
    """Lives in the event loop's thread."""

    def __init__(self) -> None:
        self._refused: dict[HostName, _Shelf] = {}
        self._allowed: dict[HostName, _Shelf] = {}
        self._untold: dict[HostName, int] = {}
        self._last = 0

    def add(self, host: HostName, report: FlowReport, snapshot: Snapshot) -> None:
        self._untold[host] = self._untold.get(host, 0) + report.untold
        for record in report.records:
            self._last += 1
            book = self._allowed if record.is_allowed else self._refused
            kept = Kept(self._last, host, _believed(record, host, snapshot), self._untold.pop(host, 0))
            book.setdefault(host, _Shelf()).add(kept)

    def forget(self, host: HostName) -> None:
        """Drops the records of a removed host."""
        self._refused.pop(host, None)
        self._allowed.pop(host, None)
        self._untold.pop(host, None)

    def after(self, number: int, host: HostName | None = None, *, allowed: bool = False) -> list[Kept]:
        """The records after ``number``, oldest first: refused packets, with ``allowed`` connections too. O(all).

        A number that no record has yet is of a server before this one: then all are new.
        """
        known = number if number <= self._last else 0
        kept = (one for shelf in self._shelves(host, allowed=allowed) for one in shelf.newest)
        return sorted((one for one in kept if one.number > known), key=lambda one: one.number)

    def connections(self, host: HostName) -> list[FlowRecord]:
        """The allowed connections of a host, oldest first; none if it logs none."""
        return [one.record for one in self._allowed.get(host, _Shelf()).newest]

    def tallies(self, *, allowed: bool = False) -> list[Tally]:
        """The sums of refused packets of all hosts, with ``allowed`` of connections too. O(all)."""
        return [tally for shelf in self._shelves(None, allowed=allowed) for tally in shelf.tallies.values()]

    def _shelves(self, host: HostName | None, *, allowed: bool) -> Iterator[_Shelf]:
        books = [self._refused, self._allowed] if allowed else [self._refused]
        return (shelf for book in books for name, shelf in book.items() if host in (None, name))


def _believed(record: FlowRecord, host: HostName, snapshot: Snapshot) -> FlowRecord:
    instance = snapshot.instances.get(record.instance_id) if record.instance_id else None
    is_its_own = instance is not None and instance.host == host
    return record if is_its_own else msgspec.structs.replace(record, instance=None, peer_groups=())
