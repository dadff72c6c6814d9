"""The time: time of day for what people read, monotonic for every deadline, so that no jump of the clock matters."""

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Where the control plane gets the time from."""

    def now_s(self) -> float:
        """Seconds since the epoch."""

    def monotonic_s(self) -> float:
        """Seconds since some moment; never goes back."""


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's own."""

    def now_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()
