"""The history of who did what: reads it from the store, verifies it, and deletes what has been kept long enough.

Lives in the event loop's thread; the store is read in another, because the history is not in memory.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ringfence.control.commits import Commits, Outcome
from ringfence.policy.errors import RingfenceError
from ringfence.policy.snapshot import Snapshot
from ringfence.store import Checked, Decision, HistoryLine, HistoryQuery, Store, Tidied

TIDY_S: Final = 3600.0  # between two clean-ups
_AGAIN_S: Final = 60.0  # before the next try, when the store could not be written

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class History:
    """``keep_s``: how long lines are kept, None for ever; ``now_s`` returns the time of day."""

    store: Store
    commits: Commits
    keep_s: int | None
    now_s: Callable[[], int]
    _due_s: float = 0.0

    async def read(self, wanted: HistoryQuery) -> list[HistoryLine]:
        """The wanted lines, oldest first; raises ``Busy`` when the store cannot be read now."""
        return await asyncio.to_thread(self.store.read_history, wanted)

    async def check(self) -> Checked:
        """Whether all lines are as they were written, and none between two is missing. O(lines)."""
        return await asyncio.to_thread(self.store.check_history)

    async def tidy(self, monotonic_s: float) -> None:
        """Once an hour, deletes secrets of keys whose overlap is over, and lines that have been kept long enough."""
        if monotonic_s < self._due_s:
            return
        now_s = self.now_s()
        tidied = Tidied(now_s, None if self.keep_s is None else now_s - self.keep_s)

        def decision(_: Snapshot) -> Decision[Outcome[None]]:
            return Decision(Outcome(None), records=(tidied,))

        try:
            await self.commits.run(decision)
        except RingfenceError as error:
            _log.warning("old history and secrets are still there: %s", error)
            self._due_s = monotonic_s + _AGAIN_S
            return
        self._due_s = monotonic_s + TIDY_S
