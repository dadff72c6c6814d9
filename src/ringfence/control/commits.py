"""The way from the event loop to the store's writer and back: runs decisions, and publishes what they changed.

A committed change is published even if its caller no longer waits.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from ringfence.control.held import require_held
from ringfence.control.views import Change, ViewCache
from ringfence.policy.errors import OperatorError
from ringfence.policy.facts import Fact, apply_facts
from ringfence.policy.model import Operation
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import HostName, KeyId, OrganisationId
from ringfence.store import (
    Committed,
    Decide,
    Followed,
    HostsSeen,
    Lost,
    Store,
    StoredKey,
    StoredOperation,
    next_revision,
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Foreign:
    """What else follows from another server's decision; ``keys`` are all keys, or None when none changed."""

    settled: tuple[Operation, ...]
    keys: tuple[StoredKey, ...] | None
    seen: tuple[HostsSeen, ...]


class Outcome(NamedTuple, Generic[T_co]):  # as Decision
    """What a decision returns to its caller, and what must follow from it even if the caller no longer waits."""

    value: T_co
    change: Change | None = None
    opened: StoredOperation | None = None
    revoked: tuple[KeyId, ...] = ()
    removed: HostName | None = None
    foreign: Foreign | None = None
    rekeyed: HostName | None = None


class Commits:
    """Runs decisions through the store, in the order in which they are asked for."""

    def __init__(self, store: Store, publish: Callable[[Outcome[object]], None]) -> None:
        self._store = store
        self._publish = publish
        self._arrived: deque[Callable[[], None]] = deque()
        self._is_woken = False
        self.failure: asyncio.Future[OperatorError] = asyncio.get_running_loop().create_future()

    def fail(self, error: OperatorError) -> None:
        """Ends this server, because its memory no longer agrees with the store: it must be restarted."""
        if not self.failure.done():
            _log.critical("this server ends, to be started anew: %s", error)
            self.failure.set_result(error)

    async def run(self, decide: Decide[Outcome[T]]) -> T:
        """The value that ``decide`` returned, once the decision is on stable storage.

        Raises:
            RingfenceError: what ``decide`` raised; ``Busy`` when nothing could be written. Either way nothing changed.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = loop.create_future()

        def deliver(outcome: "Committed[Outcome[T]] | Exception") -> None:  # quoted: else evaluated for each change
            self._arrived.append(lambda: self._arrive(outcome, waiter))
            self._wake(loop)

        self._store.ask(decide, deliver)
        return await waiter

    def follow(self, outcome_of: Callable[[Followed], Outcome[None]]) -> None:
        """Publishes from now on what other servers decide, too, in the order of commits."""
        loop = asyncio.get_running_loop()

        def hear(followed: Followed) -> None:
            outcome = outcome_of(followed)
            self._arrived.append(lambda: self._make_known(outcome))
            self._wake(loop)

        def lost(error: Lost) -> None:
            self._arrived.append(lambda: self.fail(error))
            self._wake(loop)

        self._store.follow(hear, lost)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wakes the loop once for a batch of commits. Called in the writer's thread."""
        if not self._is_woken:
            self._is_woken = True
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self.publish)

    def publish(self) -> None:
        """What the writer has told of so far is known to all."""
        self._is_woken = False  # before looking: what arrives from now on wakes again
        while self._arrived:
            self._arrived.popleft()()

    def _arrive(self, outcome: Committed[Outcome[T]] | Exception, waiter: asyncio.Future[T]) -> None:
        """Publishes a commit and hands its value to the caller; an exception goes to the caller alone."""
        if isinstance(outcome, Exception):
            if isinstance(outcome, Lost):
                self.fail(outcome)
            if not waiter.done():
                waiter.set_exception(outcome)
            return
        self._make_known(outcome.result)
        if not waiter.done():
            waiter.set_result(outcome.result.value)

    def _make_known(self, outcome: Outcome[object]) -> None:
        """Publishes a committed outcome. If that fails, the caller still gets its answer, and this server ends."""
        try:
            self._publish(outcome)
        except Exception as error:  # noqa: BLE001  any defect of ours: going on would spread it
            _log.exception("a committed change could not be published")
            self.fail(OperatorError("publishing a change that is stored", repr(error)))


def advance(
    cache: ViewCache, snapshot: Snapshot, facts: tuple[Fact, ...], *, held_by: OrganisationId | None = None
) -> tuple[Snapshot | None, Change | None]:
    """The snapshot and the views that ``facts`` lead to; None for both when there are no facts.

    Raises:
        Conflict: an assertion of the organisation ``held_by`` would be broken.
    """
    if not facts:
        return None, None
    after = apply_facts(snapshot, facts, revision=next_revision(snapshot))
    if held_by is not None:
        require_held(snapshot, after, held_by)
    return after, cache.change(snapshot, after, facts)
