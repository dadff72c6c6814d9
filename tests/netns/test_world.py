"""The throw-away world itself: namespaces, routes, raw packets."""

import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from ringfence.policy.packet import Packet
from ringfence.world.frames import Shot, deliver, open_range
from ringfence.world.namespaces import make_namespace
from ringfence.world.packets import encode_packet
from ringfence.world.topology import Node, build_world

pytestmark = pytest.mark.netns

WEB = Node("web", (ip_address("10.77.0.1"), ip_address("fd77::1")))
DB = Node("db", (ip_address("10.77.0.2"), ip_address("fd77::2")))
OUTSIDE = Node("outside", (ip_address("198.51.100.10"),), managed=False)
HOST = (ip_address("10.77.255.1"), ip_address("fd77:ffff::1"))


@pytest.fixture
def world():
    built = build_world((WEB, DB, OUTSIDE), router_addresses=HOST)
    yield built
    built.close()


@pytest.fixture
def mute_world():
    built = build_world((WEB, DB, OUTSIDE), router_addresses=HOST, mute=True)
    yield built
    built.close()


@pytest.fixture
def mute_range(mute_world):
    opened = open_range(mute_world)
    yield opened
    opened.close()


def _network():
    return Path("/proc/thread-self/ns/net").stat().st_ino


def _connect(world, source, address, port=7):
    return world.placed[source].namespace.run(lambda: socket.create_connection((str(address), port), timeout=2))


def _listen(namespace, port=7):
    return namespace.run(
        lambda: socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=16)
    )


@pytest.mark.parametrize("family", [4, 6])
def test_nodes_reach_each_other_through_the_router(world, family):
    with _listen(world.placed["db"].namespace), _connect(world, "web", world.placed["db"].address(family)) as client:
        assert ip_address(client.getpeername()[0]) in DB.addresses


@pytest.mark.parametrize("host_address", HOST)
def test_nodes_reach_the_router_itself(world, host_address):
    with _listen(world.router), _connect(world, "web", host_address) as client:
        assert ip_address(client.getsockname()[0]) in WEB.addresses


def test_ports_of_managed_and_unmanaged_nodes_are_told_apart_by_name(world):
    names = world.router.run(lambda: {name for _, name in socket.if_nameindex()})
    assert names == {"lo", "veth-web", "veth-db", "up-outside"}


def test_an_unplugged_node_leaves_no_port_behind(world):
    world.unplug("web")
    assert "veth-web" not in world.router.run(lambda: {name for _, name in socket.if_nameindex()})


def test_work_in_a_namespace_leaves_the_caller_where_it_was():
    here = _network()
    namespace = make_namespace("elsewhere")
    there = namespace.run(_network)
    namespace.close()
    assert there != here
    assert _network() == here


def test_an_error_in_a_namespace_reaches_the_caller():
    namespace = make_namespace("elsewhere")
    with pytest.raises(ZeroDivisionError):
        namespace.run(lambda: 1 // 0)
    namespace.close()


PROTOCOLS = [1, 4, 6, 17, 47, 50, 51, 58, 132]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_raw_packet_of_any_protocol_arrives_where_it_is_routed(mute_world, mute_range, family, protocol):
    source, destination = mute_world.placed["web"].address(family), mute_world.placed["db"].address(family)
    packet = Packet(source, destination, protocol, 40000, 443, 8 if protocol == 1 else 128)
    shot = Shot(mute_range.taps["web"], encode_packet(packet, tag=77), 77)
    assert deliver([shot], mute_range) == {77: "db"}


def test_packets_that_nobody_routes_arrive_nowhere_and_the_others_all_arrive(mute_range):
    routed, lost = DB.addresses[0], ip_address("203.0.113.1")
    shots = [
        Shot(mute_range.taps["web"], encode_packet(_udp(lost if tag % 3 == 0 else routed, tag), tag=tag), tag)
        for tag in range(3000)
    ]
    assert set(deliver(shots, mute_range)) == {tag for tag in range(3000) if tag % 3}


def test_mute_nodes_answer_nothing(mute_range):
    echo = Packet(WEB.addresses[0], DB.addresses[0], 1, icmp_type=8)
    assert deliver([Shot(mute_range.taps["web"], encode_packet(echo, tag=5), 5)], mute_range) == {5: "db"}
    assert mute_range.taps["web"].take_packets() == []


def _udp(destination, tag):
    return Packet(WEB.addresses[0], destination, 17, 1024 + tag, 53)
