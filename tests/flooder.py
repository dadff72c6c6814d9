"""A flood of packets of fixed kinds, sent and counted by a small C program: it shares no lock with whoever tests.

Frames are prepared here; ``Flood.counts`` may be asked at any time. A receiver hears all of its namespace, also what
comes by an interface that was not there when the flood began.
"""

import contextlib
import mmap
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import Way
from ringfence.world.packets import ETHERTYPE
from ringfence.world.topology import GATEWAY_MAC, Placed, World
from waiting import wait_until

_SOURCE = Path(__file__).with_name("flooder.c")
_FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")
_FLOWS = 400  # of every kind
_SOL_PACKET = 263
_PACKET_IGNORE_OUTGOING = 23
_ETH_P_ALL = 0x0003
_STOP_S = 10.0


def build_flooder(folder: Path) -> Path:
    """The program; skips the test where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: apt install gcc libc6-dev")
    program = folder / "flooder"
    subprocess.run((compiler, *_FLAGS, "-o", program, _SOURCE), check=True)  # noqa: S603  our own source
    return program


@dataclass(frozen=True, slots=True)
class Counts:
    """Packets by kind, in the order of the ways."""

    sent: tuple[int, ...]
    arrived: tuple[int, ...]
    at: float


class Flood:
    """Packets of each way, in turn, from ``start`` to ``close``; the first ``allowed`` kinds are waited for."""

    def __init__(self, program: Path, world: World, ways: list[Way], *, allowed: int) -> None:
        self._ways = ways
        self._allowed = allowed
        self._program = program
        folder = program.parent
        self._counters = folder / "counters"
        self._counters.write_bytes(bytes(8 * (2 + 2 * len(ways))))
        names = sorted({way.source for way in ways})
        self._frames = folder / "frames"
        self._frames.write_bytes(b"".join(_records(world, ways, names)))
        with self._counters.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), 0)
        self._senders = [world.placed[name].namespace.run(lambda: _packet_socket(0)) for name in names]
        self._receivers = [placed.namespace.run(lambda: _packet_socket(_ETH_P_ALL)) for placed in world.placed.values()]
        self._process = self._start()
        wait_until(lambda: sum(self.counts.sent) > 0)

    @property
    def counts(self) -> Counts:
        numbers = struct.unpack(f"={2 * len(self._ways)}Q", self._map[16:])
        half = len(self._ways)
        return Counts(numbers[:half], numbers[half:], time.monotonic())

    def passed(self, counts: Counts) -> int:
        """How many of the kinds that are not allowed have arrived."""
        return sum(counts.arrived[self._allowed :])

    def finish(self) -> Counts:
        """The flood is over, and everything that was under way has arrived."""
        self._map[0:8] = struct.pack("=Q", 1)
        assert self._process.wait(_STOP_S) == 0
        return self.counts

    def lost(self, counts: Counts) -> int:
        """How many of the allowed kinds did not arrive; to be asked of a finished flood."""
        return sum(counts.sent[: self._allowed]) - sum(counts.arrived[: self._allowed])

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for opened in (*self._senders, *self._receivers):
            opened.close()
        self._map.close()

    def _start(self) -> subprocess.Popen:
        senders, receivers = ([opened.fileno() for opened in group] for group in (self._senders, self._receivers))
        words = [
            self._program,
            self._frames,
            self._counters,
            len(self._ways),
            self._allowed,
            *senders,
            "--",
            *receivers,
        ]
        return subprocess.Popen(list(map(str, words)), pass_fds=(*senders, *receivers))  # noqa: S603  our own program


def _records(world: World, ways: list[Way], names: list[str]):
    for port in range(20000, 20000 + _FLOWS):
        for kind, way in enumerate(ways):
            frame = frame_of(world.placed[way.source], way.again(source_port=port), kind)
            yield struct.pack("=III", kind, names.index(way.source), len(frame)) + frame + bytes(-len(frame) % 4)


def frame_of(placed: Placed, way: Way, tag: int) -> bytes:
    """The whole frame of a way, as its source would send it: to the router, where the way names nobody."""
    addresses = bytes.fromhex(((way.to or GATEWAY_MAC) + (way.mac or placed.mac)).replace(":", ""))
    return addresses + ETHERTYPE[way.packet.family].to_bytes(2, "big") + way.octets(tag)


def _packet_socket(ethertype: int) -> socket.socket:
    """Called inside a namespace: bound to no interface, so that it hears those to come as well."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype))
    opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    os.set_inheritable(opened.fileno(), True)  # noqa: FBT003  the standard library's own signature
    return opened


@contextlib.contextmanager
def forgetting(conntrack, every_s: float = 0.05):
    """Meanwhile conntrack is made to forget every flow, so that most packets of the flood open one."""
    over = threading.Event()

    def run():
        while not over.wait(every_s):
            conntrack.delete(0, 1)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
