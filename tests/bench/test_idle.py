"""What an agent costs that has nothing to do but read its counters every ten seconds. Run by `make bench`.

The real agent, as a process, with a view from its disk and no flood. Run as a program with sizes (10000 100000). One
JSON object on stdout: CPU in percent of one core over half a minute, and its memory.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import pytest

from bench.test_flush import open_agent

SIZE = 10_000
OVER_S = 40.0  # four readings
BOUND_PERCENT, BOUND_MB = 0.5, 60.0

pytestmark = pytest.mark.netns
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(process: int) -> float:
    """Of all its threads, in user and kernel mode."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def measure(folder: Path, rules: int = SIZE) -> dict[str, float]:
    with open_agent(folder, rules) as (_, agent):
        time.sleep(15.0)  # the start and the first reading are over
        began_s, before_s = time.monotonic(), cpu_s(agent)
        time.sleep(OVER_S)
        percent = 100 * (cpu_s(agent) - before_s) / (time.monotonic() - began_s)
        return {"rules": rules, "cpu_percent": round(percent, 2), "mb": round(memory_mb(agent), 1)}


def test_an_idle_agent_costs_little(tmp_path):
    found = measure(tmp_path)
    sys.stdout.write(json.dumps({"idle": found}) + "\n")
    assert found["cpu_percent"] < 10 * BOUND_PERCENT  # far from what is measured: this machine has neighbours
    assert found["mb"] < 3 * BOUND_MB


if __name__ == "__main__":
    for size in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as name:
            sys.stdout.write(json.dumps(measure(Path(name), size)) + "\n")
