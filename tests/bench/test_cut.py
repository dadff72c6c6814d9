"""How long a change takes that revokes some of very many live connections, and whom it cuts. Run by `make bench`.

The agent's applier on a real kernel; connections of TCP, UDP and echoes, of both families, begun by either end, are
made and proved by real packets over raw taps. Milliseconds from the start of the apply until it is over. The first
packets after it are those of the revoked connections, from both ends: none may arrive. Then both ends of every other
connection say something: all of it must arrive. As a program it takes the number of connections. One JSON object on
stdout.
"""

import json
import statistics
import sys
import time
from contextlib import closing
from itertools import product, zip_longest
from pathlib import Path

import pytest

from lab import FAMILIES, Lab, open_lab
from live_flows import LiveFlow
from policies import group
from ringfence.policy.packet import ICMP, ICMPV6, TCP, UDP
from ringfence.world.namespaces import leave_host_network

CONNECTIONS = 100_000
REVOKED = (1, 1_000)
ROUNDS = 5
BOUND_MS = 200.0
_FEW = 120  # of each kind some: what a cut takes without many connections
_FIRST_PORT = 10_000  # no service is there: both ends of a flow would be a service, and two flows the same
_TIMEOUTS = ("udp_timeout", "udp_timeout_stream", "icmp_timeout", "icmpv6_timeout")
_LIVE_S = 3600  # else the kernel forgets a silent UDP flow after half a minute, less than filling and proving takes
_SERVICES = ("tcp/5432", "udp/99", "icmp", "icmpv6")

pytestmark = [pytest.mark.netns, pytest.mark.timeout(900)]


def open_roomy_lab(connections: int) -> Lab:
    """A lab whose router keeps so many connections, and none too short."""
    lab = open_lab()
    most = int(lab.world.router.run(lambda: Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text()))
    if most < 2 * connections:
        lab.close()
        pytest.skip(f"net.netfilter.nf_conntrack_max = {most} is too small for {connections} connections")
    for name in _TIMEOUTS:
        lab.world.router.write_sysctl(f"netfilter/nf_conntrack_{name}", _LIVE_S)
    return lab


def enforce(lab: Lab, *members: str) -> None:
    """db serves the members of a group, and may call them; whoever is not called web may become none."""
    rules = [
        f"{way} {service} {word} group peers"
        for way, word in (("ingress", "from"), ("egress", "to"))
        for service in _SERVICES
    ]
    everything = group("open", "ingress all from 0.0.0.0/0", "ingress all from ::/0")
    ends = [lab.instance(name, "open", *(("peers",) if name in members else ())) for name in ("web", "app")]
    lab.enforce(group("db", *rules), group("peers"), everything, lab.instance("db", "db"), *ends)


def flows(lab: Lab, other: str, count: int) -> list[LiveFlow]:
    """So many flows between db and the other, opened: of each protocol and family, begun by each end."""
    kinds = list(product((other, "db"), (TCP, UDP, ICMP), FAMILIES))
    made = []
    for number in range(count):
        client, protocol, family = kinds[number % len(kinds)]
        number_of_kind = ICMPV6 if protocol == ICMP and family == 6 else protocol
        server = "db" if client == other else other
        port = _FIRST_PORT + number // len(kinds)
        made.append(LiveFlow(lab, client, number_of_kind, family, server=server, source_port=port))
    for ways in zip_longest(*(flow.opening() for flow in made)):
        assert None not in lab.send(*filter(None, ways))
    return made


def passed(lab: Lab, live: list[LiveFlow]) -> tuple[int, int]:
    """How many packets arrived when the server, then the client of each flow says one."""
    answers, asked = (lab.send(*ways) for ways in ([f.from_server for f in live], [f.from_client for f in live]))
    return tuple(sum(arrived is not None for arrived in said) for said in (answers, asked))


def cut_ms(lab: Lab, revoked: list[LiveFlow], spared: list[LiveFlow]) -> float:
    """Every revoked flow lives before it and is dead after it; every other lives on."""
    enforce(lab, "web", "app")
    assert passed(lab, revoked) == (len(revoked), len(revoked))
    began = time.perf_counter()
    enforce(lab, "web")
    took_ms = (time.perf_counter() - began) * 1000
    assert passed(lab, revoked) == (0, 0)
    assert passed(lab, spared) == (len(spared), len(spared))
    assert passed(lab, revoked) == (0, 0)
    return took_ms


def measure(connections: int = CONNECTIONS) -> dict[str, object]:
    """Medians and worst of the rounds: with few connections and with all."""
    found: dict[str, object] = {}
    for count, revoked in product((_FEW, connections), REVOKED):
        with closing(open_roomy_lab(count + revoked)) as lab:
            enforce(lab, "web", "app")
            cut, spared = flows(lab, "app", revoked), flows(lab, "web", count)
            took = [cut_ms(lab, cut, spared) for _ in range(ROUNDS)]
            alive = lab.conntrack.count(0, 1)
        found[f"{revoked} of {alive}"] = {"ms": round(statistics.median(took), 1), "worst_ms": round(max(took), 1)}
    return found


def test_a_cut_costs_the_same_whatever_the_number_of_connections():
    found = measure()
    sys.stdout.write(json.dumps({"cut": found}) + "\n")
    assert max(one["ms"] for one in found.values()) < BOUND_MS


if __name__ == "__main__":
    leave_host_network()
    for size in map(int, sys.argv[1:] or (str(CONNECTIONS),)):
        sys.stdout.write(json.dumps(measure(size), indent=1) + "\n")
