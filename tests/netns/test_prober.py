"""Probes and streams see what a network lets pass; here a blackhole route plays the firewall."""

import time
from contextlib import contextmanager
from ipaddress import ip_address

import pytest
from pyroute2 import IPRoute

from ringfence.policy.errors import OperatorError
from ringfence.policy.values import Protocol
from ringfence.world.prober import Listeners, Outcome, Probe, Service, land, launch, probe_all
from ringfence.world.stream import Stream, heard_since, last_heard_s
from ringfence.world.topology import Node, build_world
from waiting import wait_until

pytestmark = pytest.mark.netns

ECHO = Service(Protocol.ICMP)
PATIENCE_S = 10.0  # of a machine that has other work; who answers is waited for no longer
TCP = Service(Protocol.TCP, 443)
UDP = Service(Protocol.UDP, 53)
PERMANENT = 0x80  # NUD_PERMANENT
UNHEARD = Service(Protocol.TCP, 444)


@pytest.fixture(scope="module")
def world():
    built = build_world(
        Node(name, (ip_address(f"10.77.0.{number}"), ip_address(f"fd77::{number}")))
        for number, name in enumerate(("web", "app", "db"), start=1)
    )
    listeners = Listeners()
    listeners.start([placed.namespace for placed in built.placed.values()], [TCP, UDP, ECHO])
    yield built
    listeners.close()
    built.close()


@contextmanager
def vanishing(world, name, family):
    """Everything to the node's address goes to a MAC address that nobody has."""
    placed = world.placed[name]

    def change(verb, **fields):
        with IPRoute() as netlink:
            index = netlink.link_lookup(ifname=placed.port)[0]
            netlink.neigh(verb, dst=str(placed.address(family)), ifindex=index, **fields)

    world.router.run(lambda: change("replace", lladdr="02:00:00:00:00:99", state=PERMANENT))
    yield
    world.router.run(lambda: change("del"))


def _probe(world, service, family=4, source="web", destination="db"):
    return Probe(world.placed[source].namespace, world.placed[destination].address(family), service)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("service", "outcome"),
    [(TCP, Outcome.OPEN), (UDP, Outcome.OPEN), (ECHO, Outcome.OPEN), (UNHEARD, Outcome.REFUSED)],
    ids=str,
)
def test_what_passes_is_seen_to_pass(world, service, family, outcome):
    (result,) = land([launch(_probe(world, service, family))], silence_s=PATIENCE_S)
    assert result.outcome is outcome
    assert result.elapsed_ms < PATIENCE_S * 1000


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("service", [TCP, UDP, ECHO], ids=str)
def test_what_vanishes_is_silent(world, service, family):
    with vanishing(world, "db", family):
        (result,) = land([launch(_probe(world, service, family))], silence_s=0.1)
    assert (result.outcome, result.elapsed_ms) == (Outcome.SILENT, None)


def test_sixty_probes_with_silent_ones_among_them_take_no_longer_than_one(world):
    lost, kept = _probe(world, TCP, destination="db"), _probe(world, TCP, destination="app")
    started_s = time.monotonic()
    with vanishing(world, "db", 4):
        results = probe_all([lost, kept] * 30, control=kept)
    assert [result.outcome.passed for result in results] == [False, True] * 30
    assert time.monotonic() - started_s < 3


def test_silence_is_no_answer_while_the_control_fails_too(world, monkeypatch):
    monkeypatch.setattr("ringfence.world.prober._LONGEST_SILENCE_S", 0.5)
    probe = _probe(world, TCP)
    with vanishing(world, "db", 4), pytest.raises(OperatorError, match="control probe tcp/443"):
        probe_all([probe], control=probe)


@pytest.mark.parametrize("family", [4, 6])
def test_a_stream_is_heard_both_ways_until_its_packets_vanish(world, family):
    web, app, db = (world.placed[name] for name in ("web", "app", "db"))
    stream, other = (Stream(web, to, to.address(family), 5000 + family) for to in (db, app))
    wait_until(lambda: all(heard.count > 20 for heard in stream.heard()))
    cut_s = time.monotonic()
    with vanishing(world, "db", family):
        wait_until(lambda: time.monotonic() - last_heard_s(stream) > 0.3)
    assert last_heard_s(stream) - cut_s < 0.2
    assert heard_since(other, cut_s + 0.2)
    other.close()
    stream.close()
