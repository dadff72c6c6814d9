"""The server as a simulated agent reaches it: the real plane and real octets, over a network with delays and cuts."""

import asyncio

from ringfence.control.plane import ControlPlane
from ringfence.control.settings import Settings
from ringfence.policy.errors import OperatorError, RingfenceError
from ringfence.wire.feed import (
    HEARTBEAT,
    FeedReader,
    decode_claim,
    decode_claimed,
    decode_report,
    encode_claim,
    encode_claimed,
    encode_report,
)

HEARTBEAT_S = 15.0


class ServerLife:
    """One process of the server, from its start over the store to its end by a kill."""

    def __init__(self, store, clock) -> None:
        self.plane = ControlPlane(store, Settings(), clock)
        self.ended = asyncio.Event()

    def kill(self) -> None:
        self.ended.set()
        for task in self.plane._tasks:
            task.cancel()


class Wire:
    """``life``: the running server or None. ``cut``: hosts that reach nobody."""

    def __init__(self, rng) -> None:
        self.life = None
        self.cut = {}
        self._rng = rng

    def cut_off(self, host) -> None:
        self.cut.setdefault(host, asyncio.Event()).set()

    def mend(self, host) -> None:
        self.cut.pop(host, None)

    def life_for(self, host) -> ServerLife:
        if self.life is None or host in self.cut:
            raise OperatorError("reach the server", "Connection refused")
        return self.life

    async def hop(self, host, life=None) -> ServerLife:
        """One way through the network; with ``life`` the other end must still be that process."""
        await asyncio.sleep(self._rng.choice((0.0002, 0.001, 0.02, 0.3)))
        found = self.life_for(host)
        if life not in (None, found):
            raise OperatorError("reach the server", "Connection reset by peer")
        return found


class SimulatedServer:
    """What an agent asks of the server, by host."""

    def __init__(self, wire: Wire, host) -> None:
        self._wire = wire
        self._host = host
        self._reader = FeedReader()
        self._follower = None

    async def _ask(self, question):
        life = await self._wire.hop(self._host)
        life.plane.seen(self._host)
        try:
            answer = await question(life.plane)
        except RingfenceError as error:
            raise OperatorError("ask the server", str(error)) from error
        await self._wire.hop(self._host, life)
        return answer

    async def claim(self, claim):
        asked = decode_claim(encode_claim(claim))
        return decode_claimed(encode_claimed(await self._ask(lambda plane: plane.claim(self._host, asked))))

    async def report(self, report) -> None:
        said = decode_report(encode_report(report))
        follower = self._follower
        if follower is None:
            raise OperatorError("report", "there is no connection to report over")
        life = await self._wire.hop(self._host)
        if follower is self._follower:
            life.plane.seen(self._host)
            life.plane.report(self._host, said, offered=follower.offered)

    async def counters(self, counts) -> None:
        """Nobody looks at them here."""

    async def flows(self, report) -> None:
        """Nobody looks at them here."""

    def hold(self, view) -> None:
        self._reader.hold(view)

    async def feed(self):
        life = await self._wire.hop(self._host)
        life.plane.seen(self._host)
        lines = asyncio.Queue()
        follower = life.plane.feed.follow(
            self._host, self._reader.base, send=lines.put_nowait, end=lambda: lines.put_nowait(None)
        )
        self._follower = follower
        try:
            while (line := await self._next(lines, life)) is not None:
                await self._wire.hop(self._host, life)
                life.plane.seen(self._host)
                yield self._reader.decode_line(line)
        finally:
            self._follower = None
            life.plane.feed.forget(follower)
        raise OperatorError("follow the feed", "Connection reset by peer")

    async def _next(self, lines, life):
        """The next line, a heartbeat after a while without one, None when the server's process ended."""
        coming, ended = asyncio.ensure_future(lines.get()), asyncio.ensure_future(life.ended.wait())
        try:
            await asyncio.wait({coming, ended}, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return None
            return coming.result() if coming.done() else HEARTBEAT
        finally:
            coming.cancel()
            ended.cancel()
