"""The time, and waiting for it."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Seconds: of the day for signatures, monotonic for everything that lasts."""

    def now(self) -> float:
        """Seconds since 1970, as this machine believes."""
        ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
