"""The control plane: composes the parts of this package into what the API, the feed and the command line use.

Everything here runs in one event loop; writes go through the store's writer, reads come from memory.
"""

import asyncio
import gc
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ringfence.control.actor import Actor, host_actor, require_writer
from ringfence.control.book import OperationBook
from ringfence.control.clock import Clock, SystemClock
from ringfence.control.commits import Commits, Foreign, Outcome
from ringfence.control.deadlines import Deadlines
from ringfence.control.decide import decide_edits, referred_group, subject_of
from ringfence.control.enrolment import Enrolment
from ringfence.control.evidence import Evidence
from ringfence.control.feed import Feed
from ringfence.control.freshness import Freshness
from ringfence.control.guard import Guard
from ringfence.control.held import require_held
from ringfence.control.history import History
from ringfence.control.hosts import HostStatus, Presence
from ringfence.control.ids import new_id
from ringfence.control.keys import KeyRing
from ringfence.control.lookup import find_host
from ringfence.control.operations import Fate, fate_of
from ringfence.control.owners import Owners
from ringfence.control.past import Past
from ringfence.control.planning import Seen, look_ahead, show_outlook
from ringfence.control.replicas import Elsewhere, Telling
from ringfence.control.safety import USUAL, Safety, careful
from ringfence.control.settings import Settings
from ringfence.control.use_cases import (
    Asked,
    Changed,
    UseCases,
    Wish,
    attempt,
    found_organisation,
    save_ends,
    tell_seen,
)
from ringfence.control.views import ViewCache, resolve_views
from ringfence.policy.commands import ClaimInstances, Edit, GroupCommand, InstanceCommand
from ringfence.policy.errors import Busy, Conflict, Invalid, OperatorError, RingfenceError
from ringfence.policy.fact_words import describe_facts
from ringfence.policy.facts import Fact
from ringfence.policy.lockout import Cut
from ringfence.policy.model import Operation
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import HostName, InstanceId, OperationId, OrganisationId, Revision
from ringfence.policy.view import HostView
from ringfence.store import HostSaid, Store, StoredOperation, place_of, remember
from ringfence.wire.feed import Claimed, Report

_ALLOCATIONS = 10_000  # allocations between two collections of the youngest objects
_TELL_S = 0.02
_TICK_S = 0.5  # how late the end of an operation that times out may be noticed

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Preview:
    """A change that is not made: the snapshots before and after it, and what it ``would`` do in words.

    ``cuts`` are those for which the lock-out guard would refuse it.
    """

    before: Snapshot
    after: Snapshot
    would: tuple[str, ...]
    cuts: tuple[Cut, ...]


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
        self.evidence = Evidence(store, self._feed.view, clock.now_s)
        self._use_cases = UseCases(ViewCache(lambda: store.snapshot, views), self._presence)
        self._commits = Commits(store, self._publish)
        self._freshness = Freshness(store, settings.alone_s, self._commits)
        keys = KeyRing(store.keys)
        self.history = History(store, self._commits, settings.keep_history_s, self._now_s)
        self.owners = Owners(lambda: store.snapshot, self._asked, self._commits, self._use_cases, keys)
        self.enrolment = Enrolment(lambda: store.snapshot, self._now_s, self._commits, self._use_cases, self.owners)
        self.past = Past(store, self._change, self._now_s)
        self._deadlines = Deadlines(lambda: store.snapshot, self.past, self._change, self._now_s, clock.monotonic_s)
        for stored in store.operations:
            self._open(stored)
        self._telling = Telling()
        self._pause_s = min(_TICK_S, settings.operation_timeout_s / 4)
        self._elsewhere = Elsewhere(settings.live_s)
        self._guard = Guard(self._feed, self._presence, self._elsewhere, clock.monotonic_s)
        self._commits.follow(self._use_cases.followed)
        lasting = (self._expire(), self._tick(), *((self._tell(),) if store.is_shared else ()))
        self._tasks = {asyncio.get_running_loop().create_task(task) for task in lasting}

    @classmethod
    async def open(
        cls,
        folder: Path,
        settings: Settings | None = None,
        clock: Clock | None = None,
        *,
        database: str | None = None,
    ) -> "ControlPlane":
        """The control plane of ``folder``, which this process holds until ``close``; its database is as ``place_of``.

        Raises:
            FolderHeld: when another process holds it.
            OperatorError: when the store is damaged, of a newer format, or cannot be read or written.
        """
        clock = clock or SystemClock()
        with _no_collections():
            store = await asyncio.to_thread(_open_store, folder, database, int(clock.now_s()))
            plane = cls(store, settings or Settings(), clock)
        await plane._deadlines.meet()
        return plane

    async def close(self) -> None:
        """Ends all feeds and tasks, writes what is outstanding, and releases the folder."""
        self._feed.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._freshness.close()
        try:
            await self._save_ends()
        finally:
            await asyncio.to_thread(self._store.close)

    @property
    def snapshot(self) -> Snapshot:
        """The newest committed snapshot."""
        return self._store.snapshot

    async def execute(
        self, command: GroupCommand | InstanceCommand, actor: Actor, *, safety: Safety = USUAL
    ) -> Operation:
        """Decides and commits ``command``, then waits a moment for the hosts: the operation as it stands then.

        Raises:
            Denied, Invalid, NotFound, Conflict: refused; nothing was changed.
            Busy: nothing was written; the same command may succeed later.
        """
        edit = Edit(command, new_id())
        subject = subject_of(command, referred_group(self.snapshot, edit, actor))
        return (await self._edit([edit], actor, type(command).__name__, subject, safety=safety)).operation

    async def change(
        self, edits: Sequence[Edit], actor: Actor, *, action: str, subject: str = "", safety: Safety = USUAL
    ) -> Changed:
        """Decides all edits as one and commits them as one revision; raises as ``execute``."""
        if not edits:
            raise Invalid("expected at least one edit", field="$.edits")
        return await self._edit(edits, actor, action, subject, safety=safety)

    async def _edit(
        self, edits: Sequence[Edit], actor: Actor, action: str, subject: str, *, safety: Safety = USUAL
    ) -> Changed:
        require_writer(actor)
        decide = self._decided(lambda _: edits, actor)
        wish = Wish(decide, lambda snapshot: referred_group(snapshot, edits[0], actor), action, subject)
        return await self._change(self._careful(wish, actor, safety), actor)

    async def apply(
        self, wanted: Callable[[Snapshot], Sequence[Edit]], actor: Actor, *, safety: Safety = USUAL
    ) -> Changed:
        """As ``change``, with the edits (perhaps none) that ``wanted`` returns for the snapshot to decide over."""
        require_writer(actor)
        decide = self._decided(wanted, actor)
        wish = Wish(decide, lambda snapshot: snapshot.organisations[actor.organisation].default_group, "Apply", "")
        return await self._change(self._careful(wish, actor, safety), actor)

    def _decided(
        self, wanted: Callable[[Snapshot], Sequence[Edit]], actor: Actor
    ) -> Callable[[Snapshot], tuple[Fact, ...]]:
        """A function from a snapshot to the facts that follow from the edits wanted of it, as of this moment."""
        now_s, offer_all = self._now_s(), self.settings.offer_all_protocol
        return lambda snapshot: decide_edits(snapshot, wanted(snapshot), actor, now_s=now_s, offer_all=offer_all)

    async def rollback(self, revision: int, actor: Actor, *, safety: Safety = USUAL) -> Changed:
        """Makes the policy what it was at ``revision``, as a new revision; raises as ``Past.back``."""
        return await self.past.back(
            revision, actor.organisation, lambda wish: self._change(self._careful(wish, actor, safety), actor)
        )

    async def preview_rollback(self, revision: int, actor: Actor) -> Preview:
        """What ``rollback`` would make of the newest snapshot. Raises alike."""
        return await self.past.back(revision, actor.organisation, lambda wish: self._preview(wish.decide, actor))

    def _careful(self, wish: Wish, actor: Actor, safety: Safety) -> Wish:
        if not safety.force:
            wish = wish._replace(guard=lambda before, after: self._guard.require_uncut(before, after, actor.connection))
        return careful(wish, actor.organisation, safety, now_s=self._now_s())

    async def _change(self, wish: Wish, actor: Actor) -> Changed:
        """Commits what ``wish`` decides, and waits a moment for the hosts."""
        changed = await self._commits.run(self._use_cases.change(wish, self._asked(actor), OperationId(new_id())))
        await self._book.wait(changed.operation.id, self.settings.settle_wait_s)
        return Changed(self._book.latest(changed.operation), changed.did)

    async def preview(self, edits: Sequence[Edit] | Callable[[Snapshot], Sequence[Edit]], actor: Actor) -> Preview:
        """What ``change`` or ``apply`` would make of the newest snapshot; nothing is committed. Raises alike."""
        require_writer(actor)
        return await self._preview(self._decided(edits if callable(edits) else lambda _: edits, actor), actor)

    async def _preview(self, decide: Callable[[Snapshot], tuple[Fact, ...]], actor: Actor) -> Preview:
        tried = await self._commits.run(attempt(decide))

        def looked_at() -> Preview:
            before, after = tried.before, tried.after
            require_held(before, after, actor.organisation)
            cuts = tuple(self._guard.cuts(before, after, actor.connection))
            return Preview(before, after, describe_facts(before, after, tried.facts), cuts)

        return await asyncio.to_thread(looked_at)

    async def foresee(
        self, preview: Preview, organisation: OrganisationId, assertions: Sequence[str] = ()
    ) -> dict[str, object]:
        """All effects of a change, as ``planning`` shows them; ``assertions`` use names of the organisation."""
        outlook = await asyncio.to_thread(look_ahead, preview.before, preview.after, assertions, owner=organisation)
        connections = {host: self.evidence.connections(host) for host in outlook.hosts}
        seen = Seen(connections, self.evidence.flow_tallies())
        return await asyncio.to_thread(show_outlook, outlook, seen, organisation)

    async def claim(self, host: HostName, command: ClaimInstances) -> Claimed:
        """Decides and commits the inventory of ``host``; one that changes nothing makes no revision."""
        found = find_host(self.snapshot, host)
        new_ids = tuple(InstanceId(new_id()) for _ in command.instances)
        asked = self._asked(host_actor(found.organisation, host))
        return await self._commits.run(self._use_cases.claim(command, host, asked, new_ids))

    def operation(self, id_: OperationId, organisation: OrganisationId) -> Operation:
        """An operation of the organisation, as it stands; ``NotFound`` for any other."""
        return self._book.find(id_, organisation)

    def operations(self, organisation: OrganisationId, most: int) -> list[Operation]:
        """The newest operations of the organisation, newest first."""
        return self._book.newest(organisation, most)

    def fates(self, operation: Operation) -> list[Fate]:
        """What became of an operation on each host that it touches, by name; none when it changed nothing."""
        now_s, heard, revision = self._clock.monotonic_s(), self._book.heard(operation.id), operation.revision
        if revision is None:
            return []
        return [
            fate_of(
                revision,
                self._presence.status(host, revision, now_s),
                heard,
                is_live=self._presence.is_live(host, now_s),
            )
            for host in sorted(operation.hosts)
        ]

    def view(self, host: HostName) -> HostView:
        """The newest view wanted of ``host``; its revision is the newest that touched the host."""
        return self._feed.view(host)

    @property
    def failure(self) -> "asyncio.Future[OperatorError]":
        """Done when this process can only end and be restarted."""
        return self._commits.failure

    @property
    def feed(self) -> Feed:
        """The feed of what every host shall enforce; it ends with ``close``."""
        return self._feed

    @property
    def is_shared(self) -> bool:
        """Whether other servers may have changed what is asked here."""
        return self._store.is_shared

    async def fresh(self) -> None:
        """As ``Freshness.reach``."""
        await self._freshness.reach()

    def require_fresh(self) -> None:
        """As ``Freshness.require``."""
        self._freshness.require()

    def seen(self, host: HostName) -> None:
        """Takes note that an authenticated message of ``host`` came in."""
        self._presence.seen((host,), self._clock.monotonic_s())
        if self._store.is_shared:
            self._telling.alive(host, self._clock.monotonic_s())

    def report(self, host: HostName, report: Report, *, offered: Revision) -> None:
        """Takes in what ``host`` enforces and what is wrong; operations that waited for it may end.

        A revision that this store has not made yet is from another store and counts as none. ``offered`` is the newest
        revision that the host was sent.
        """
        if report.applied is not None and report.applied > self.snapshot.revision:
            if self._store.is_shared:
                self._report_later(host, report, offered)
            report = replace(report, applied=None)
        channel = self._feed.channel(host) if self._store.is_shared else None
        error = "; ".join(filter(None, (self._feed.find_twins(host), report.error))) or None
        said = HostSaid(report.applied, error, report.notice, offered, report.foreign, report.failsafe, channel)
        now_s = self._clock.monotonic_s()
        self._elsewhere.came(host)
        self._hear((host,), said, now_s)
        if self._store.is_shared:
            self._telling.reported(host, said, now_s)

    def _hear(self, hosts: Collection[HostName], said: HostSaid, now_s: float) -> None:
        before = self._presence.report(hosts, said)
        self._book.report(hosts, (said.applied, said.error), before, offered=said.offered, now_s=now_s)

    def _report_later(self, host: HostName, report: Report, offered: Revision) -> None:
        """Takes in the report again once this server has caught up: the host may have the view from another one."""

        async def catch_up() -> None:
            await self.fresh()
            if report.applied is not None and report.applied <= self.snapshot.revision:
                self.report(host, report, offered=offered)

        task = asyncio.get_running_loop().create_task(catch_up())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def status_of(self, host: HostName) -> HostStatus:
        """As ``host_status``, for one host; raises ``NotFound``."""
        known = find_host(self.snapshot, host).name
        return self._presence.status(known, self._feed.wanted(known).revision, self._clock.monotonic_s())

    def host_status(self) -> list[HostStatus]:
        """Every host: what is wanted of it, what it applied, when it was last heard, what is wrong."""
        now_s = self._clock.monotonic_s()
        return [self._presence.status(host, self._feed.wanted(host).revision, now_s) for host in self.snapshot.hosts]

    def _publish(self, outcome: Outcome[object]) -> None:
        """Publishes an outcome, in the order of commits: first the operation, so that no host answers before that."""
        if outcome.opened is not None:
            self._open(outcome.opened, is_foreign=outcome.foreign is not None)
        if outcome.change is not None:
            self._feed.publish(outcome.change)
        for revoked in outcome.revoked:
            self.owners.keys.remove(revoked)
        if outcome.rekeyed is not None:
            self._feed.end(outcome.rekeyed)
        if outcome.removed is not None:
            self._presence.forget(outcome.removed)
            self.evidence.forget(outcome.removed)
            self._elsewhere.came(outcome.removed)
        if outcome.foreign is not None:
            self._publish_foreign(outcome.foreign)

    def _publish_foreign(self, foreign: Foreign) -> None:
        for operation in foreign.settled:
            self._book.settle(operation)
        if foreign.keys is not None:
            self.owners.keys.follow(foreign.keys)
        known, now_s = self.snapshot.hosts, self._clock.monotonic_s()
        for seen in foreign.seen:
            hosts = {host for host in seen.hosts if host in known}
            self._presence.seen(hosts, now_s - seen.ago_s)
            self._elsewhere.told(hosts, seen.said.channel, now_s - seen.ago_s)
            self._hear(hosts, seen.said, now_s)

    def _open(self, stored: StoredOperation, *, is_foreign: bool = False) -> None:
        now_s = self._clock.monotonic_s()
        deadline_s = now_s + self.settings.operation_timeout_s
        self._book.open(stored, opened_s=now_s, deadline_s=deadline_s, is_foreign=is_foreign)

    async def _expire(self) -> None:
        """Ends overdue operations; apart from ``_tick``, because that one waits for the store."""
        while True:
            await asyncio.sleep(self._pause_s)
            self._book.expire(self._clock.monotonic_s(), self._presence.errors)
            if self._freshness.is_cut_off:
                self._feed.close()  # agents then turn to a server that is up to date

    async def _tick(self) -> None:
        """Each of the three tries again what it cannot do: the others must not end with it."""
        while True:
            await asyncio.sleep(self._pause_s)
            await self._save_ends()
            await self._deadlines.meet()
            await self.history.tidy(self._clock.monotonic_s())

    async def _tell(self) -> None:
        """Tells the other servers about this one's hosts, in few commits."""
        while True:
            await asyncio.sleep(_TELL_S)
            if due := self._telling.take(self._clock.monotonic_s()):
                try:
                    await self._commits.run(tell_seen(due))
                except Busy:
                    self._telling.put_back(due, self._clock.monotonic_s())

    async def _save_ends(self) -> None:
        """Writes how operations ended. When that fails, it is tried again."""
        ended = self._book.unsaved()
        if not ended:
            return
        try:
            await self._commits.run(save_ends(ended))
        except RingfenceError as error:
            _log.warning("the end of %d operations is not saved yet: %s", len(ended), error)
            return
        self._book.saved(ended)

    def _asked(self, actor: Actor) -> Asked:
        return Asked(actor, self._now_s(), self._clock.monotonic_s())

    def _now_s(self) -> int:
        return int(self._clock.now_s())


@contextmanager
def _no_collections() -> Iterator[None]:
    """Suspends garbage collection: a large policy is millions of objects that live long and form no cycles.

    Collecting them again and again would double the time of a start. What exists at the end is exempt from collection
    from then on, and later objects are collected less often than by default.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(_ALLOCATIONS, 50, 100)
        gc.enable()


def _open_store(folder: Path, database: str | None, now_s: int) -> Store:
    """The store, with a first organisation if it is new; then reopened, for another server may have been faster."""
    store = Store.open(folder, place_of(folder, database))
    if database is not None:
        remember(folder, database)
    if store.snapshot.organisations:
        return store
    try:
        with suppress(Conflict):
            store.submit(found_organisation(new_id(), new_id(), now_s)).result()
    finally:
        store.close()
    return Store.open(folder, place_of(folder, database))
