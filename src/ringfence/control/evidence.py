"""What hosts report about their rules at work: counts, refused packets, allowed connections.

Lives in the event loop's thread.
"""

import asyncio
from collections.abc import Callable

from ringfence.control.count_book import CountBook
from ringfence.control.flow_book import FlowBook, Kept, Tally
from ringfence.control.lookup import find_host
from ringfence.control.unused import Unused, find_unused
from ringfence.policy.values import HostName, RuleId
from ringfence.policy.view import HostView
from ringfence.store import Store
from ringfence.wire.counters import RuleCount
from ringfence.wire.flows import FlowRecord, FlowReport


class Evidence:
    """``view`` returns the view wanted of an existing host, ``now_s`` the time of day."""

    def __init__(self, store: Store, view: Callable[[HostName], HostView], now_s: Callable[[], float]) -> None:
        self._store = store
        self._view = view
        self._now_s = now_s
        self._flows = FlowBook()
        self._counts = CountBook()

    def note_counts(self, host: HostName, counts: tuple[RuleCount, ...]) -> None:
        """Takes in the counts that ``host`` reports, for rules that it has to enforce; drops the others."""
        known = self._known(host)
        rules = frozenset(rule.id for group in self._view(known).rules.values() for rule in group)
        self._counts.add(known, counts, rules)

    def counts(self, host: HostName) -> dict[RuleId, RuleCount]:
        """The counts of a host, by rule; raises ``NotFound`` for an unknown host."""
        return self._counts.of(self._known(host))

    async def unused(self) -> tuple[float, list[Unused]]:
        """The time of day, and the rules for which no host has seen a packet."""
        births = await asyncio.to_thread(self._store.read_births)
        return self._now_s(), [*find_unused(self._store.snapshot, self._counts.of, births)]

    def note_flows(self, host: HostName, report: FlowReport) -> None:
        """Takes in the packets that ``host`` says it refused, and the connections that it allowed."""
        self._flows.add(self._known(host), report, self._store.snapshot)

    def flows(self, after: int, host: HostName | None = None, *, allowed: bool = False) -> list[Kept]:
        """The records of refused packets, with ``allowed`` of connections too, after number ``after``.

        Raises ``NotFound`` for an unknown host.
        """
        return self._flows.after(after, None if host is None else self._known(host), allowed=allowed)

    def connections(self, host: HostName) -> list[FlowRecord]:
        """As ``FlowBook.connections``."""
        return self._flows.connections(host)

    def flow_tallies(self, *, allowed: bool = False) -> list[Tally]:
        """The sums over all hosts of refused packets, with ``allowed`` of connections too, since the server started."""
        return self._flows.tallies(allowed=allowed)

    def forget(self, host: HostName) -> None:
        """Drops what a removed host reported."""
        self._flows.forget(host)
        self._counts.forget(host)

    def _known(self, host: HostName) -> HostName:
        return find_host(self._store.snapshot, host).name
