"""A disk that hangs under the agent's folder: real agent, real server, real packets; nothing else waits for it."""

import json
import socket
from contextlib import ExitStack, closing
from ipaddress import ip_address
from subprocess import CalledProcessError

import pytest

from disks import hanging, missing, mounted_disk
from ringfence.world.topology import Node, build_world
from stack import start_stack
from waiting import wait_until

pytestmark = [
    pytest.mark.netns,
    pytest.mark.long,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

NODES = (
    Node("web", (ip_address("10.77.0.1"), ip_address("fd77::1"))),
    Node("outside", (ip_address("198.51.100.10"), ip_address("2001:db8::10")), managed=False),
)
ROUTER = (ip_address("10.77.255.1"), ip_address("fd77:ffff::1"))
RULE = {"flow-direction": "ingress", "protocol": "udp", "network": "198.51.100.0/24"}


@pytest.fixture
def stack(tmp_path):
    """Its agent's folder is ``tmp_path / "disk"``, a disk of its own."""
    with ExitStack() as opened:
        try:
            opened.enter_context(mounted_disk(tmp_path / "image", tmp_path / "disk"))
        except CalledProcessError as error:
            pytest.skip(f"no disk can be mounted here: {error.stderr.decode()}")
        world = opened.enter_context(closing(build_world(NODES, router_addresses=ROUTER)))
        yield opened.enter_context(closing(start_stack(world, agent_folder=tmp_path / "disk" / "agent")))


def test_a_disk_that_hangs_holds_up_no_change_and_no_report(stack, tmp_path):
    place = tmp_path / "disk"
    with hanging(place):
        wait_until(lambda: send(stack, 54) or told(stack.operator.drops()), timeout_s=10)
        [group] = stack.read("/security-group")["security-groups"]
        for port in (55, 56, 57):
            stack.call("POST", f"/security-group/{group['id']}/rules", RULE | {"start-port": port, "end-port": port})
        wait_until(lambda: "has not answered" in (error(stack) or ""), timeout_s=15)
    log = place / "agent" / "flows.jsonl"
    wait_until(lambda: log.exists() and told(map(json.loads, log.read_text().splitlines())), timeout_s=5)
    wait_until(lambda: not error(stack), timeout_s=5)


def error(stack):
    return stack.operator._ask("GET", "/hosts")["hosts"][0]["error"]


def told(drops):
    return [drop for drop in drops if (drop["destination"] or "").startswith("10.77.0.1")]


def send(stack, port):
    target = stack.world.placed["web"].address(4)

    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.sendto(b"x", (str(target), port))

    stack.world.placed["outside"].namespace.run(send)
