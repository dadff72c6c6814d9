"""What other servers of a shared database committed is known here before a request is answered; soon, if it is away.

Who is cut off for longer than it may answer alone trusts nobody: a key or host may have been revoked elsewhere.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ringfence.policy.errors import Busy, OperatorError
from ringfence.store import Committed, Lost, Store

if TYPE_CHECKING:
    from concurrent.futures import Future

FRESH_S: Final = 1.0  # how long a request waits to learn whether other servers committed


class Freshness:
    """Lives in the event loop's thread; ``fail`` is told when this server can never be fresh again."""

    def __init__(self, store: Store, alone_s: float, fail: Callable[[OperatorError], None]) -> None:
        self._store = store
        self._alone_s = alone_s
        self._fail = fail
        self._overdue: Future[Committed[None]] | None = None

    async def reach(self) -> None:
        """Returns when this server knows what any other had committed; soon, when the database is away: reads go on.

        While somebody's question, asked in vain, has no answer yet, nobody else waits for one.
        """
        if not self._store.is_shared or (self._overdue is not None and not self._overdue.done()):
            return
        asked = self._store.refresh()
        try:
            async with asyncio.timeout(FRESH_S):
                await asyncio.wrap_future(asked)
        except TimeoutError:
            self._overdue = asked
        except Busy:
            return
        except Lost as error:
            self._fail(error)
            raise

    @property
    def is_cut_off(self) -> bool:
        """Whether this server has been without the database for longer than it may answer alone."""
        return self._store.unheard_s > self._alone_s

    def require(self) -> None:
        """Raises ``Busy`` when it is cut off."""
        if self.is_cut_off:
            raise Busy(
                f"nothing was done, because this server has not heard from its database for {self._alone_s:.0f} s, and "
                "who may ask may have changed meanwhile: ask another server, or try again"
            )
