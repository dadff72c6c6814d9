"""Where the server's log lines go: those of one turn of the event loop in one write.

A write gives the interpreter up, and under load the loop must wait until the writer's thread gives it back. A process
that is killed takes the lines of its last turn with it, some milliseconds; what is worse than information never waits.

A log that cannot be written, on a full disk or into a pipe that nobody reads, breaks nothing: its lines are lost, and
how many is said as soon as it can be.
"""

import asyncio
import logging
from typing import TextIO

from ringfence.log import CountedLines


class GatheredLines(CountedLines):
    """As a ``StreamHandler``; a line from where no event loop runs is written at once."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._waiting: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._waiting.append(self.format(record))
        except Exception:  # noqa: BLE001  as logging's own: a line that cannot be written must break nothing
            self.handleError(record)
            return
        if record.levelno > logging.INFO or not self._is_awaited():
            self.flush()

    def flush(self) -> None:
        self.acquire()
        try:
            waiting, self._waiting = self._waiting, []
            if waiting:
                self._write(waiting)
        finally:
            self.release()

    def _is_awaited(self) -> bool:
        """Whether the loop writes at its next turn what waits by now."""
        if len(self._waiting) == 1:
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:
                return False
        return True
