"""Allowed connections are told from conntrack to the operator, by which rule: real agent, real server, real packets."""

import socket
from contextlib import closing
from ipaddress import ip_address

import pytest

from ringfence.world.topology import Node, build_world
from stack import start_stack
from waiting import wait_until

pytestmark = pytest.mark.netns

NODES = (
    Node("web", (ip_address("10.77.0.1"), ip_address("fd77::1"))),
    Node("outside", (ip_address("198.51.100.10"), ip_address("2001:db8::10")), managed=False),
)
ROUTER = (ip_address("10.77.255.1"), ip_address("fd77:ffff::1"))


@pytest.fixture(scope="module")
def stack():
    with closing(build_world(NODES, router_addresses=ROUTER)) as world, closing(start_stack(world)) as started:
        yield started


def _send(stack, source, destination, port):
    target = stack.world.placed[destination].address(4)

    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.sendto(b"x", (str(target), port))

    stack.world.placed[source].namespace.run(send)


def test_an_allowed_connection_is_told_by_its_rule_once_the_inventory_asks_for_it(stack):
    [group] = stack.read("/security-group")["security-groups"]
    rule = {"flow-direction": "ingress", "protocol": "udp", "network": "198.51.100.0/24", "start-port": 53}
    stack.call("POST", f"/security-group/{group['id']}/rules", rule | {"end-port": 53})
    [made] = stack.read(f"/security-group/{group['id']}")["rules"]
    _send(stack, "outside", "web", 53)
    inventory = stack.workshop.folder / "inventory.toml"
    inventory.write_text(f'flow_log = "all"\n{inventory.read_text()}')

    def told():
        _send(stack, "outside", "web", 53)
        _send(stack, "outside", "web", 54)
        _send(stack, "web", "outside", 55)
        return [flow for flow in stack.operator.flows() if flow["verdict"] == "allow"]

    wait_until(lambda: {flow["direction"] for flow in told()} == {"ingress", "egress"}, timeout_s=10)
    inwards = next(flow for flow in told() if flow["direction"] == "ingress")
    outwards = next(flow for flow in told() if flow["direction"] == "egress")
    assert (inwards["instance"], inwards["reason"], inwards["rule"]) == ("web", "rule", made["id"])
    assert inwards["destination"] == "10.77.0.1:53"
    assert (outwards["reason"], outwards["rule"]) == ("default egress", None)
    assert not [flow for flow in told() if (flow["destination"] or "").endswith("10.77.0.1:54")]
    assert {flow["verdict"] for flow in stack.operator.drops()} == {"drop"}
