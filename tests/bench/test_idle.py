"""What an agent costs that has nothing to do but read its counters every ten seconds. Run by `make bench`.

The real agent, as a process, with a view from its disk and no flood, at a server that says nothing but that it lives;
or, beside it, without a server. Run as a program with sizes (10000 100000). One JSON object on stdout: CPU in percent
of one core, and its memory.
"""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from bench.test_flush import SERVER, open_agent
from ringfence.policy.values import Revision
from ringfence.wire.feed import HEARTBEAT, Claimed, encode_claimed

SIZE = 10_000
OVER_S = 40.0  # four readings
BOUND_PERCENT, BOUND_MB = 0.5, 60.0
HEARTBEAT_S = 15.0

pytestmark = pytest.mark.netns
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(process: int) -> float:
    """Of all its threads, in user and kernel mode."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mb(process: int) -> dict[str, float]:
    """All that it has in memory; that with its share of what others have too; and what it alone has."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    alone = kib["Private_Clean"] + kib["Private_Dirty"]
    return {
        f"{name}_mb": round(size / 1024, 1) for name, size in (("rss", kib["Rss"]), ("pss", kib["Pss"]), ("uss", alone))
    }


@contextlib.contextmanager
def quiet_server(path: Path):
    """A server at a unix socket that takes every claim and report, and whose feed has heartbeats and no more."""
    over = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(_serve_until(over, path),))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def _serve_until(over: threading.Event, path: Path) -> None:
    await asyncio.start_unix_server(_serve, path)
    await asyncio.to_thread(over.wait)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    claimed = encode_claimed(Claimed((), (), Revision(1)))
    with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"upgrade:" in head:
                await _beat(writer)
            _, _, rest = head.partition(b"content-length:")
            await reader.readexactly(int(rest.split()[0]) if rest else 0)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(claimed), claimed))


async def _beat(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ringfence-feed\r\n\r\n")
    while True:
        writer.write(HEARTBEAT)
        await asyncio.sleep(HEARTBEAT_S)


def measure(folder: Path, rules: int = SIZE, *, served: bool = True) -> dict[str, float]:
    with (
        quiet_server(folder / SERVER) if served else contextlib.nullcontext(),
        open_agent(folder, rules) as (_, agent),
    ):
        time.sleep(15.0)  # the start and the first reading are over
        began_s, before_s = time.monotonic(), cpu_s(agent)
        time.sleep(OVER_S)
        percent = 100 * (cpu_s(agent) - before_s) / (time.monotonic() - began_s)
        return {"rules": rules, "server": served, "cpu_percent": round(percent, 2), **memory_mb(agent)}


def test_an_idle_agent_costs_little(tmp_path):
    found = measure(tmp_path)
    sys.stdout.write(json.dumps({"idle": found}) + "\n")
    assert found["cpu_percent"] < 10 * BOUND_PERCENT  # far from what is measured: this machine has neighbours
    assert found["rss_mb"] < 1.5 * BOUND_MB


if __name__ == "__main__":
    for size in map(int, sys.argv[1:]):
        for served in (True, False):
            with tempfile.TemporaryDirectory() as name:
                sys.stdout.write(json.dumps(measure(Path(name), size, served=served)) + "\n")
