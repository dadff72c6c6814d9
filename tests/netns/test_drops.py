"""What is dropped, or would be, is told from the kernel to the operator: real agent, real server, real packets."""

import json
import socket
from contextlib import closing
from ipaddress import ip_address

import pytest

from ringfence.agent.doors.nftables import KernelNftables
from ringfence.agent.doors.packets import KernelPackets
from ringfence.policy.errors import OperatorError
from ringfence.policy.program import names
from ringfence.policy.program.refusal import TALLY
from ringfence.world.namespaces import make_namespace
from ringfence.world.topology import Node, build_world
from stack import start_stack
from waiting import wait_until

pytestmark = pytest.mark.netns

NODES = (
    Node("web", (ip_address("10.77.0.1"), ip_address("fd77::1"))),
    Node("db", (ip_address("10.77.0.2"), ip_address("fd77::2"))),
    Node("outside", (ip_address("198.51.100.10"), ip_address("2001:db8::10")), managed=False),
)
ROUTER = (ip_address("10.77.255.1"), ip_address("fd77:ffff::1"))
FLOOD = 400
_IP_TRANSPARENT = 19  # linux/in.h: any source address


@pytest.fixture(scope="module")
def stack():
    with closing(build_world(NODES, router_addresses=ROUTER)) as world, closing(start_stack(world)) as started:
        yield started


def _send(stack, source, destination, port, times=1, *, claiming=None):
    """Datagrams from a node's own socket; ``claiming`` gives it another address first."""
    placed, target = stack.world.placed[source], stack.world.placed[destination].address(4)

    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            if claiming is not None:
                opened.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
                opened.bind((claiming, 0))
            for _ in range(times):
                opened.sendto(b"x", (str(target), port))

    placed.namespace.run(send)


def _told(stack, **wanted):
    """The drops with these fields, once there are any."""

    def found():
        return [drop for drop in stack.operator.drops() if wanted.items() <= drop.items()]

    wait_until(found, timeout_s=10)
    return found()


def test_each_refused_packet_is_told_with_instance_reason_and_peer(stack):
    _send(stack, "outside", "web", 53)
    [drop] = _told(stack, instance="web")
    assert drop["verdict"] == "drop"
    assert (drop["direction"], drop["reason"], drop["protocol"]) == ("ingress", "default ingress", "udp")
    assert drop["source"].startswith("198.51.100.10:")
    assert drop["destination"] == "10.77.0.1:53"
    _send(stack, "web", "db", 54)
    [drop] = _told(stack, instance="db")
    assert drop["peer"] == "web"
    _send(stack, "web", "outside", 55, claiming="10.77.0.99")
    [drop] = _told(stack, reason="spoofed")
    assert (drop["instance"], drop["direction"]) == ("web", "egress")
    lines = (stack.workshop.folder / "agent" / "flows.jsonl").read_text().splitlines()
    assert {json.loads(line)["reason"] for line in lines} == {"default ingress", "spoofed"}


def test_what_would_be_dropped_of_an_observed_instance_is_told_as_such(stack):
    stack.observe("web", observe=True)
    _send(stack, "outside", "web", 63, times=5)
    _send(stack, "outside", "db", 63)
    _told(stack, destination="10.77.0.2:63", verdict="drop")
    drops = _told(stack, destination="10.77.0.1:63")
    assert {drop["verdict"] for drop in drops} == {"would-drop"}
    assert len(drops) == 5  # nobody answered, so that conntrack calls each of them new
    stack.observe("web", observe=False)


def test_a_flood_at_one_port_costs_no_other_port_its_log(stack):
    _send(stack, "outside", "web", 73, times=FLOOD)
    _send(stack, "outside", "db", 74)
    _told(stack, destination="10.77.0.2:74")
    told = _told(stack, destination="10.77.0.1:73")
    assert 0 < len(told) < FLOOD / 2
    with closing(stack.world.router.run(KernelNftables)) as door:
        counted = door.read_tallies(TALLY.values())
    assert counted[names.DROPS, "veth-web"] >= FLOOD
    assert (names.DROPS, "veth-nobody") not in counted


@pytest.mark.full
def test_what_was_too_much_to_be_told_one_by_one_is_told_as_a_number(stack):
    _send(stack, "outside", "web", 75, times=3 * FLOOD)
    told = _told(stack, destination="10.77.0.1:75")

    def summed_up():
        many = [drop for drop in stack.operator.drops() if drop["reason"] == "rate limit"]
        return sum(drop["packets"] for drop in many if (drop["instance"], drop["verdict"]) == ("web", "drop"))

    wait_until(lambda: summed_up() >= 3 * FLOOD - len(told), timeout_s=60)


def test_a_log_group_that_another_program_has_is_said_so():
    with (
        closing(make_namespace("log")) as namespace,
        closing(namespace.run(KernelPackets)),
        pytest.raises(OperatorError, match="another program listens to log group 5280"),
    ):
        namespace.run(KernelPackets)
