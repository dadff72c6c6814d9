"""A whole host's rules from nothing: how long until the kernel holds them, and to read them back, and the memory.

Run by `make bench`.
Each size is measured in a process of its own (`python test_load.py SIZE`), so that its memory is the agent's:
the view, its compilation, the packed transactions. One JSON object on stdout.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.sized import PORTS, sized_view
from ringfence.agent.doors.nftables import KernelNftables
from ringfence.agent.enforce import Enforcer
from ringfence.agent.generations import Generations
from ringfence.agent.service import spare_collections
from ringfence.nft import About
from ringfence.world.namespaces import leave_host_network

SIZES = (10_000, 100_000)
BOUND_S, BOUND_MB = 10.0, 300.0  # at 100,000 rules

pytestmark = pytest.mark.netns


class _NoFlows:
    """A conntrack door of a host without flows."""

    def delete(self, mark, mask):
        pass


class Timed(KernelNftables):
    """The real door; it adds up how long the kernel took."""

    kernel_s = 0.0

    def _commit(self, batch):
        began_s = time.perf_counter()
        super()._commit(batch)
        self.kernel_s += time.perf_counter() - began_s


def memory_mb(what):
    """``VmRSS`` now, or ``VmHWM``, the most so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(what)) / 1024


def measure(rules):
    spare_collections()  # as the agent does
    view, door = sized_view(rules), Timed()
    before_mb = memory_mb("VmRSS")
    enforcer = Enforcer(door, Generations(_NoFlows()), last_block=None)
    began_s = time.perf_counter()
    enforcer.enforce(view, About(1, "bench"), PORTS)
    took_s, cpu_s = time.perf_counter() - began_s, sum(os.times()[:2])
    most_mb, after_mb = memory_mb("VmHWM"), memory_mb("VmRSS")
    began_s = time.perf_counter()
    door.read()
    read_s, read_cpu_s = time.perf_counter() - began_s, sum(os.times()[:2]) - cpu_s
    return {
        "s": round(took_s, 2),
        "kernel_s": round(door.kernel_s, 2),
        "cpu_s": round(cpu_s, 2),
        "view_mb": round(before_mb),
        "most_mb": round(most_mb),
        "after_mb": round(after_mb),
        "read_s": round(read_s, 2),
        "read_cpu_s": round(read_cpu_s, 2),
    }


def measure_apart(rules):
    """In a process of its own."""
    path = str(Path(__file__).parent.parent)
    command = (sys.executable, __file__, str(rules))
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=True)  # noqa: S603
    return json.loads(done.stdout)


def test_a_load_from_nothing_grows_with_the_rules_and_not_with_their_square():
    found = {size: measure_apart(size) for size in SIZES}
    sys.stdout.write(json.dumps({"load": found}) + "\n")
    small, large = (found[size] for size in SIZES)
    assert large["s"] < 20 * small["s"]
    assert large["most_mb"] < 1.2 * BOUND_MB  # measured: 282; pages are rounded up by the allocator


if __name__ == "__main__":
    leave_host_network()
    sys.stdout.write(json.dumps(measure(int(sys.argv[1]))) + "\n")
