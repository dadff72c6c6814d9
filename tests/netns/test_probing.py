"""A packet that is asked about is really sent, from the network that has its source address; or it is said why not."""

import json
import os
import subprocess
from contextlib import closing, contextmanager
from functools import partial
from ipaddress import ip_address

import pytest
from pyroute2 import IPRoute

from ringfence.agent.doors.addresses import find_links
from ringfence.cli.app import run
from ringfence.policy.insight.explain import parse_service
from ringfence.policy.places import INTERNET_ADDRESSES
from ringfence.policy.values import Protocol
from ringfence.world.prober import Listeners, Service
from ringfence.world.probing import Answer, probe_once
from ringfence.world.topology import Node, build_world

pytestmark = pytest.mark.netns

# No other world of this machine has these addresses: networks are searched for one.
WEB, DB = (ip_address(f"fd77:{os.getpid() & 0xFFFF:x}::{number}") for number in (1, 2))
POLICY = f"""
version: 1
groups:
  db:
    ingress:
    - {{protocol: tcp, ports: 443, from: "::/0"}}
    - {{protocol: tcp, ports: 445, from: "::/0"}}
instances:
  web-1: {{groups: [], addresses: ["{WEB}"]}}
  db-1: {{groups: [db], addresses: ["{DB}"]}}
"""


@pytest.fixture(scope="module")
def world():
    with closing(build_world((Node("web", (WEB,)), Node("db", (DB,))))) as built:
        listeners = Listeners()
        listeners.start([built.placed["db"].namespace], [Service(Protocol.TCP, 443), Service(Protocol.UDP, 53)])
        yield built
        listeners.close()


@contextmanager
def blackhole(world):
    """The router drops in silence what goes to ``DB``, and silence is told after a shorter while."""

    def change(verb):
        with IPRoute() as netlink:
            netlink.route(verb, dst=f"{DB}/128", type="blackhole", priority=1)

    world.router.run(partial(change, "add"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ringfence.world.probing._SILENCE_S", 0.1)
        yield
    world.router.run(partial(change, "del"))


def _asked(world, service, source=WEB, destination=DB):
    return world.placed["web"].namespace.run(lambda: probe_once(source, destination, parse_service(service)))


@pytest.mark.parametrize(
    ("service", "answer", "words"),
    [
        ("tcp/443", Answer.OPEN, "answered"),
        ("tcp/444", Answer.OPEN, "nobody listens"),
        ("udp/53", Answer.OPEN, "answered"),
        ("udp/54", Answer.OPEN, "nobody listens"),
        ("icmpv6", Answer.OPEN, "answered"),
        ("icmpv6/1/4", Answer.SKIPPED, "not icmpv6/1/4"),
        ("esp", Answer.SKIPPED, "not esp"),
    ],
)
def test_what_comes_back_is_told(world, service, answer, words):
    found = _asked(world, service)
    assert found.answer is answer
    assert words in found.text


@pytest.mark.parametrize("service", ["tcp/443", "icmpv6"])
def test_silence_is_closed(world, service):
    with blackhole(world):
        assert _asked(world, service).answer is Answer.CLOSED


def test_of_a_silent_udp_service_nothing_can_be_said(world):
    with blackhole(world):
        assert "need not give" in _asked(world, "udp/53").sentence


def test_what_cannot_be_asked_from_here_is_skipped_and_never_guessed(world):
    nobody = ip_address("fd77:ffff:ffff::1")
    assert "has the address" in _asked(world, "tcp/443", source=nobody).text
    assert "would not leave it" in _asked(world, "tcp/443", destination=WEB).text
    assert "cannot be sent" in _asked(world, "tcp/443", destination=ip_address("ff05::7")).text
    internet = ip_address(INTERNET_ADDRESSES[1])
    for ends in ({"source": internet}, {"destination": internet}):
        found = _asked(world, "tcp/443", **ends)
        assert (found.answer, "stands for the internet" in found.text) == (Answer.SKIPPED, True)


@contextmanager
def inhabitant(world):
    """A process in the network of ``WEB``, by which that is found."""
    command = ("sleep", "60")
    process = world.placed["web"].namespace.run(lambda: subprocess.Popen(command))  # noqa: S603  our own words
    yield process
    process.kill()
    process.wait()


def test_explain_sends_it_from_the_network_of_a_process_and_fails_where_the_network_does_otherwise(
    world, tmp_path, capsys
):
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    question = ("explain", "web-1", "db-1", "tcp/443", "--probe", "--file", str(file))
    with inhabitant(world) as process:
        assert run(question) == 0
        assert f"asked from the network of process {process.pid}" in capsys.readouterr().out
        with blackhole(world):
            assert run(question) == 1
            assert "probe: closed" in capsys.readouterr().out
        assert run((*question[:3], "tcp/80", *question[4:])) == 1
        assert "probe: open" in capsys.readouterr().out


def test_assertions_are_tried_from_where_their_senders_are(world, tmp_path, capsys):
    lines = ["web-1 -> db-1 tcp/443 allow", "web-1 -> db-1 tcp/444 deny", "203.0.113.0/24 -> db-1 tcp/22 deny"]
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY + f"assertions: {lines}\n", encoding="utf-8")
    asked = ["check", "--probe", "--file", str(file), "-o", "json"]
    assert world.placed["web"].namespace.run(lambda: run(asked)) == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["holds"] for one in found] == [True, True, True]
    assert [one["probe"]["outcome"] for one in found] == ["passed", "failed", "skipped"]  # nobody enforces it here
    assert found[1]["probe"]["packets"][0].startswith(f"failed: {WEB} -> {DB} tcp/444 open: packets pass")
    assert "no network of this machine has an address" in found[2]["probe"]["packets"][0]
    with blackhole(world):
        assert world.placed["web"].namespace.run(lambda: run(asked)) == 1
    outcomes = [one["probe"]["outcome"] for one in json.loads(capsys.readouterr().out)]
    assert outcomes == ["failed", "passed", "skipped"]


def test_the_links_of_a_machine_are_read_with_their_lasting_addresses_and_the_way_out(world):
    [found] = world.placed["web"].namespace.run(find_links)
    assert (found.kind, found.addresses, found.is_way_out) == ("veth", (WEB,), True)
