"""Looks for commits of other servers: at once when the database notifies of one, and at least every half second."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from ringfence.store.database import Database, DatabaseFault, Ear
from ringfence.store.decision import Committed
from ringfence.store.follow import Lost

LOOK_S: Final = 0.5


class Listener:
    """A thread that calls ``look``, unless this server ``knows`` the news.

    Those of a database that was set back may all look known, so they do not put off the regular look. A lost
    connection is made anew, and looked without meanwhile. When others cannot be followed any more it ends.
    """

    def __init__(
        self, database: Database, look: Callable[[], Future[Committed[None]]], knows: Callable[[str], bool]
    ) -> None:
        self._database = database
        self._look = look
        self._knows = knows
        self._lost: Callable[[Lost], None] = lambda _: None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ringfence-listener", daemon=True)

    def start(self, lost: Callable[[Lost], None]) -> None:
        """``lost`` is called at the end, in this thread, with why others cannot be followed any more."""
        self._lost = lost
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        ear: Ear | None = None
        news: str | None = None
        looked_s = -math.inf
        while not self._stopping.is_set():
            if news is None or not self._knows(news) or time.monotonic() - looked_s > LOOK_S:
                looked_s = time.monotonic()
                error = self._look().exception()
                if isinstance(error, Lost):
                    self._lost(error)
                    break
            try:
                ear = ear or self._database.listen()
                news = ear.wait(LOOK_S)
            except DatabaseFault:
                ear = news = None
                self._stopping.wait(LOOK_S)
        if ear is not None:
            ear.close()
