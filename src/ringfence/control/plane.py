"""The control plane: the parts of this room composed into what the API, the agents' feed and the command line use.

Everything here runs in one event loop; writes go through the store's writer, reads come from memory.
"""

import asyncio
import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from ringfence.control.actor import Actor, host_actor, operator_of, require_writer
from ringfence.control.book import OperationBook
from ringfence.control.clock import Clock, SystemClock
from ringfence.control.commits import Commits, Outcome
from ringfence.control.count_book import CountBook
from ringfence.control.decide import Given
from ringfence.control.feed import Feed
from ringfence.control.flow_book import FlowBook, Kept
from ringfence.control.history import History
from ringfence.control.hosts import AddedHost, HostStatus, Presence, mint_key
from ringfence.control.keys import KeyRing
from ringfence.control.owners import Owners
from ringfence.control.settings import Settings
from ringfence.control.use_cases import (
    Asked,
    UseCases,
    found_organisation,
    save_ends,
)
from ringfence.control.views import ViewCache, resolve_views
from ringfence.policy.commands import ClaimInstances, GroupCommand, InstanceCommand
from ringfence.policy.errors import Busy, NotFound
from ringfence.policy.model import Host, Operation, Snapshot
from ringfence.policy.values import HostName, InstanceId, OperationId, OrganisationId, Revision, RuleId
from ringfence.policy.view import HostView
from ringfence.store import Store, StoredOperation
from ringfence.wire.counters import RuleCount
from ringfence.wire.feed import Claimed, Report
from ringfence.wire.flows import FlowReport

_ALLOCATIONS = 100_000  # between two looks at what was allocated since the last
_TICK_S = 0.5  # how late the end of an operation that times out may be noticed

_log = logging.getLogger(__name__)


class ControlPlane:
    """One open data folder, and everything that lives around it; made by ``open``, ended by ``close``."""

    def __init__(self, store: Store, settings: Settings, clock: Clock) -> None:
        views = resolve_views(store.snapshot, store.wanted)
        self.settings = settings
        self.epoch = store.epoch
        self._store = store
        self._clock = clock
        self._feed = Feed(store.epoch, store.snapshot, views)
        self._presence = Presence(settings.live_s)
        self._book = OperationBook()
        self._flows = FlowBook()
        self._counts = CountBook()
        self._use_cases = UseCases(ViewCache(lambda: store.snapshot, views), self._presence)
        self._commits = Commits(store, self._publish)
        keys = KeyRing(store.keys)
        self.history = History(store, self._commits, settings.keep_history_s, self._now_s)
        self.owners = Owners(lambda: store.snapshot, self._asked, self._commits, self._use_cases, keys)
        for stored in store.operations:
            self._open(stored)
        self._ticking = asyncio.get_running_loop().create_task(self._tick())

    @classmethod
    async def open(cls, folder: Path, settings: Settings | None = None, clock: Clock | None = None) -> "ControlPlane":
        """The control plane of ``folder``, which this process holds until ``close``.

        Raises:
            FolderHeld: when another process holds it.
            OperatorError: when the store is damaged, of a newer format, or cannot be read or written.
        """
        clock = clock or SystemClock()
        with _no_collections():
            store = await asyncio.to_thread(_open_store, folder, int(clock.now_s()))
            return cls(store, settings or Settings(), clock)

    async def close(self) -> None:
        """Ends the watches, writes what is outstanding and gives the folder back."""
        self._feed.close()
        self._ticking.cancel()
        with suppress(asyncio.CancelledError):
            await self._ticking
        await self._save_ends()
        await asyncio.to_thread(self._store.close)

    @property
    def snapshot(self) -> Snapshot:
        """The newest committed snapshot."""
        return self._store.snapshot

    async def execute(self, command: GroupCommand | InstanceCommand, actor: Actor) -> Operation:
        """Decides and commits ``command``, then waits a moment for the hosts: the operation as it stands then.

        Raises:
            Denied, Invalid, NotFound, Conflict: refused; nothing was changed.
            Busy: nothing was written; the same command may succeed later.
        """
        require_writer(actor)
        given = Given(uuid4(), self._now_s(), self.settings.offer_all_protocol)
        operation_id = OperationId(uuid4())
        decide = self._use_cases.execute(command, self._asked(actor), given, operation_id)
        operation = await self._commits.run(decide)
        await self._book.wait(operation.id, self.settings.settle_wait_s)
        return self.operation(operation.id, actor.organisation)

    async def claim(self, host: HostName, command: ClaimInstances) -> Claimed:
        """Makes the inventory of ``host`` true as far as it may be; what changes nothing makes no revision."""
        found = self._host(host)
        new_ids = tuple(InstanceId(uuid4()) for _ in command.instances)
        asked = self._asked(host_actor(found.organisation, host))
        return await self._commits.run(self._use_cases.claim(command, host, asked, new_ids))

    def operation(self, id_: OperationId, organisation: OrganisationId) -> Operation:
        """An operation of the organisation, as it stands; ``NotFound`` for any other."""
        return self._book.find(id_, organisation)

    def view(self, host: HostName) -> HostView:
        """The newest view wanted of ``host``; its revision is the newest that touched the host."""
        return self._feed.view(host)

    @property
    def feed(self) -> Feed:
        """What every host shall enforce, to follow; it ends with ``close``."""
        return self._feed

    def seen(self, host: HostName) -> None:
        """An authenticated message of ``host`` came in."""
        self._presence.seen(host, self._clock.monotonic_s())

    def report(self, host: HostName, report: Report, *, offered: Revision) -> None:
        """What ``host`` says it enforces and what is wrong; operations that waited for it may end by it.

        A revision that this store has not made yet is of another store's life and counts as none. ``offered`` is the
        newest that the host was sent.
        """
        if report.applied is not None and report.applied > self.snapshot.revision:
            report = replace(report, applied=None)
        self._presence.report(host, report.applied, report.error, notice=report.notice)
        self._book.report(host, report.applied, report.error, offered=offered)

    def note_counts(self, host: HostName, counts: tuple[RuleCount, ...]) -> None:
        """What ``host`` says its rules have allowed; counts of rules that it is not to enforce are nobody's."""
        known = self._host(host).name
        rules = frozenset(rule.id for group in self.view(known).rules.values() for rule in group)
        self._counts.add(known, counts, rules)

    def counts(self, host: HostName) -> dict[RuleId, RuleCount]:
        """The counts of a host that there is, by rule."""
        return self._counts.of(self._host(host).name)

    def note_flows(self, host: HostName, report: FlowReport) -> None:
        """Packets that ``host`` says it refused."""
        self._flows.add(self._host(host).name, report, self.snapshot)

    def flows(self, after: int, host: HostName | None = None) -> list[Kept]:
        """What hosts told of refused packets after that number; ``NotFound`` for a host that there is not."""
        return self._flows.after(after, None if host is None else self._host(host).name)

    def host_status(self) -> list[HostStatus]:
        """Every host: what is wanted of it, what it applied, when it was last heard, what is wrong."""
        now_s = self._clock.monotonic_s()
        return [self._presence.status(host, self._feed.wanted(host).revision, now_s) for host in self.snapshot.hosts]

    async def add_host(self, name: HostName, public_key: bytes | None, organisation: str | None = None) -> AddedHost:
        """A new host with the given Ed25519 key, or with one made here, whose private part is answered once."""
        private_key = None
        if public_key is None:
            private_key, public_key = mint_key()
        host = Host(name, self.owners.named(organisation).id, public_key, self._now_s())
        await self._commits.run(self._use_cases.add_host(host, self._asked(operator_of(host.organisation))))
        return AddedHost(host, private_key)

    async def remove_host(self, name: HostName) -> None:
        """Ends a host; when this returns its requests are refused, and its open feeds end."""
        actor = operator_of(self._host(name).organisation)
        await self._commits.run(self._use_cases.remove_host(name, self._asked(actor)))

    def _publish(self, outcome: Outcome[object]) -> None:
        """In the order of commits: first the operation, so that no host's answer comes before it is known."""
        if outcome.opened is not None:
            self._open(outcome.opened)
        if outcome.change is not None:
            self._feed.publish(outcome.change)
        for revoked in outcome.revoked:
            self.owners.keys.remove(revoked)
        if outcome.removed is not None:
            self._presence.forget(outcome.removed)
            self._flows.forget(outcome.removed)
            self._counts.forget(outcome.removed)

    def _open(self, stored: StoredOperation) -> None:
        said = {host: self._presence.error(host) for host in stored.awaited}
        deadline_s = self._clock.monotonic_s() + self.settings.operation_timeout_s
        self._book.open(stored.operation, said, deadline_s=deadline_s)

    async def _tick(self) -> None:
        pause_s = min(_TICK_S, self.settings.operation_timeout_s / 4)
        while True:
            await asyncio.sleep(pause_s)
            self._book.expire(self._clock.monotonic_s())
            await self._save_ends()
            await self.history.tidy(self._clock.monotonic_s())

    async def _save_ends(self) -> None:
        """Writes how operations ended. When that fails it is tried again; what a host reports would end them anew."""
        ended = self._book.unsaved()
        if not ended:
            return
        try:
            await self._commits.run(save_ends(ended))
        except Busy as error:
            _log.warning("the end of %d operations is not saved yet: %s", len(ended), error)
            return
        self._book.saved(ended)

    def _host(self, name: HostName) -> Host:
        try:
            return self.snapshot.hosts[name]
        except KeyError:
            raise NotFound(f"there is no host {name}: add it with ringfence host add") from None

    def _asked(self, actor: Actor) -> Asked:
        return Asked(actor, self._now_s(), self._clock.monotonic_s())

    def _now_s(self) -> int:
        return int(self._clock.now_s())


@contextmanager
def _no_collections() -> Iterator[None]:
    """A large policy is millions of objects that stay and form no cycles: walking them again and again doubles a start.

    What is there at the end is looked at no more; what comes later is, less often than by default.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(_ALLOCATIONS, 50, 100)
        gc.enable()


def _open_store(folder: Path, now_s: int) -> Store:
    store = Store.open(folder)
    try:
        if not store.snapshot.organisations:
            store.submit(found_organisation(uuid4(), uuid4(), now_s)).result()
    except BaseException:
        store.close()
        raise
    return store
