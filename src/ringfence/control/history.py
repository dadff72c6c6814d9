"""Who did what: read from the store, checked, and what has been kept long enough forgotten.

Lives in the event loop's thread; the store is read in another, because the history is not in memory.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ringfence.control.commits import Commits, Outcome
from ringfence.policy.errors import Busy
from ringfence.policy.model import Snapshot
from ringfence.store import Checked, Decision, HistoryLine, HistoryQuery, Store, Tidied

TIDY_S: Final = 3600.0  # how long what time has ended may still be on disk
_AGAIN_S: Final = 60.0  # after which it is tried again, when the store could not be written

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class History:
    """``keep_s`` is how long lines are kept, None for ever; ``now_s`` the time of day, ``monotonic_s`` the other."""

    store: Store
    commits: Commits
    keep_s: int | None
    now_s: Callable[[], int]
    _due_s: float = 0.0

    async def read(self, wanted: HistoryQuery) -> list[HistoryLine]:
        """The lines that are asked for, oldest first; ``Busy`` when the store cannot be read now."""
        return await asyncio.to_thread(self.store.read_history, wanted)

    async def check(self) -> Checked:
        """Whether every line still is what was written, and none is missing between two. O(lines)."""
        return await asyncio.to_thread(self.store.check_history)

    async def tidy(self, monotonic_s: float) -> None:
        """Once an hour: old secrets whose overlap is over, and lines that are older than they are to be kept, go."""
        if monotonic_s < self._due_s:
            return
        now_s = self.now_s()
        tidied = Tidied(now_s, None if self.keep_s is None else now_s - self.keep_s)

        def decision(_: Snapshot) -> Decision[Outcome[None]]:
            return Decision(Outcome(None), records=(tidied,))

        try:
            await self.commits.run(decision)
        except Busy as error:
            _log.warning("old history and secrets are still there: %s", error)
            self._due_s = monotonic_s + _AGAIN_S
            return
        self._due_s = monotonic_s + TIDY_S
