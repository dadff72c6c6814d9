"""One host of a simulated fleet: a kernel, a disk and an inventory, which outlive the agent that runs on it."""

import asyncio
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from fake_doors import FakeBridging, FakeConntrack, FakeFiles, FakeLinks, FakeNames, FakeNftables, FakeNotices
from ringfence.agent.cache import Cache
from ringfence.agent.doors.bundle import Doors
from ringfence.agent.loop import Agent
from ringfence.nft import About
from ringfence.policy.errors import OperatorError

INVENTORY = Path("/etc/inventory.toml")
FOLDER = Path("/data")
PORTS = "veth-{}"


class Killed(BaseException):
    """The agent's process ended in this very moment, as by SIGKILL: no clean-up of its own runs."""


class MortalNftables(FakeNftables):
    """``fuse``: how many transactions remain before the agent is killed; ``burns_after``: once that one is in force.

    ``refusals``: the next of the agent's transactions are refused with these words.
    """

    def __init__(self, committed) -> None:
        super().__init__()
        self.fuse: int | None = None
        self.burns_after = False
        self.refusals = []
        self.is_foreign = False  # what comes is not of the agent
        self.refuse = lambda _: self.refusals.pop() if self.refusals else None
        self._committed = committed

    def commit(self, steps, *, generation, about) -> None:
        if self.is_foreign:
            refusals, self.refusals = self.refusals, []
            super().commit(steps, generation=generation, about=about)
            self.refusals = refusals
            return
        burns = self.fuse == 0
        self.fuse = None if self.fuse in (None, 0) else self.fuse - 1
        if burns and not self.burns_after:
            raise Killed
        super().commit(steps, generation=generation, about=about)
        self._committed()
        if burns:
            raise Killed


class Machine:
    """``instances``: addresses by name, those ``present`` are in the inventory. ``committed`` is told of the kernel."""

    def __init__(self, name, instances, *, clock, server, rng, committed) -> None:
        self.name = name
        self.instances = {one: tuple(map(ip_address, addresses)) for one, addresses in instances.items()}
        self.present = dict.fromkeys(instances)
        self.clock = clock
        self.kernel = MortalNftables(lambda: committed(self))
        self.conntrack = FakeConntrack()
        self.disk = FakeFiles()
        self.disturbed_at = -1.0  # when the kernel last lost rules without the agent's doing
        self.is_opened = True  # by somebody else, and not closed since; a kernel begins so
        self.newest = 0  # the highest revision that the kernel held since then
        self.agent = None
        self._server = server
        self._rng = rng
        self._task = None
        self._image = None
        self.write_inventory()

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def coming(self) -> About | None:
        """What the agent makes of the kernel, as it would be noted."""
        wanted = self.agent._wanted if self.agent else None
        return About(wanted.view.revision, wanted.epoch) if wanted else None

    def write_inventory(self) -> None:
        instances = "".join(
            f'[[instance]]\nname = "{name}"\ninterface = "{PORTS.format(name)}"\n'
            f"addresses = {[str(address) for address in self.instances[name]]}\n"
            for name in self.present
        )
        self.disk.replace(INVENTORY, f'host = "{self.name}"\nmanaged = ["veth*"]\n{instances}'.encode())

    def start(self) -> None:
        if self.is_running:
            return
        self.kernel.notices = FakeNotices()
        links = FakeLinks(*map(PORTS.format, self.instances))
        links.notices_s = 1.0  # a turn each, of which a play has not many
        kernel = self.kernel, self.kernel.notices, self.conntrack, links
        doors = Doors(*kernel, self.disk, FakeNames(), self.clock, FakeBridging())
        self.agent = Agent(doors, self._server, Cache(self.disk, FOLDER, self.name), INVENTORY, jitter=self._rng.random)
        self._task = asyncio.create_task(self._live(self.agent), name=f"agent of {self.name}")

    async def _live(self, agent) -> None:
        """Until it is killed; an agent that cannot start ends, and is started again by whoever watches it."""
        with suppress(OperatorError):
            await agent.start()
            await agent.run()

    async def kill(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.kernel.fuse = None

    async def reboot(self) -> None:
        await self.kill()
        self.kernel.table = None
        self._disturb()

    def flush(self) -> None:
        """What another program's ``nft flush ruleset`` does."""
        self.kernel.flush()
        self._disturb()

    def tamper(self, *steps) -> None:
        """Another program's transaction, which is neither refused nor ours to answer for."""
        self.kernel.is_foreign = True
        self.kernel.intrude(*steps)
        self.kernel.is_foreign = False
        self._disturb()

    def _disturb(self) -> None:
        self.disturbed_at = self.clock.monotonic()
        self.is_opened = True
        self.newest = 0

    def take_image(self) -> None:
        self._image = dict(self.disk.contents)

    async def restore_image(self) -> None:
        """The disk as it was when the image was taken; the kernel goes on as it is."""
        await self.kill()
        for path, content in (self._image or {}).items():
            if path != INVENTORY:
                self.disk.replace(path, content)

    def failure(self):
        """What ended the agent, if it was neither a kill nor a refusal to start."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        error = self._task.exception()
        return None if error is None or _is_kill(error) else error


def _is_kill(error) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_kill(one) for one in error.exceptions)
    return isinstance(error, Killed | asyncio.CancelledError)
