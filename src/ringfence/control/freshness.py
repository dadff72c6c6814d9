"""What other servers of a shared database committed is known here before a request is answered; soon, if it is away."""

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

    def __init__(self, store: Store, fail: Callable[[OperatorError], None]) -> None:
        self._store = store
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
