"""What a bridged port lets through of layer 2: whose ARP, whose discovery, which frames, and to whom.

That what frames carry is judged as at a routed port is for test_semantics.py, test_cut.py and test_differential.py,
which run behind a bridge as well. Here every frame that is dropped has a twin beside it that passes.
"""

import select
import shutil
import socket
import struct
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import product

import pytest
from pyroute2 import IPRoute

from lab import BRIDGED_NODES, HOST
from policies import group
from ringfence.agent.doors.bridging import SETTINGS, KernelBridging
from ringfence.agent.doors.nftables import KernelNftables
from ringfence.policy.local import LocalPorts
from ringfence.policy.packet import UDP, Packet
from ringfence.policy.values import Kind, Mac, link_local
from ringfence.world.frames import octets_of_mac, open_range
from ringfence.world.packets import _checksum, encode_packet
from ringfence.world.topology import BRIDGE, GATEWAY_MAC, build_world
from segments import ROUTER_ALERT, arp, discovery, with_option
from stack import start_stack
from waiting import wait_until

pytestmark = pytest.mark.netns
KINDS = (Kind.BRIDGED,)
NFT = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
ALLOWED, DENIED = True, False
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
EVERYBODY = Mac("ff:ff:ff:ff:ff:ff")
ALL_NODES, ALL_ROUTERS = ip_address("ff02::1"), ip_address("ff02::2")
REQUEST, REPLY = 1, 2
SOURCE_ETHER, TARGET_ETHER, NONCE = 1, 2, 14
FOREIGN_MAC = Mac("02:00:00:00:00:99")
OPEN = tuple(f"{way} all {peer}" for way, peer in (("ingress", "from 0.0.0.0/0"), ("ingress", "from ::/0")))
_QUIET_S = 0.003
_ALL = 0x0003


class Link:
    """The bridge of a lab whose instances web, app and db are open, seen frame by frame."""

    def __init__(self, lab):
        self.lab = lab
        lab.enforce(group("open", *OPEN), *(lab.instance(name, "open") for name in ("web", "app", "db")))
        self._ear = lab.world.router.run(_ear_at_bridge)

    def close(self):
        self._ear.close()

    def mac(self, name):
        return self.lab.world.placed[name].mac

    def own(self, name, family):
        return self.lab.address(name, family)

    def send(self, sender, ethertype, content, *, to, source=None):
        """Everyone whose interface the frame came to; the host's is its bridge."""
        taps = self.lab.range.taps
        for tap in taps.values():
            tap.take_frames()
        _take(self._ear)
        taps[sender].send_frame(ethertype, content, to=to, source_mac=source)
        self.lab.range.settle(sender)
        heard = set()
        sockets = {tap.socket: name for name, tap in taps.items()} | {self._ear: HOST}
        deadline = time.monotonic() + 1
        while ready := select.select([*sockets], [], [], _QUIET_S)[0]:
            assert time.monotonic() < deadline, "the link does not fall silent"
            for one in ready:
                heard |= {sockets[one] for frame in _take(one) if content[-16:] in frame}
        return heard

    def hits(self, counter):
        return self.lab.nftables.read().hits[counter]


@pytest.fixture
def link(lab):
    lab.forget_flows()
    with closing(Link(lab)) as opened:
        yield opened


def _ear_at_bridge():
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.bind((BRIDGE, _ALL))
    opened.setblocking(False)  # noqa: FBT003  the standard library's own signature
    return opened


def _take(opened):
    frames = []
    try:
        while True:
            frames.append(opened.recv(4096))
    except BlockingIOError:
        return frames


def group_mac(address):
    return Mac("33:33:" + address.packed[-4:].hex(":"))


def test_arp_passes_in_its_own_name_and_no_other(link):
    web, app, db = (link.own(name, 4) for name in ("web", "app", "db"))
    asked = {"app", "db", "lan", HOST}
    assert link.send("web", ARP, arp(REQUEST, link.mac("web"), web, app), to=EVERYBODY) == asked
    assert link.send("web", ARP, arp(REPLY, link.mac("web"), web, app), to=link.mac("app")) == {"app"}
    for operation in (REQUEST, REPLY):
        for to in (EVERYBODY, link.mac("app")):
            for mac, sender in ((link.mac("web"), db), (link.mac("db"), web), (link.mac("db"), db), (FOREIGN_MAC, web)):
                assert not link.send("web", ARP, arp(operation, mac, sender, app), to=to)
            honest = arp(operation, link.mac("web"), web, app)
            assert not link.send("web", ARP, honest, to=to, source=FOREIGN_MAC)
    assert not link.send("web", ARP, arp(3, link.mac("web"), web, app), to=EVERYBODY)
    odd = arp(REQUEST, link.mac("web"), web, app, header=(6, IPV4, 6, 4))
    assert not link.send("web", ARP, odd, to=EVERYBODY)


def test_an_instance_probes_for_its_own_address_alone(link):
    nobody = IPv4Address(0)
    own = arp(REQUEST, link.mac("web"), nobody, link.own("web", 4))
    assert link.send("web", ARP, own, to=EVERYBODY) == {"app", "db", "lan", HOST}
    for operation, target in ((REQUEST, link.own("db", 4)), (REPLY, link.own("web", 4))):
        assert not link.send("web", ARP, arp(operation, link.mac("web"), nobody, target), to=EVERYBODY)


def test_neighbour_advertisements_tell_of_own_addresses_and_the_own_mac_address_alone(link):
    web, app, db = (link.own(name, 6) for name in ("web", "app", "db"))
    mine, others = octets_of_mac(link.mac("web")), octets_of_mac(link.mac("db"))
    local = link_local(link.mac("web"))
    for source, target in ((web, web), (local, local), (web, local)):
        for options in ((), ((TARGET_ETHER, mine),)):
            told = discovery(136, source, app, target, *options)
            assert link.send("web", IPV6, told, to=link.mac("app")) == {"app"}
            told = discovery(136, source, ALL_NODES, target, *options)
            assert link.send("web", IPV6, told, to=group_mac(ALL_NODES)) == {"app", "db", "lan", HOST}
    lies = [
        discovery(136, web, app, db),
        discovery(136, web, app, db, (TARGET_ETHER, mine)),
        discovery(136, web, app, web, (TARGET_ETHER, others)),
        discovery(136, web, app, web, (SOURCE_ETHER, others)),
        discovery(136, web, app, web, (TARGET_ETHER, mine), (TARGET_ETHER, others)),
        discovery(136, db, app, db, (TARGET_ETHER, others)),
        discovery(136, IPv6Address(0), app, web),
    ]
    for lie in lies:
        assert not link.send("web", IPV6, lie, to=link.mac("app"))
    lie = discovery(136, web, app, db, (TARGET_ETHER, others))
    far = _behind_options(lie, kind=60, size=1400)
    for hidden in (_behind_options(lie), *_fragments(lie), *_fragments(far, 1280)):
        assert not link.send("web", IPV6, hidden, to=link.mac("app"))
        assert not link.send("web", IPV6, hidden, to=GATEWAY_MAC)


def test_solicitations_name_their_sender_truly(link):
    web, app, db = (link.own(name, 6) for name in ("web", "app", "db"))
    mine, others = octets_of_mac(link.mac("web")), octets_of_mac(link.mac("db"))
    node, routers = ip_address("ff02::1:ff00:2"), ALL_ROUTERS
    honest = [
        discovery(135, web, node, app, (SOURCE_ETHER, mine)),
        discovery(135, web, node, app),
        discovery(135, IPv6Address(0), node, web),
        discovery(135, IPv6Address(0), node, web, (NONCE, b"nonce.")),
        discovery(133, web, routers, None, (SOURCE_ETHER, mine)),
        discovery(133, IPv6Address(0), routers, None),
    ]
    for packet in honest:
        to = group_mac(IPv6Address(packet[24:40]))
        assert link.send("web", IPV6, packet, to=to) == {"app", "db", "lan", HOST}
    for packet in (
        discovery(135, web, node, app, (SOURCE_ETHER, others)),
        discovery(135, db, node, app, (SOURCE_ETHER, others)),
        discovery(135, IPv6Address(0), node, db),
        discovery(135, IPv6Address(0), node, db, (NONCE, b"nonce.")),
        discovery(133, web, routers, None, (SOURCE_ETHER, others)),
    ):
        assert not link.send("web", IPV6, packet, to=group_mac(IPv6Address(packet[24:40])))
        for fragment in _fragments(packet, 16):
            assert not link.send("web", IPV6, fragment, to=GATEWAY_MAC)


def _behind_options(packet, kind=0, size=8):
    """With an extension header of so many octets, all padding, behind the fixed one."""
    padding = b"".join(bytes((1, length)) + bytes(length) for length in _paddings(size - 2))
    options = bytes((packet[6], size // 8 - 1)) + padding
    length = struct.pack("!H", len(packet) - 40 + len(options))
    return packet[:4] + length + bytes((kind,)) + packet[7:40] + options + packet[40:]


def _paddings(octets):
    """The content of padding options that together fill so many octets."""
    while octets:
        length = min(octets, 200 if octets != 201 else 100)
        yield length - 2
        octets -= length


def _fragments(packet, size=8):
    """All but the last carry ``size`` octets."""
    body, made = packet[40:], []
    for offset in range(0, len(body), size):
        part = body[offset : offset + size]
        more = offset + size < len(body)
        header = struct.pack("!BBHI", packet[6], 0, offset | more, 0x1234) + part
        made.append(packet[:4] + struct.pack("!H", len(header)) + bytes((44,)) + packet[7:40] + header)
    return made


def test_a_router_and_a_dhcp_server_may_be_on_the_link_and_no_instance_is_one(link):
    lan, web = link.own("lan", 6), link.own("web", 6)
    advertised = discovery(134, link_local(link.mac("lan")), ALL_NODES, lan)
    assert {"web", "app", "db"} <= link.send("lan", IPV6, advertised, to=group_mac(ALL_NODES))
    for type_ in (134, 137):
        for to, destination in ((group_mac(ALL_NODES), ALL_NODES), (link.mac("app"), link.own("app", 6))):
            for source in (web, link_local(link.mac("web"))):
                assert not link.send("web", IPV6, discovery(type_, source, destination, web), to=to)
    everybody = ip_address("255.255.255.255")

    def answer(name, family=4):
        ends = (67, 68) if family == 4 else (547, 546)
        destination = everybody if family == 4 else link.own("app", 6)
        return encode_packet(Packet(link.own(name, family), destination, UDP, *ends), tag=7)

    assert {"web", "app", "db"} <= link.send("lan", IPV4, answer("lan"), to=EVERYBODY)
    assert link.send("lan", IPV6, answer("lan", 6), to=link.mac("app")) == {"app"}
    assert not link.send("web", IPV4, answer("web"), to=EVERYBODY)
    assert not link.send("web", IPV6, answer("web", 6), to=link.mac("app"))


def test_nothing_passes_but_arp_ipv4_and_ipv6_without_tags(link):
    packet = encode_packet(link.lab.udp("web", "app", 53).packet, tag=7)
    assert link.send("web", IPV4, packet, to=link.mac("app")) == {"app"}
    tag = struct.pack("!HH", 5, IPV4)
    odd = [(0x8100, tag + packet), (0x88A8, struct.pack("!HH", 5, 0x8100) + tag + packet), (0x88B5, packet)]
    odd += [(0x8863, packet), (0x8035, packet), (0x0806 ^ 0x0001, packet), (len(packet), packet)]
    for ethertype, content in odd:
        assert not link.send("web", ethertype, content, to=link.mac("app"))
        assert not link.send("web", ethertype, content, to=EVERYBODY)
        assert not link.send("lan", ethertype, content, to=link.mac("app"))
    for reserved in ("01:80:c2:00:00:00", "01:80:c2:00:00:03"):  # STP, 802.1X
        before = link.hits("bridge:alien")
        assert not link.send("web", 0x88CC, packet, to=Mac(reserved))
        assert link.hits("bridge:alien") == before + 2, "the frame, and the fence behind it"
    # LLDP goes to who listens at the port itself and to nobody else, whatever the rules (br_handle_frame).
    assert not link.send("web", 0x88CC, packet, to=Mac("01:80:c2:00:00:0e"))


@pytest.mark.parametrize(
    ("pattern", "sender", "counted"),
    [("veth-web", "web", 2), ("veth*", "vacant", 1)],  # of an instance's port the fence behind it is counted so, too
    ids=["of an instance", "by a pattern"],
)
def test_what_bridges_say_to_each_other_is_refused_at_a_port_under_our_care(lab, monkeypatch, pattern, sender, counted):
    monkeypatch.setattr(type(lab), "ports", LocalPorts((pattern,), Kind.BRIDGED))
    with closing(Link(lab)) as link:
        before = link.hits("bridge:alien")
        assert not link.send(sender, 0x88CC, bytes(60), to=Mac("01:80:c2:00:00:03"))
        assert link.hits("bridge:alien") == before + counted


@pytest.mark.parametrize("family", [4, 6])
def test_spoofed_addresses_pass_neither_whole_nor_in_fragments(link, family):
    way = link.lab.udp("web", "app", 53, family)
    kind = {4: IPV4, 6: IPV6}[family]
    honest = encode_packet(way.packet, tag=7)
    assert link.send("web", kind, honest, to=link.mac("app")) == {"app"}
    assert not link.send("web", kind, honest, to=link.mac("app"), source=link.mac("db"))
    assert not link.send("web", kind, honest, to=link.mac("app"), source=FOREIGN_MAC)
    lie = encode_packet(replace(way.packet, source=link.own("db", family)), tag=7)
    for packet in (lie, *(_fragments(lie) if family == 6 else _fragments4(lie))):
        assert not link.send("web", kind, packet, to=link.mac("app"))


def test_who_has_no_address_yet_asks_all_dhcp_servers_and_speaks_to_nobody_else(link):
    def request(destination):
        return encode_packet(Packet(IPv4Address(0), destination, UDP, 68, 67), tag=7)

    assert link.send("web", IPV4, request(ip_address("255.255.255.255")), to=EVERYBODY) == {"lan", HOST}
    for name in ("app", "lan"):
        assert not link.send("web", IPV4, request(link.own(name, 4)), to=link.mac(name))


def _fragments4(packet):
    body, made = packet[20:], []
    for offset in range(0, len(body), 8):
        part = body[offset : offset + 8]
        more = 0x2000 if offset + 8 < len(body) else 0
        header = packet[:2] + struct.pack("!HHH", 20 + len(part), 7, offset // 8 | more) + packet[8:10] + bytes(2)
        header += packet[12:20]
        made.append(header[:10] + _checksum(header).to_bytes(2, "big") + header[12:] + part)
    return made


def test_a_packet_that_names_its_own_way_is_dropped(link):
    packet = encode_packet(link.lab.udp("web", "app", 53).packet, tag=7)
    assert link.send("web", IPV4, with_option(packet, ROUTER_ALERT), to=link.mac("app")) == {"app"}
    way = link.own("db", 4).packed
    for kind, pointer in product((131, 137), (4, 8)):
        routed = with_option(packet, bytes((kind, 11, pointer)) + way + way + b"\0")
        assert not link.send("web", IPV4, routed, to=link.mac("app"))
    packet = encode_packet(link.lab.udp("web", "app", 53, 6).packet, tag=7)
    routing = bytes((UDP, 2, 0, 1)) + bytes(4) + link.own("db", 6).packed
    length = struct.pack("!H", len(packet) - 40 + len(routing))
    assert link.send("web", IPV6, _behind_options(packet, kind=60), to=link.mac("app")) == {"app"}
    routed = packet[:4] + length + bytes((43,)) + packet[7:40] + routing + packet[40:]
    assert not link.send("web", IPV6, routed, to=link.mac("app"))


@pytest.mark.parametrize("family", [4, 6])
def test_a_third_instance_sees_no_unicast_frame_of_others_even_when_the_bridge_floods(link, family):
    kind = {4: IPV4, 6: IPV6}[family]
    with _forgotten(link, "app"):
        packet = encode_packet(link.lab.udp("web", "app", 53, family).packet, tag=7)
        assert link.send("web", kind, packet, to=link.mac("app")) == {"app", "lan"}, "the bridge does not flood"
        reply = arp(REPLY, link.mac("web"), link.own("web", 4), link.own("app", 4), link.mac("app"))
        assert link.send("web", ARP, reply, to=link.mac("app")) == {"app", "lan"}
    # Nor what names it by one of its two addresses only, nor what is for many.
    packet = encode_packet(link.lab.udp("lan", "db", 53, family).packet, tag=7)
    assert link.send("lan", kind, packet, to=link.mac("db")) == {"db"}
    assert not link.send("lan", kind, packet, to=link.mac("app"))
    for to in (EVERYBODY, Mac("01:00:5e:00:00:fb"), Mac("33:33:00:00:00:fb")):
        assert link.send("lan", kind, packet, to=to) <= {HOST}


def test_of_what_is_for_many_instances_hear_discovery_alone(link):
    asked = discovery(135, link.own("lan", 6), ALL_NODES, link.own("app", 6))
    assert {"web", "app", "db"} <= link.send("lan", IPV6, asked, to=group_mac(ALL_NODES))
    said = encode_packet(link.lab.udp("lan", "app", 5353, 6).again(destination=ALL_NODES).packet, tag=7)
    assert link.send("lan", IPV6, said, to=group_mac(ALL_NODES)) == {HOST}
    others = discovery(135, link.own("lan", 6), link.own("app", 6), link.own("app", 6))
    assert not link.send("lan", IPV6, others, to=link.mac("db"))


class _forgotten:  # noqa: N801  reads as a with-statement
    """The bridge does not know where a node is."""

    def __init__(self, link, name):
        self._router, self._placed = link.lab.world.router, link.lab.world.placed[name]

    def __enter__(self):
        self._router.run(lambda: self._change("del"))

    def __exit__(self, *_):
        self._router.run(lambda: self._change("add"))

    def _change(self, how):
        with IPRoute() as netlink:
            index = netlink.link_lookup(ifname=self._placed.port)[0]
            state = {"state": 0x40} if how == "add" else {}
            netlink.fdb(how, ifindex=index, lladdr=self._placed.mac, flags=0x04, **state)


def test_a_port_without_an_instance_neither_speaks_nor_hears(link):
    vacant, web = link.own("vacant", 4), link.own("web", 4)
    assert not link.send("vacant", ARP, arp(REQUEST, link.mac("vacant"), vacant, web), to=EVERYBODY)
    told = discovery(136, link.own("vacant", 6), ALL_NODES, link.own("vacant", 6))
    assert not link.send("vacant", IPV6, told, to=group_mac(ALL_NODES))
    assert "vacant" not in link.send(
        "lan", ARP, arp(REQUEST, link.mac("lan"), link.own("lan", 4), vacant), to=EVERYBODY
    )
    assert "vacant" not in link.send("lan", ARP, arp(REPLY, link.mac("lan"), web, vacant), to=link.mac("vacant"))
    packet = encode_packet(link.lab.udp("lan", "vacant", 53).packet, tag=7)
    assert not link.send("lan", IPV4, packet, to=link.mac("vacant"))


def test_who_is_no_instance_may_do_on_the_bridge_what_it_likes_but_for_instances(link):
    """A frame between the host and an unmanaged port is nobody's business: tags, odd types, spoofed addresses."""
    packet = encode_packet(replace(link.lab.udp("lan", HOST, 53).packet, source=ip_address("192.0.2.1")), tag=7)
    assert link.send("lan", IPV4, packet, to=GATEWAY_MAC, source=FOREIGN_MAC) == {HOST}
    assert link.send("lan", 0x88B5, packet, to=GATEWAY_MAC) == {HOST}


def test_two_instances_that_claim_one_address_are_both_closed(lab):
    twin = replace(
        lab.instance("app", "open"), interfaces=(replace(lab.instance("web").interfaces[0], name="veth-app"),)
    )
    lab.enforce(group("open", *OPEN), lab.instance("web", "open"), twin, lab.instance("db", "open"))
    lab.forget_flows()
    lab.expect_fate(DENIED, lab.udp("web", "db", 53), lab.udp("db", "web", 53))
    lab.expect_fate(ALLOWED, lab.udp("outside", "db", 53))


@pytest.fixture(scope="module")
def stack():
    """The real agent, with the real server."""
    with closing(build_world(BRIDGED_NODES, mute=True)) as world, closing(start_stack(world)) as started:
        yield started


def test_the_agent_keeps_br_netfilter_on(stack):
    """Switched off by another program, it is on again at once."""
    router = stack.world.router
    for setting in SETTINGS:
        router.write_sysctl(f"bridge/{setting}", 0)
        wait_until(lambda: router.run(KernelBridging().is_on))


def test_a_refused_frame_is_told_of_with_port_instance_and_whom_it_claims_to_be(stack):
    web, app = stack.world.placed["web"], stack.world.placed["app"]
    packet = encode_packet(
        Packet(ip_address("192.0.2.1"), app.address(4), UDP, source_port=1, destination_port=53), tag=7
    )
    with closing(open_range(stack.world)) as opened:
        tap = opened.taps["web"]
        tap.send_frame(ARP, arp(REPLY, web.mac, app.address(4), web.address(4)), to=EVERYBODY)
        tap.send(packet, to=app.mac)
        tap.send_frame(0x88B5, packet, to=app.mac)
    told = {drop["reason"]: drop for drop in _told(stack, instance="web", interface=web.port)}
    assert told.keys() == {"spoofed arp", "spoofed", "alien"}
    assert {(drop["direction"], drop["verdict"]) for drop in told.values()} == {("egress", "drop")}
    assert told["spoofed arp"]["source"] == str(app.address(4))
    assert told["spoofed"]["source"] == "192.0.2.1:1"
    assert told["alien"]["protocol"] is None


def _told(stack, **wanted):
    """The three drops with these fields."""

    def found():
        return [drop for drop in stack.operator.drops() if wanted.items() <= drop.items()]

    wait_until(lambda: len(found()) == 3, timeout_s=10)
    return found()


@pytest.mark.skipif(NFT is None, reason="no nft program: apt install nftables")
def test_a_bridged_host_is_made_whole_whichever_table_is_touched(stack):
    door = stack.world.router.run(KernelNftables)
    before = door.read().program
    for change in (
        ("delete", "table", "bridge", "ringfence"),
        ("delete", "table", "inet", "ringfence"),
        ("flush", "chain", "bridge", "ringfence", "leave_arp"),
        ("add", "chain", "bridge", "ringfence", "somebodys"),
    ):
        stack.world.router.run(partial(subprocess.run, (NFT, *change), check=True))
        wait_until(lambda: door.read().program == before)
    door.close()


def test_what_an_observed_instance_may_not_send_as_a_frame_is_dropped_all_the_same(lab):
    shut = group("shut", "egress tcp/1 to 192.0.2.1/32")
    lab.enforce(shut, replace(lab.instance("web", "shut"), observe=True), lab.instance("app"))
    way = lab.udp("web", "outside", 53)
    lab.expect(ALLOWED, way, lab.udp("outside", "web", 53))
    lab.expect(DENIED, way.again(source=lab.address("app", 4)), lab.udp("outside", "app", 53))
    lab.forget_flows()
    lab.expect_fate(DENIED, replace(way, mac=FOREIGN_MAC))
