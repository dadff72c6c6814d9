"""Where the agent's log lines go: to a thread, which writes them.

Nothing of the agent waits for whoever reads its log: a pipe whose reader stands still, a journal that hangs. What is
more than is held then is lost, and how many lines is said as soon as it can be. A process that is killed takes with it
what it logged in its last moment.
"""

import logging
from threading import Condition, Thread
from typing import Final, TextIO

from ringfence.log import CountedLines

_MOST_LINES: Final = 1000  # that wait to be written
_END_S: Final = 1.0  # how long an end waits for them


class PatientLines(CountedLines):
    """``flush`` waits until all is written, for a second at most."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._waiting: list[str] = []
        self._is_writing = False
        self._changed = Condition()
        self._thread: Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            self._begin()
        except Exception:  # noqa: BLE001  as logging's own: a line that cannot be written must break nothing
            self.handleError(record)
            return
        with self._changed:
            if len(self._waiting) < _MOST_LINES:
                self._waiting.append(text)
            else:
                self._lose(1)
            self._changed.notify_all()

    def flush(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not (self._waiting or self._is_writing), _END_S)

    def _begin(self) -> None:
        if self._thread is None:
            thread = Thread(target=self._write_all, name="log", daemon=True)
            thread.start()
            self._thread = thread

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                texts, self._waiting, self._is_writing = self._waiting, [], True
            self._write(texts)
