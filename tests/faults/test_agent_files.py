"""An agent killed at any write of its files: each is the old or the new one, whole, and nothing is counted twice."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fake_server import FakeServer
from faults.agent_files_child import LINE, MOST_BYTES, RULE, counted, save
from ringfence.agent.cache import Cache
from ringfence.agent.doors.files import SystemFiles
from ringfence.agent.flows import FILE

CHILD = Path(__file__).with_name("agent_files_child.py")
KEPT = {"view.json", "inventory.good.toml", "memory.json", "counters.json", FILE, f"{FILE}.1"}


@pytest.mark.long
@pytest.mark.parametrize("call", ["write", "fchmod", "fsync", "rename"])
def test_a_kill_at_any_system_call_leaves_every_file_whole_and_counts_nothing_twice(tmp_path, call):
    """Calls of that name, one run each, until a run comes to its end."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: apt install strace")
    number, is_killed = 1, True
    while is_killed:
        folder = tmp_path / str(number)
        save(folder, 1, lines=MOST_BYTES // len(LINE))
        is_killed = _killed_at(call, number, folder)
        cache = Cache(SystemFiles(), folder, "h1")
        found = [cache.load_view().view.revision, int(cache.load_inventory()), cache.load_memory().block]
        assert found == sorted(found, reverse=True), "they are saved one after the other"
        assert set(found) <= {1, 2}
        assert _told(folder) == 20
        assert _lines(folder) in (3, 4)
        save(folder, 2, lines=1)
        assert {path.name for path in folder.iterdir()} == KEPT, "nothing is left beside them"
        number += 1
        assert number < 30
    assert number > 5


def _told(folder):
    server = FakeServer()
    asyncio.run(counted(folder, 2).send(server))
    return server.counts[RULE].judged


def _lines(folder):
    texts = [(folder / name).read_text() for name in (FILE, f"{FILE}.1") if (folder / name).exists()]
    return len([json.loads(line) for text in texts for line in text.splitlines()])


def _killed_at(call, number, folder):
    inject = f"inject={call}:signal=KILL:when={number}"
    done = subprocess.run(  # noqa: S603  our own
        ["strace", "-f", "-e", f"trace={call}", "-e", inject, "-o", "/dev/null", sys.executable, CHILD, folder],  # noqa: S607
        capture_output=True, check=False, timeout=60, env={**os.environ, "PYTHONPATH": str(CHILD.parent.parent)},
    )  # fmt: skip
    if b"ptrace" in done.stderr:
        pytest.skip(f"no permission to trace: {done.stderr.decode().strip()}")
    assert done.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), done.stderr.decode()
    return done.returncode != 0
