"""An event loop in which time passes only when nothing else can happen, and in which threads' work is done on the spot.

Whatever runs in it runs in one order: the one that its own choices make. It has a bounded number of turns, so that what
never ends is found and not waited for.
"""

import asyncio
import selectors

MOST_TURNS = 200_000  # a play takes some 5,000


class Endless(BaseException):  # no step may go on after it
    """More turns were taken than anything that ends takes."""


class _NobodyCalls(selectors.BaseSelector):
    """No file is ever ready; waiting for one makes time pass instead."""

    def __init__(self, passed) -> None:
        self._passed = passed
        self._kept = {}

    def register(self, fileobj, events, data=None):
        key = selectors.SelectorKey(fileobj, 0, events, data)
        self._kept[fileobj] = key
        return key

    def unregister(self, fileobj):
        return self._kept.pop(fileobj)

    def select(self, timeout=None):
        if timeout is None:
            raise RuntimeError("everything waits for something that can never happen")
        self._passed(timeout)
        return []

    def get_map(self):
        return self._kept

    def close(self):
        self._kept.clear()


class VirtualLoop(asyncio.SelectorEventLoop):
    """``asyncio.Runner(loop_factory=VirtualLoop)``; begins at second 0."""

    def __init__(self) -> None:
        self._now = 0.0
        self.turns = 0
        super().__init__(_NobodyCalls(self._pass))

    def _pass(self, seconds: float) -> None:
        self._now += seconds
        self._take_turn()

    def _take_turn(self) -> None:
        self.turns += 1
        if self.turns > MOST_TURNS:
            self.turns = 0  # for what there is to end
            raise Endless(f"no end after {MOST_TURNS} turns, at second {self._now:.1f}")

    def time(self) -> float:
        return self._now

    def _write_to_self(self) -> None:
        """Nothing sleeps that would have to be woken."""

    def run_in_executor(self, executor, func, *args):  # noqa: ARG002  no thread is needed
        self._take_turn()  # whoever waits for what is done gives no turn to anybody
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  it is the caller's, as from a thread
            done.set_exception(error)
        return done


class LoopClock:
    """The loop's time as the agent's clock and as the server's; ``skew_s`` is what the time of day is wrong by."""

    def __init__(self, skew_s: float = 0.0) -> None:
        self.skew_s = skew_s

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> float:
        return 1_700_000_000.0 + self.monotonic() + self.skew_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    monotonic_s = monotonic
    now_s = now
