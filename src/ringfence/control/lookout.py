"""Whether there is anything new in a shared database, asked from the event loop, without the writer's thread.

The way there and back costs thrice what the question does.

Input: how the question is opened. Output: the number of the newest commit, or None when the writer is to be asked.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ringfence.store import DatabaseFault, Question

SILENT_S: Final = 0.25  # a near database answers in a thousandth of that
_PAUSE_S: Final = 0.5  # between two attempts to connect

_Tell = Callable[[int | None], None]


class Lookout:
    """Lives in the event loop's thread. One asks at a time."""

    def __init__(self, open_question: Callable[[], Question]) -> None:
        self._open_question = open_question
        self._question: Question | None = None
        self._opening: asyncio.Task[None] | None = None
        self._opened_s = -_PAUSE_S
        self._tell: _Tell | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def ask(self, tell: _Tell) -> None:
        """Has ``tell`` called with the number; with None at once when there is no connection, which is then made."""
        self._tell = tell
        if self._question is None:
            self._open()
            self._answer(None)
            return
        try:
            self._question.ask()
        except DatabaseFault:
            self._give_up()
        else:
            self._timer = asyncio.get_running_loop().call_later(SILENT_S, self._give_up)

    def close(self) -> None:
        """Ends the connection, also one that is being made."""
        self._is_closed = True
        self._give_up()

    def _open(self) -> None:
        loop = asyncio.get_running_loop()
        if self._opening is None and not self._is_closed and loop.time() >= self._opened_s + _PAUSE_S:
            self._opened_s = loop.time()
            self._opening = loop.create_task(self._connect())

    async def _connect(self) -> None:
        with suppress(DatabaseFault):
            question = await asyncio.to_thread(self._open_question)
            if self._is_closed:
                question.close()
            else:
                self._question = question
                asyncio.get_running_loop().add_reader(question.fileno, self._hear, question)
        self._opening = None

    def _hear(self, question: Question) -> None:
        try:
            newest = question.hear()
        except DatabaseFault:
            self._give_up()  # also what nobody asked for: the database ends
            return
        if newest is not None:
            self._answer(newest)

    def _give_up(self) -> None:
        if self._question is not None:
            asyncio.get_running_loop().remove_reader(self._question.fileno)
            self._question.close()
            self._question = None
        self._answer(None)

    def _answer(self, newest: int | None) -> None:
        tell, self._tell = self._tell, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if tell is not None:
            tell(newest)
