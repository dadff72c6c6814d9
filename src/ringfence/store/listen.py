"""Looks for what other servers committed: at once when the database wakes it, else every half second."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from ringfence.store.database import Database, DatabaseFault, Ear
from ringfence.store.decision import Committed

LOOK_S: Final = 0.5


class Listener:
    """A thread that calls ``look``; a lost connection is made anew, and looked without meanwhile."""

    def __init__(self, database: Database, look: Callable[[], Future[Committed[None]]]) -> None:
        self._database = database
        self._look = look
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ringfence-listener", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        ear: Ear | None = None
        while not self._stopping.is_set():
            self._look().exception()
            try:
                ear = ear or self._database.listen()
                ear.wait(LOOK_S)
            except DatabaseFault:
                ear = None
                self._stopping.wait(LOOK_S)
        if ear is not None:
            ear.close()
