"""What flow_log = "all" costs a new packet, and how many events of connections an agent takes in a second.

Two worlds with the same rules, asked in turn; conntrack tells of connections in one of them. Run as a program
(PYTHONPATH=tests), or by `make bench`. One JSON object on stdout.
"""

import json
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest

from bench.contest import OURS, open_field
from bench.crossing import compiled_tools, missing_tools
from bench.workload import PORTS, Workload, view_of
from counts import count
from ringfence.agent.allowed import AllowedLog
from ringfence.agent.doors.clock import SystemClock
from ringfence.agent.doors.connections import KernelConnections
from ringfence.agent.doors.files import SystemFiles
from ringfence.agent.flows import FlowLog

ROUNDS = count(reduced=11, stated=41)
RULES = 1_000

pytestmark = [pytest.mark.netns, pytest.mark.timeout(600)]


def measure() -> dict[str, object]:
    load = Workload(RULES)
    with (
        compiled_tools() as tools,
        open_field(tools, load, ()) as heard,
        open_field(tools, load, ()) as unheard,
        tempfile.TemporaryDirectory() as folder,
    ):
        way, plain = heard.ways[OURS], unheard.ways[OURS]
        flows = FlowLog(SystemFiles(), SystemClock(), Path(folder))
        with closing(way.world.router.run(KernelConnections)) as door:
            log = AllowedLog(door, flows, SystemClock())
            log._attribution.use(view_of(load, way.world), PORTS.lifelines)
            log.listen(on=True)
            ratios, rates, taken = [], [], 0
            for _ in range(ROUNDS):
                ratios.append(way.cost_ns("udp", "new") / plain.cost_ns("udp", "new"))
                events, took_s = _take_all(door, log, flows)
                rates.append(events / took_s)
                taken += events
            found = {
                "new packet, heard / unheard": round(statistics.median(ratios), 3),
                "events a second of CPU": round(statistics.median(rates)),
                "events taken": taken,
                "events lost": door.lost(),
                "connections counted": sum(gain.connections for gain in log.take_gains().values()),
            }
    return found


def _take_all(door: KernelConnections, log: AllowedLog, flows: FlowLog) -> tuple[int, float]:
    """Everything that waits, as the agent takes it, but for its pauses: how many, and seconds of CPU."""
    events, began_s = 0, time.process_time()
    while some := door.take():
        flows.note([record for one in some for record in log._take(one)])
        flows.flush()
        events += len(some)
    return events, time.process_time() - began_s


def test_a_new_packet_costs_little_more_when_connections_are_heard_of():
    if missing := missing_tools():
        pytest.skip(missing)
    found = measure()
    sys.stdout.write(json.dumps({"flow_log": found}) + "\n")
    assert found["new packet, heard / unheard"] < 3.0
    assert found["events taken"] > 0


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(), indent=1) + "\n")
