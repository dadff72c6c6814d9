"""What a 64-byte packet costs from one namespace through a router to another, measured by a small C sender."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from functools import partial
from pathlib import Path

from bench.workload import ALLOWED_PORT, DENIED_PORT, NODES, RECEIVER, SENDER
from ringfence.agent.doors.conntrack import KernelConntrack
from ringfence.world import topology
from ringfence.world.topology import GATEWAY_MAC, NODE_INTERFACE, Node, Placed, World, build_world

FRAMES = 4_000
MAX_MS = 100
_HERE = Path(__file__).parent
_EVERY_FLOW = (0, 1)  # mark and mask: nobody sets bit 0
_LIVE_PORT, _FIRST_NEW_PORT = 1024, 2048
_TIMEOUT_S = 60.0
_OTHERS = 8  # packets that the router's own stack may send meanwhile: ARP, multicast reports
PROTOCOLS = ("udp", "tcp")
FATES = ("established", "new", "denied")


@dataclass(frozen=True)
class Tools:
    """The compiled C programs."""

    sender: Path
    connects: Path


def missing_tools() -> str:
    """Why nothing can be measured here; empty when it can."""
    return "" if shutil.which("gcc") else "gcc, which compiles the packet sender, is not installed"


@contextmanager
def compiled_tools() -> Iterator[Tools]:
    with tempfile.TemporaryDirectory() as name:
        made = [Path(name, source) for source in ("packet_sender", "tcp_connects")]
        for program in made:
            source = _HERE / f"{program.name}.c"
            subprocess.run(("gcc", "-O2", "-o", program, source), check=True, timeout=_TIMEOUT_S)  # noqa: S603, S607
        yield Tools(*made)


@dataclass(frozen=True)
class _Stream:
    """Frames that differ by their source port: ``flows`` of them. In the order of the sender's arguments."""

    kind: str
    from_port: int
    flows: int
    to_port: int
    frames: int


@dataclass
class Way:
    """From ``source`` to the receiver, through a router whose rules somebody has loaded."""

    tools: Tools
    world: World
    conntrack: KernelConntrack
    source: Node = SENDER
    denies: bool = True
    live: set[tuple[str, str]] = field(default_factory=set)  # flows that are established; shared by all ways of a world

    def close(self) -> None:
        self.conntrack.close()
        self.world.close()

    def cost_ns(self, protocol: str, fate: str) -> float:
        """CPU time per packet (median over bursts). The packets are counted where they should arrive, or not."""
        port = DENIED_PORT if fate == "denied" else ALLOWED_PORT
        first, flows = (_LIVE_PORT, 1) if fate == "established" else (_FIRST_NEW_PORT, FRAMES)
        if fate == "established" and (self.source.name, protocol) not in self.live:
            self._establish(protocol)
        kind = "udp" if protocol == "udp" else "ack" if fate == "established" else "syn"
        before = _received(self.world.placed[RECEIVER.name])
        sent, cost = self._send(self.source, RECEIVER, _Stream(kind, first, flows, port, FRAMES))
        arrived = _received(self.world.placed[RECEIVER.name]) - before
        if fate != "established":
            self._forget_flows()
        expected = 0 if fate == "denied" and self.denies else sent
        if not expected <= arrived <= expected + _OTHERS:
            raise RuntimeError(f"{arrived} of {sent} packets arrived, of {protocol} packets that are {fate}")
        return cost

    def connects_per_s(self, ms: int) -> float:
        """TCP connections made and closed in a second of CPU time of the thread that does both ends."""
        source, receiver = self.world.placed[self.source.name], self.world.placed[RECEIVER.name]
        descriptors = (source.namespace.fd, receiver.namespace.fd)
        command = (self.tools.connects, *descriptors, RECEIVER.addresses[0], ALLOWED_PORT, ms)
        found = _run(command, descriptors)
        self._forget_flows()
        return found[1]

    def _forget_flows(self) -> None:
        self.conntrack.delete(*_EVERY_FLOW)
        self.live.clear()

    def _establish(self, protocol: str) -> None:
        """The first packets of a flow, both ways."""
        there = (self.source, RECEIVER, _LIVE_PORT, ALLOWED_PORT)
        back = (RECEIVER, self.source, ALLOWED_PORT, _LIVE_PORT)
        kinds = ("udp", "udp", "udp") if protocol == "udp" else ("syn", "synack", "ack")
        for kind, (source, destination, port, to_port) in zip(kinds, (there, back, there), strict=True):
            self._send(source, destination, _Stream(kind, port, 1, to_port, 1))
        self.live.add((self.source.name, protocol))

    def _send(self, source: Node, destination: Node, stream: _Stream) -> tuple[int, float]:
        ends = (source.addresses[0], destination.addresses[0])
        command = (self.tools.sender, NODE_INTERFACE, GATEWAY_MAC, *ends, *astuple(stream), MAX_MS)
        return self.world.placed[source.name].namespace.run(partial(_run, command))


def open_way(tools: Tools) -> Way:
    """A world of its own, still without rules."""
    world = build_world(NODES, mute=True)
    return Way(tools, world, world.router.run(KernelConntrack))


def wake(world: World) -> None:
    """Give the mute nodes their addresses, so that sockets can be used."""
    for placed in world.placed.values():
        placed.namespace.run(partial(topology._configure_node, placed, mute=False))


def _received(placed: Placed) -> int:
    return placed.namespace.run(_received_here)


def _received_here() -> int:
    for line in Path("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines():
        name, _, figures = line.partition(":")
        if name.strip() == NODE_INTERFACE:
            return int(figures.split()[1])
    raise LookupError(NODE_INTERFACE)


def _run(command: tuple[object, ...], descriptors: tuple[int, ...] = ()) -> tuple[int, float]:
    done = subprocess.run(  # noqa: S603  our own program
        tuple(map(str, command)),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
        pass_fds=descriptors,
        env={"PATH": os.environ["PATH"]},
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    count, figure = done.stdout.split()
    return int(count), float(figure)
