"""The agent's loop: view -> compile -> delta -> one atomic transaction -> read back -> report, for ever.

It runs until cancelled, and leaves the rules as they are. Its steps run concurrently on one event loop, each for ever,
and none can end another: they follow the feed, the inventory and changes of the kernel's rules, send reports, and
enforce what the others found to be wanted.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Final, TypeVar

from ringfence.agent.cache import Cache, Memory
from ringfence.agent.channel import Channel, ServerPlace
from ringfence.agent.client import Server
from ringfence.agent.crowding import find_crowding
from ringfence.agent.doors.bundle import Doors
from ringfence.agent.enforce import CLOSED, Enforcer, Outcome
from ringfence.agent.evidence import Evidence
from ringfence.agent.foreign import ForeignTables
from ringfence.agent.generations import Generations
from ringfence.agent.link import Pauses, follow
from ringfence.agent.own_view import OwnPart
from ringfence.agent.places import Misplaced, Renames, find_misplaced
from ringfence.agent.ports import Declared
from ringfence.agent.report import REPORT_S, Reporter, Standing
from ringfence.agent.start import NotEnforceable, carry_out, closed_words, load_view
from ringfence.agent.watch import Watch
from ringfence.agent.worker import Worker
from ringfence.nft import Heard
from ringfence.policy.errors import OperatorError
from ringfence.policy.values import Kind
from ringfence.wire.feed import FeedView

INVENTORY_POLL_S: Final = 0.5
FIND_SERVER_S: Final = 5.0  # a start without a name server must not hang
RETRY_POLL_S: Final = 0.1
COUNT_POLL_S: Final = 1.0  # between looks at the kernel's count of transactions, in case a notice was lost
_NOTICES_PAUSE_S: Final = 0.02  # others may change their tables a thousand times a second
BRIDGING_POLL_S: Final = 0.1
PLACES_POLL_S: Final = 15.0
FLOWS_POLL_S: Final = 15.0
KEEP_AGAIN_S: Final = 5.0  # a full disk is emptied by somebody
SLOW_DISK_S: Final = 10.0  # a disk that has not answered for so long is told of
_LINKS_PAUSE_S: Final = 0.05  # links may change without pause: 20 times what a look takes at least
_LINKS_PAUSE_SHARE: Final = 20
_AFTER_A_FAULT_S: Final = 1.0

_log: Final = logging.getLogger("ringfence.agent")
_T = TypeVar("_T")


class Agent:
    """One host's agent. ``start`` enforces what is known from disk; ``run`` follows the server from then on."""

    def __init__(
        self,
        doors: Doors,
        server: Server,
        cache: Cache,
        inventory_file: Path,
        *,
        place: ServerPlace | None = None,
        jitter: Callable[[], float],
    ) -> None:
        """``place``: where ``server`` is on the network, None if it is not."""
        self._server = server
        self._cache = cache
        self._clock = doors.clock
        self._bridging = doors.bridging
        self._links = doors.links
        self._machine = doors.machine
        self._watch = Watch(doors.notices, doors.clock)
        self._foreign = ForeignTables(doors.nftables, doors.clock)
        self._feed_pauses = Pauses(jitter)
        self._kernel_pauses = Pauses(jitter)
        self._claim_pauses = Pauses(jitter)
        self._refused_s: float | None = None  # when the server refused something of the inventory, monotonic
        self._memory = cache.load_memory()
        self._renames = Renames(self._memory.seen_in(doors.links.life()))
        self._declared = Declared(
            inventory_file, files=doors.files, links=doors.links, cache=cache, memory=self._memory
        )
        self._channel = Channel(place, doors.names, doors.clock, remembered=self._memory.channel)
        self._declared.channel = self._channel.ends
        self._own = OwnPart()
        self._enforcer = Enforcer(doors.nftables, Generations(doors.conntrack), last_block=self._memory.block)
        # Threads for what may be slow: the kernel, the folder's disk, and the inventory's, which may be another.
        self._kernel = Worker("kernel")
        self._disk = Worker("disk")
        self._eyes = Worker("inventory")
        self._wanted: FeedView | None = None
        self._enforced: FeedView | None = None
        self._saved: FeedView | None = None
        self._oldest = CLOSED  # the note that the kernel had at the start: no older view of its epoch is accepted
        self._reporter = Reporter(server, doors.clock)
        self._evidence = Evidence(
            doors, self._declared, cache.folder, server=server, reporter=self._reporter, pauses=Pauses(jitter)
        )
        self._enforcing = asyncio.Lock()
        self._to_enforce = asyncio.Event()
        self._to_retry = asyncio.Event()
        self._to_keep = asyncio.Event()
        self._is_bridged = asyncio.Event()
        self._to_look = asyncio.Event()
        self._to_claim = True
        self._retry_at: float | None = None  # after a failure
        self._heal_at: float | None = None  # when to try again the instances whose rules the kernel refused

    @property
    def standing(self) -> Standing:
        return self._reporter.standing

    async def start(self) -> None:
        """Closes every managed port, then enforces the last view from disk, before any packet to the server.

        Raises:
            OperatorError: there is no usable inventory, now or saved, or the kernel has no nf_tables for us.
        """
        self._watch.begin(await self._kernel.do(self._enforcer.count_changes))
        held = await self._kernel.do(self._enforcer.held)
        self._oldest = held or CLOSED
        held_ports = await self._kernel.do(self._enforcer.held_ports)
        self._declared.begin(held_ports, await self._kernel.do(self._enforcer.held_observed))
        self._note_kind()
        self._reporter.set_problem("inventory", self._declared.problem)
        await self._look_for_renames()
        if not self._channel.ends:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIND_SERVER_S):
                    await self._find_server()
        self._wanted = self._saved = load_view(self._cache, self._oldest)
        if self._wanted is not None:
            self._declared.note_view(self._wanted.view)
            self._server.hold(self._wanted)
        self._evidence.begin()
        await self._enforce()

    def close(self) -> None:
        """Waits for a change that is being applied, and saves what is in force; no step may be running."""
        self._kernel.close()
        self._eyes.close()
        self._disk.close()
        for keep in (self._keep, self._evidence.close):
            try:
                keep()
            except OperatorError as error:
                _log.warning("%s", error)

    async def run(self) -> None:
        """Follow server, inventory and kernel until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for what, step in (
                ("follow the feed", self._follow),
                ("enforce", self._enforce_when_due),
                ("report", self._report_when_due),
                ("keep what is in force", self._keep_when_due),
                ("watch the inventory", self._watch_inventory),
                ("watch the kernel", self._watch_kernel),
                ("look at other programs' tables", self._look_at_foreign),
                ("watch br_netfilter", self._watch_bridging),
                ("look whether a notice was missed", self._look_for_missed),
                ("try again", self._retry_when_due),
                ("follow the links", self._follow_links),
                ("look at the links", self._look_at_links),
                ("look where the ports are", self._look_where_ports_are),
                ("look how full conntrack is", self._look_at_flows),
                *self._evidence.steps(self._kernel, self._disk),
            ):
                tasks.create_task(self._forever(what, step), name=what)

    async def _forever(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except OperatorError as error:
                _log.warning("%s failed", what, extra={"fields": {"reason": str(error)}})
                await self._clock.sleep(_AFTER_A_FAULT_S)
            except Exception:  # noqa: BLE001  a fault of ours in one step must not end the others
                _log.exception("a fault in ringfence itself, while trying to %s; it goes on", what)
                await self._clock.sleep(_AFTER_A_FAULT_S)

    async def _follow(self) -> None:
        await follow(self._server, self._clock, self._feed_pauses, connected=self._claim_and_report, offer=self._offer)

    def _offer(self, offered: FeedView) -> None:
        """Takes a view from the feed, unless it is older than one of the same epoch (life of the server's store)."""
        epoch, revision = offered.epoch, offered.view.revision
        newest = self._newest_of(epoch)
        if newest is not None and revision < newest:
            text = (
                f"the server offers revision {revision}, older than {newest} of the same store:"
                " was it restored from a copy? The newer rules stay"
            )
            self._reporter.set_problem("feed", text)
            return
        self._reporter.set_problem("feed", None)
        self._wanted = offered
        self._declared.note_view(offered.view)
        self._to_enforce.set()

    def _newest_of(self, epoch: str) -> int | None:
        """The newest revision of this epoch that was wanted or in force; None when none is known."""
        if self._wanted is not None:
            return self._wanted.view.revision if self._wanted.epoch == epoch else None
        return self._oldest.revision if self._oldest.epoch == epoch else None

    async def _find_server(self) -> bool:
        """Looks the server up; returns whether its addresses changed. Only a self host needs to know them."""
        if self._declared.inventory.kind is not Kind.SELF:
            return False
        moved = await asyncio.to_thread(self._channel.resolve)
        self._declared.channel = self._channel.ends
        self._reporter.set_problem("channel", self._channel.problem)
        return moved

    async def _claim_and_report(self) -> None:
        if await self._find_server():
            await self._enforce()
        await self._claim()
        self._evidence.tell_all()
        self._reporter.wake()

    async def _claim(self) -> None:
        inventory = self._declared.inventory
        claimed = await self._server.claim(inventory.claim)
        self._to_claim = self._declared.inventory is not inventory
        self._claim_pauses.reset()
        self._refused_s = self._clock.monotonic() if claimed.refused else None
        refused = "; ".join(f"instance {name!r} is refused: {reason}" for name, reason in claimed.refused)
        self._reporter.set_problem("claim", refused or None)

    async def _report_when_due(self) -> None:
        await self._reporter.wait(self._claim_pauses.take() if self._to_claim else REPORT_S)
        try:
            if self._to_claim:
                await self._claim()
            await self._reporter.send()
        except OperatorError as error:
            _log.debug("no report", extra={"fields": {"reason": str(error)}})

    async def _watch_inventory(self) -> None:
        await self._clock.sleep(INVENTORY_POLL_S)
        looking = self._eyes.do(self._declared.look)
        if self._declared.note(await self._wait_for_disk(looking, "inventory", "what was read last stays in force")):
            self._note_kind()
            self._to_claim = True
            self._to_enforce.set()
            self._reporter.wake()
            self._evidence.listen()
        elif self._refused_s is not None and self._clock.monotonic() - self._refused_s >= REPORT_S:
            # It may be free by now: an address that another host gave up, an instance that was released.
            self._to_claim, self._refused_s = True, None
            self._reporter.wake()
        self._reporter.set_problem("inventory", self._declared.problem)

    def _note_kind(self) -> None:
        if self._declared.inventory.kind is Kind.BRIDGED:
            self._is_bridged.set()
        else:
            self._is_bridged.clear()

    async def _enforce_when_due(self) -> None:
        await self._to_enforce.wait()
        await self._enforce()

    async def _enforce(self) -> None:
        """Makes the kernel hold what is wanted, then lets the report and the saving to disk follow."""
        self._to_enforce.clear()
        async with self._enforcing:
            began = self._clock.monotonic()
            wanted, declared = self._wanted, self._declared.current
            try:
                outcome = await self._kernel.do(
                    carry_out, self._enforcer, wanted, declared, self._bridging, own=self._own
                )
            except Exception as error:  # noqa: BLE001  whatever it was, the old rules stay, and it is tried again
                await self._fail(error)
                return
            self._succeed(wanted, outcome, self._clock.monotonic() - began)
            self._reporter.set_failsafe(declared.ports.lifelines.failsafe)
            await self._finish()
        self._reporter.set_problem("conntrack", self._enforcer.sweep_problem)

    async def _finish(self) -> None:
        """Completes a change that is in force already, and prepares for the next one."""
        if not self._to_enforce.is_set():  # else the next change comes first
            try:
                await self._kernel.do(self._enforcer.settle)
            except Exception as error:  # noqa: BLE001  as before: what is in force stays, and it is tried again
                await self._fail(error)
                return
        await self._kernel.do(self._enforcer.sweep_ahead)

    async def _watch_bridging(self) -> None:
        """Switches br_netfilter on again when another program switched it off; the bridge table holds meanwhile."""
        await self._is_bridged.wait()
        await self._clock.sleep(BRIDGING_POLL_S)
        if self._retry_at is None and not self._bridging.is_on():
            _log.warning("another program switched br_netfilter off; it is switched on again")
            self._to_enforce.set()

    def _succeed(self, wanted: FeedView | None, outcome: Outcome, took_s: float) -> None:
        self._retry_at = None
        if outcome.left_out:
            self._heal_at = self._clock.monotonic() + self._kernel_pauses.take()
            self._to_retry.set()
        else:
            self._heal_at = None
            self._kernel_pauses.reset()
        self._watch.note_whole()
        self._reporter.set_notice(self._watch.notice)
        self._enforced = wanted
        self._to_keep.set()
        if wanted is not None:
            self._evidence.view = wanted.view
            self._reporter.set_applied(wanted.view.revision)
        if outcome.changed:
            fields = {"revision": outcome.about.revision, "took_ms": round(took_s * 1000, 1)}
            ports = self._declared.current.ports
            closed = closed_words(ports) if outcome.about == CLOSED else "what is not declared is closed"
            _log.info("rules enforced" if wanted else closed, extra={"fields": fields})
        if outcome.repaired:
            _log.warning("the kernel's rules were made whole", extra={"fields": {"reason": outcome.repaired}})
        self._reporter.set_problem("instances", "; ".join(outcome.refused) or None)
        self._reporter.set_problem("kernel", None)

    async def _fail(self, error: Exception) -> None:
        if not isinstance(error, OperatorError):
            _log.error("a fault in ringfence itself, while enforcing", exc_info=error)
        text = str(error) if isinstance(error, OperatorError) else f"a fault in ringfence itself: {error!r}"
        self._enforcer.distrust()
        self._retry_at = self._clock.monotonic() + self._kernel_pauses.take()
        self._to_retry.set()
        if isinstance(error, NotEnforceable):
            self._reporter.set_applied(None)
            self._reporter.set_problem("kernel", f"{text}; it is tried again")
            return
        stays = await self._kernel.do(self._enforcer.is_in_force)
        if not stays:
            self._reporter.set_applied(None)
        left = "the rules that were in force stay" if stays else "the kernel holds no rules, and every port is open"
        self._reporter.set_problem("kernel", f"{text}; {left}; it is tried again")

    async def _keep_when_due(self) -> None:
        await self._to_keep.wait()
        self._to_keep.clear()
        unkept = "a restart would begin with what was kept before"
        try:
            await self._wait_for_disk(self._disk.do(self._keep), "folder", unkept)
        except OperatorError as error:
            self._reporter.set_problem("folder", f"{error}; {unkept}")
            await self._clock.sleep(KEEP_AGAIN_S)
            self._to_keep.set()
        else:
            self._reporter.set_problem("folder", None)

    async def _wait_for_disk(self, work: Coroutine[object, object, _T], about: str, text: str) -> _T:
        """What the work returns; while a disk holds it up, that is told, and what follows from it: ``text``."""
        said = f"the {about}'s disk has not answered for {SLOW_DISK_S:.0f} s; {text}"
        slow = asyncio.get_running_loop().call_later(SLOW_DISK_S, self._reporter.set_problem, about, said)
        try:
            return await work
        finally:
            slow.cancel()

    def _keep(self) -> None:
        """Saves what a restart needs. It runs in a thread, because the disk may be slow."""
        enforced = self._enforced
        if enforced is not None and enforced is not self._saved:
            self._cache.save_view(enforced)
            self._saved = enforced
        declared = self._declared
        declared.keep()
        local = declared.observed, self._links.life(), self._renames.seen
        memory = Memory(self._enforcer.block, declared.remembered, self._channel.ends, *local)
        if memory != self._memory:
            self._cache.save_memory(memory)
            self._memory = memory

    async def _watch_kernel(self) -> None:
        """Repairs our table at once when another program changed it; changes of other tables cost next to nothing."""
        await self._watch.wait()
        async with self._enforcing:
            heard = self._watch.hear(self._enforcer.known_until)
            self._foreign.note(heard)
            if heard.touched or heard.lost:
                await self._mend(heard)
                return
        if not heard.more:
            await self._clock.sleep(_NOTICES_PAUSE_S)

    async def _look_at_foreign(self) -> None:
        await self._foreign.wait()
        self._reporter.set_foreign(await self._kernel.do(self._foreign.read))

    async def _mend(self, heard: Heard) -> None:
        began = self._clock.monotonic()
        try:
            mended = await self._kernel.do(self._enforcer.mend, heard.touched, self._declared.current.ports)
        except OperatorError as error:
            _log.warning("the touched rules could not be mended alone", extra={"fields": {"reason": str(error)}})
            self._enforcer.distrust()
            mended = True
        if mended:
            self._watch.note_tampering(heard, began)
            self._reporter.set_notice(self._watch.notice)
            self._to_enforce.set()

    async def _look_for_missed(self) -> None:
        """The safety net, at constant cost: looks for transactions that the kernel counted but sent no notice of."""
        await self._clock.sleep(COUNT_POLL_S)
        self._reporter.set_notice(self._watch.notice)
        self._foreign.note_time()
        if self._enforcing.locked() or self._to_enforce.is_set() or self._retry_at is not None:
            return
        async with self._enforcing:
            try:
                self._watch.compare(await self._kernel.do(self._enforcer.count_changes))
                intact = not self._watch.is_check_due() or await self._is_whole()
            except OperatorError as error:  # no sign that anything is wrong; it is looked at again
                _log.warning("the rules could not be looked at", extra={"fields": {"reason": str(error)}})
                return
        if not intact:
            self._watch.note_tampering(Heard(), self._clock.monotonic())
            self._enforcer.distrust()
            self._to_enforce.set()

    async def _is_whole(self) -> bool:
        began = self._clock.monotonic()
        self._foreign.distrust()
        try:
            return await self._kernel.do(self._enforcer.is_whole)
        finally:
            self._watch.checked(began)

    async def _follow_links(self) -> None:
        """Closes a port that is renamed as soon as the kernel says so, and has it looked where the ports are."""
        await self._links.changed()
        began = self._clock.monotonic()
        await self._look_for_renames()
        self._to_look.set()
        await self._clock.sleep(self._links_pause_s(began))

    async def _look_at_links(self) -> None:
        """The same at intervals, should a notice be missing."""
        await self._clock.sleep(PLACES_POLL_S)
        await self._look_for_renames()
        self._to_look.set()

    async def _look_for_renames(self) -> None:
        there = await asyncio.to_thread(self._links.numbered)
        if self._declared.remember(self._renames.look(self._declared.inventory, self._declared.remembered, there)):
            self._to_enforce.set()
        if self._renames.seen != self._memory.seen:
            self._to_keep.set()
        self._reporter.set_problem("renamed", _words(self._renames.find(self._declared.remembered)))

    async def _look_where_ports_are(self) -> None:
        await self._to_look.wait()
        self._to_look.clear()
        began, inventory = self._clock.monotonic(), self._declared.inventory
        found = await asyncio.to_thread(lambda: list(find_misplaced(inventory, self._links)))
        self._reporter.set_problem("places", _words(one for one in found if one.is_open))
        await self._clock.sleep(self._links_pause_s(began))

    async def _look_at_flows(self) -> None:
        crowding = None if self._machine is None else find_crowding(self._machine)
        self._reporter.set_problem("flows", None if crowding is None else f"{crowding.text}; {crowding.advice}")
        await self._clock.sleep(FLOWS_POLL_S)

    def _links_pause_s(self, began: float) -> float:
        return max(_LINKS_PAUSE_S, _LINKS_PAUSE_SHARE * (self._clock.monotonic() - began))

    async def _retry_when_due(self) -> None:
        await self._to_retry.wait()
        await self._clock.sleep(RETRY_POLL_S)
        due = [at for at in (self._retry_at, self._heal_at) if at is not None]
        if not due:
            self._to_retry.clear()
        elif self._clock.monotonic() >= min(due):
            self._to_enforce.set()


def _words(found: Iterable[Misplaced]) -> str | None:
    return "; ".join(f"{one.text}; {one.advice}" for one in found) or None
