"""The only writer: takes what is queued, decides each over the newest state, commits all at once, then publishes.

Input: decisions to make, as functions of a snapshot. Output: futures that resolve when the decision is on stable
storage. A reader sees a snapshot only after its commit; when a commit fails, nothing is published and every caller of
the batch gets ``Busy``, and can safely try again.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar

from ringfence.policy.errors import Busy, OperatorError, RingfenceError
from ringfence.policy.snapshot import Snapshot
from ringfence.store.database import Absent, ConstraintBroken, Database, DatabaseFault, InDoubt, Unreachable
from ringfence.store.decision import Committed, Decide, Decision
from ringfence.store.follow import Follower, Lost
from ringfence.store.history import load_chain
from ringfence.store.rows import Rows
from ringfence.store.save import save_decision

T = TypeVar("T")
Settle = Callable[[Committed[T] | Exception], None]

MAX_BATCH: Final = 256  # decisions per commit: bounds how long one caller can wait for the others

IN_DOUBT_S: Final = 20.0  # how long requests wait behind a commit whose answer was lost, before they get ``Busy``
_PAUSE_S: Final = 0.1
UNWRITTEN: Final = "nothing was applied: the database cannot be written now, the server's log says why; try again"
_NOTHING: Final[Decision[object]] = Decision(None)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Request(Generic[T]):
    """``decide`` is None if the caller only wants to see what other servers have committed."""

    decide: Decide[T] | None
    settle: Settle[T]


class _NeverKnown(Exception):
    """The server ended before it learned whether a commit was made."""


class Writer:
    """A thread that owns the database, and the snapshot that grows between two commits."""

    def __init__(self, database: Database, follower: Follower, snapshot: Snapshot, *, seal_key: bytes) -> None:
        self._database = database
        self._follower = follower
        self.snapshot = snapshot  # the newest committed one; may be read from any thread
        self._seal_key = seal_key
        self._queue: SimpleQueue[_Request[object] | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._closing = threading.Event()
        self._heard_s = time.monotonic()
        self._absent_s = -math.inf
        self._settled = follower.number
        self._thread = threading.Thread(target=self._run, name="ringfence-writer", daemon=True)
        self._thread.start()

    @property
    def heard_s(self) -> float:
        """The monotonic time up to which all commits of others are known here; may be read in any thread."""
        return self._heard_s

    @property
    def absent_s(self) -> float:
        """The monotonic time at which the database was last seen not to run; as ``heard_s``."""
        return self._absent_s

    @property
    def settled(self) -> int:
        """The number of the newest commit whose callers, and who hears of others', were told; as ``heard_s``."""
        return self._settled

    def submit(self, decide: Decide[T] | None) -> Future[Committed[T]]:
        """The future of a decision. It raises what ``decide`` raised, or ``Busy`` if nothing could be written.

        Without ``decide`` it resolves when what others had committed is published here.
        """
        future: Future[Committed[T]] = Future()
        future.set_running_or_notify_cancel()

        def settle(outcome: Committed[T] | Exception) -> None:
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self.ask(decide, settle)
        return future

    def ask(self, decide: Decide[T] | None, settle: Settle[T]) -> None:
        """As ``submit``, but cheaper: ``settle`` is called with the outcome, in the writer's thread."""
        with self._gate:
            if not self._closing.is_set():
                self._queue.put(_Request(decide, settle))  # type: ignore[arg-type]  # the queue forgets the result's type
                return
        settle(Busy("the server is stopping; nothing was applied"))

    def close(self) -> None:
        """Writes what is queued, then ends the thread and the connection."""
        with self._gate:
            if not self._closing.is_set():
                self._closing.set()
                self._queue.put(None)
        self._thread.join()
        self._database.close()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            batch, is_last = self._take()
            try:
                outcomes = self._commit(batch)
            except _NeverKnown:
                _log.critical("%d changes were in doubt when the server ended; their callers get no answer", len(batch))
                continue
            except Exception as error:  # noqa: BLE001  the thread must survive any defect, or all writes would hang
                if not isinstance(error, Lost):  # which ends the server, and is told then
                    _log.exception("a batch of %d changes was not written", len(batch))
                self._database.rollback()
                outcomes = [_told(error) for _ in batch]
            for request, outcome in zip(batch, outcomes, strict=True):
                request.settle(outcome)
            self._settled = self._follower.number

    def _take(self) -> tuple[list[_Request[object]], bool]:
        """Waits for one request and takes what else is queued, up to a full batch. True if the writer is to end."""
        batch: list[_Request[object]] = []
        request = self._queue.get()
        while request is not None:
            batch.append(request)
            if len(batch) == MAX_BATCH:
                return batch, False
            try:
                request = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _commit(self, batch: list[_Request[object]]) -> list[Committed[object] | Exception]:
        """The outcome of each request, in order. Afterwards either all that succeeded is published, or nothing is."""
        try:
            if all(request.decide is None for request in batch):
                self._catch_up()
                return [Committed(_NOTHING, self.snapshot) for _ in batch]
            self._database.begin()
            self._catch_up()
            outcomes, working = self._decide(batch)
            self._database.commit(self._follower.news)
        except InDoubt as error:
            if not self._was_committed():
                return self._refuse(batch, error)
        except ConstraintBroken as error:
            self._database.rollback()
            if len(batch) > 1:  # commit each by itself, so that only the defective one fails
                return [outcome for request in batch for outcome in self._commit([request])]
            _log.exception("the database refused a decision; it was not applied")
            return [OperatorError("writing to the store", f"the decision breaks a constraint: {error}")]
        except DatabaseFault as error:
            return self._refuse(batch, error)
        self._follower.committed()
        self.snapshot = working
        return outcomes

    def _refuse(self, batch: list[_Request[object]], error: DatabaseFault) -> list[Committed[object] | Exception]:
        _log.warning("%s cannot be written, %d changes were not applied: %s", self._database.name, len(batch), error)
        self._note_absence(error)
        self._database.rollback()
        if not isinstance(error, Unreachable) and any(request.decide is None for request in batch):
            with suppress(DatabaseFault):
                self._catch_up()  # reading works even while another server hangs and holds the lock
        return self._busy(batch)

    def _note_absence(self, error: DatabaseFault) -> None:
        if isinstance(error, Absent):
            self._absent_s = time.monotonic()

    def _catch_up(self) -> None:
        asked_s = time.monotonic()
        self.snapshot = self._follower.catch_up(self.snapshot)
        self._heard_s = asked_s

    def _busy(self, batch: list[_Request[object]]) -> list[Committed[object] | Exception]:
        return [Busy(UNWRITTEN) for _ in batch]

    def _was_committed(self) -> bool:
        """Asks until the database answers: an error to the callers would say "not applied", which may be untrue.

        Raises:
            _NeverKnown: this server is stopping, and the database did not answer the last time.
        """
        patience_s = time.monotonic() + IN_DOUBT_S
        while True:
            is_last = self._closing.is_set()
            try:
                return self._follower.was_committed()
            except DatabaseFault as error:
                self._note_absence(error)
                if is_last:
                    raise _NeverKnown from error
                if time.monotonic() > patience_s:
                    self._send_away(error)
                self._closing.wait(_PAUSE_S)

    def _send_away(self, error: DatabaseFault) -> None:
        """Answers ``Busy`` to the requests queued behind a commit in doubt: nothing was done for those."""
        waiting: list[_Request[object]] = []
        while not self._closing.is_set() and not self._queue.empty():
            request = self._queue.get()
            if request is None:
                self._queue.put(None)  # the end marker, for ``_take``
                break
            waiting.append(request)
        if waiting:
            _log.warning("%d changes waited behind one in doubt and were not applied: %s", len(waiting), error)
        for request, outcome in zip(waiting, self._busy(waiting), strict=True):
            request.settle(outcome)

    def _decide(self, batch: list[_Request[object]]) -> tuple[list[Committed[object] | Exception], Snapshot]:
        """Makes each decision over the result of the ones before it; writes the rows of all together."""
        outcomes: list[Committed[object] | Exception] = []
        working, rows, chain = self.snapshot, Rows(), load_chain(self._database)
        for request in batch:
            outcome = Committed(_NOTHING, working) if request.decide is None else _decide_one(request.decide, working)
            if isinstance(outcome, Committed):
                save_decision(rows, outcome.decision, working, seal_key=self._seal_key, chain=chain)
                working = outcome.snapshot
            outcomes.append(outcome)
        self._follower.note(rows, [outcome.decision for outcome in outcomes if isinstance(outcome, Committed)])
        self._database.write(rows.runs())
        return outcomes, working


def _told(error: Exception) -> RingfenceError:
    """The error to give to callers when the cause is not their request."""
    return error if isinstance(error, RingfenceError) else OperatorError("writing to the store", repr(error))


def _decide_one(decide: Decide[object], working: Snapshot) -> Committed[object] | Exception:
    """A decision, or the error to give to its own caller."""
    try:
        decision = decide(working)
    except RingfenceError as error:
        return error
    except Exception as error:  # noqa: BLE001  a defect in one decision must not affect the others
        _log.exception("a decision failed; it was not applied")
        return OperatorError("deciding", repr(error))
    return Committed(decision, decision.after or working)
