"""A server in memory, as the agent sees one: it accepts every claim, offers its newest view, keeps every report."""

import asyncio
from uuid import UUID

from ringfence.policy.errors import OperatorError
from ringfence.wire.feed import Claimed, FeedView, Heartbeat


class FakeServer:
    """``down`` makes every call fail; ``refuse`` names instances whose claim is refused."""

    def __init__(self, epoch: str = "e1") -> None:
        self.epoch = epoch
        self.down = False
        self.refuse: dict[str, str] = {}
        self.claims = []
        self.reports = []
        self.flow_reports = []
        self.counts = {}
        self.feeds = 0
        self.held: FeedView | None = None
        self.failures = 0
        self._newest = None
        self._woken = asyncio.Event()

    def publish(self, view, epoch=None) -> None:
        self._newest = FeedView(epoch or self.epoch, view)
        self._wake()

    def heartbeat(self) -> None:
        self._wake()

    def stop(self) -> None:
        self.down = True
        self._wake()

    def _wake(self) -> None:
        self._woken.set()
        self._woken = asyncio.Event()

    def _check(self) -> None:
        if self.down:
            self.failures += 1
            raise OperatorError("follow the feed", "Connection refused")

    async def claim(self, claim) -> Claimed:
        self._check()
        self.claims.append(claim)
        names = [instance.name for instance in claim.instances]
        accepted = tuple((name, UUID(int=1)) for name in names if name not in self.refuse)
        return Claimed(accepted, tuple(self.refuse.items()), 1)

    async def report(self, report) -> None:
        self._check()
        self.reports.append(report)

    async def counters(self, counts) -> None:
        self._check()
        self.counts |= {count.rule: count for count in counts}

    async def flows(self, report) -> None:
        self._check()
        self.flow_reports.append(report)

    def hold(self, view) -> None:
        self.held = view

    async def feed(self):
        self._check()
        self.feeds += 1
        offered = None
        while True:
            woken = self._woken
            if self._newest is not offered:
                offered = self._newest
                yield offered
            else:
                yield Heartbeat()
            await woken.wait()
            self._check()
