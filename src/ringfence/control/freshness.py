"""Makes sure that a server of a shared database knows what the others committed before it answers a request.

If the database is away, it answers from memory for a while; then it refuses everybody, because a key or host may have
been revoked elsewhere: soon when the database is silent, which may be so for this server alone, later when it is seen
not to run, because then nobody can have revoked anything since.
"""

import asyncio
import math
import time
from functools import partial
from typing import Final

from ringfence.control.commits import Commits
from ringfence.control.lookout import Lookout
from ringfence.policy.errors import Busy
from ringfence.store import Committed, Lost, Store

FRESH_S: Final = 1.0  # how long an answer is waited for
TRUSTED_S: Final = 1.0  # how long what a silent database said last is relied on: a key is revoked within a second

_Waiters = list[asyncio.Future[None]]


class Freshness:
    """Lives in the event loop's thread; ``commits`` fail when this server can never be fresh again.

    At most one question to the database is under way. All requests that come meanwhile share the next one, because what
    they must see may have been committed after this one was asked.
    """

    def __init__(self, store: Store, alone_s: float, commits: Commits) -> None:
        self._store = store
        self._alone_s = alone_s
        self._known_s = -math.inf  # the monotonic time up to which there was nothing new
        self._commits = commits
        self._lookout = Lookout(store.open_question)
        self._waiting: _Waiters = []
        self._is_asking = False
        self._is_overdue = False

    async def reach(self) -> None:
        """Returns when this server knows what all others have committed, or after a second: reads go on.

        While one such question to the database is overdue, later requests do not wait for another.
        """
        if not self._store.is_shared or self._is_overdue:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        if not self._is_asking:
            self._ask()
        await waiter

    def close(self) -> None:
        """Nobody asks any more."""
        self._lookout.close()

    @property
    def is_cut_off(self) -> bool:
        """Whether this server has been without the database for longer than it may serve what it has in memory."""
        return self._since_known(self._store.unheard_s) > self._alone_s

    def require(self) -> None:
        """Raises ``Busy`` when it is cut off, or who may ask may have been revoked for longer than a second."""
        is_silent = self._since_known(self._store.silent_s) > TRUSTED_S
        if is_silent or self.is_cut_off:
            raise Busy(
                f"nothing was done, because this server has not heard from its database for "
                f"{TRUSTED_S if is_silent else self._alone_s:.0f} s, and "
                "who may ask may have changed meanwhile: ask another server, or try again"
            )

    def _since_known(self, store_s: float) -> float:
        """``store_s``, or shorter where the question of the event loop was answered later."""
        return min(store_s, time.monotonic() - self._known_s)

    def _ask(self) -> None:
        """Mostly there is nothing new. What it is, if there is, the writer learns."""
        waiters, self._waiting = self._waiting, []
        self._is_asking = True
        self._lookout.ask(partial(self._look, waiters, self._store.settled, time.monotonic()))

    def _look(self, waiters: _Waiters, least: int, asked_s: float, newest: int | None) -> None:
        """A database that says less than was settled when it was asked is another one, or was set back."""
        if newest is not None and least <= newest <= self._store.settled:
            self._known_s = asked_s
            self._commits.publish()
            self._answer(waiters, None)
            return
        asked = asyncio.wrap_future(self._store.refresh())
        timer = asyncio.get_running_loop().call_later(FRESH_S, self._wait_no_more, waiters)

        def answered(answer: asyncio.Future[Committed[None]]) -> None:
            timer.cancel()
            self._answer(waiters, answer.exception())

        asked.add_done_callback(answered)

    def _answer(self, waiters: _Waiters, error: BaseException | None) -> None:
        self._is_asking = self._is_overdue = False
        self._settle(waiters, error)
        if self._waiting:
            self._ask()

    def _wait_no_more(self, waiters: _Waiters) -> None:
        self._is_overdue = True
        self._settle(waiters + self._waiting, None)
        self._waiting = []

    def _settle(self, waiters: _Waiters, error: BaseException | None) -> None:
        if isinstance(error, Lost):
            self._commits.fail(error)
        for waiter in waiters:
            if waiter.done():
                continue  # nobody waits any more
            if error is None or isinstance(error, Busy):
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
