"""Rate limits by name. The time is an argument; memory is bounded, however many names come."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

MAX_NAMES: Final = 10_000  # remembered: those that came last


@dataclass(slots=True)
class Meter:
    """Lets each name through ``rate`` times a second, and ``burst`` times at once (the generic cell rate algorithm).

    Keeps one number for each name: the time at which all it was let through will be within the rate. ``rate`` 0 means
    no limit.
    """

    rate: float
    burst: float
    _paid_s: OrderedDict[object, float] = field(default_factory=OrderedDict)

    def take(self, name: object, now_s: float) -> float:
        """0 when ``name`` may go on, which is then counted; else the seconds until it may."""
        if not self.rate:
            return 0.0
        known_s = self._paid_s.get(name, now_s)
        paid_s = max(now_s, known_s) + 1 / self.rate
        late_s = paid_s - now_s - self.burst / self.rate
        if late_s > 0:
            return late_s
        self._paid_s[name] = paid_s
        self._paid_s.move_to_end(name)
        if len(self._paid_s) > MAX_NAMES:
            self._paid_s.popitem(last=False)
        return 0.0
