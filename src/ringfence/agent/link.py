"""The connection to the server: claims, follows the feed, and reconnects after growing, jittered pauses.

It runs until cancelled. The jitter spreads the reconnects of a thousand agents, whose server restarts, over seconds.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

from ringfence.agent.client import HostRefused, Server
from ringfence.agent.doors.clock import Clock
from ringfence.policy.errors import OperatorError
from ringfence.wire.feed import FeedView

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 15.0

_AWAY: Final = "no connection to the server"

_log: Final = logging.getLogger("ringfence.agent")


class Pauses:
    """How long to wait before each try; ``jitter`` returns random numbers from 0 to 1."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._bound_s = FIRST_PAUSE_S

    def reset(self) -> None:
        self._bound_s = FIRST_PAUSE_S

    def take(self) -> float:
        """Seconds: between half of the bound and the bound, which then doubles."""
        pause_s = self._bound_s * (0.5 + 0.5 * self._jitter())
        self._bound_s = min(self._bound_s * 2, LONGEST_PAUSE_S)
        return pause_s


async def follow(
    server: Server,
    clock: Clock,
    pauses: Pauses,
    *,
    connected: Callable[[], Awaitable[None]],
    offer: Callable[[FeedView], None],
) -> None:
    """Follows the feed for ever: calls ``connected`` (which claims), then ``offer`` with every view.

    After a failure it pauses and starts over. It logs a failure only if it differs from the one before, so that an hour
    without the server is one line.
    """
    said: str | None = None
    while True:
        try:
            await connected()
            async with aclosing(server.feed()) as feed:
                async for item in feed:
                    if said is not None:
                        _log.info("the server is back")
                    said = None
                    pauses.reset()
                    if isinstance(item, FeedView):
                        offer(item)
            failure = (_AWAY, "the server closed the feed")
        except HostRefused as error:
            failure = (error.reason, error.step)
        except OperatorError as error:
            failure = (_AWAY, str(error))
        # Numbers may be others at each try: by how many seconds a clock is wrong, say.
        shape = re.sub(r"\d+", "", " ".join(failure))
        if shape != said:
            _log.warning("%s; the rules in force stay", failure[0], extra={"fields": {"reason": failure[1]}})
        said = shape
        await clock.sleep(pauses.take())
