"""Other programs' tables, which may drop what ringfence allows: read again when the kernel notifies of a change.

It does not notify of changes by iptables-legacy, so they are read every five minutes as well.

Input: notices, and the door. Output: their base chains that may drop. Reading takes at most a twentieth of the time,
however often they change; nothing is done to them.
"""

import asyncio
from typing import Final

from ringfence.agent.doors.clock import Clock
from ringfence.agent.doors.nftables import NftablesDoor
from ringfence.nft import ForeignChain, Heard
from ringfence.policy.errors import OperatorError

_PAUSE_S: Final = 1.0  # between two readings at least, and 20 times what one takes
_PAUSE_SHARE: Final = 20
_REST_S: Final = 300  # the longest time without a reading


class ForeignTables:
    """Decides when they are to be read; at first they are."""

    def __init__(self, door: NftablesDoor, clock: Clock) -> None:
        self._door = door
        self._clock = clock
        self._due = asyncio.Event()
        self._due.set()
        self._pause_s = 0.0
        self._read_at = clock.monotonic()

    def note(self, heard: Heard) -> None:
        """Takes note of what was heard: others may have changed their tables."""
        if heard.others or heard.lost:
            self._due.set()

    def distrust(self) -> None:
        """Takes note that a notice may have been missed."""
        self._due.set()

    def note_time(self) -> None:
        """Called at intervals: makes a reading due when the last one is too long ago."""
        if self._clock.monotonic() - self._read_at >= _REST_S:
            self._due.set()

    async def wait(self) -> None:
        """Waits until they are to be read."""
        await self._due.wait()
        await self._clock.sleep(self._pause_s)

    def read(self) -> tuple[ForeignChain, ...]:
        """The base chains that may drop. O(others' lines). Raises ``OperatorError``."""
        self._due.clear()
        began = self._read_at = self._clock.monotonic()
        try:
            return tuple(chain for chain in self._door.read_foreign() if chain.may_drop)
        except OperatorError:
            self._due.set()
            raise
        finally:
            self._pause_s = max(_PAUSE_S, _PAUSE_SHARE * (self._clock.monotonic() - began))
