"""What an instance may try below and around IP: ethertypes, VLAN tags, source routes, fragments, hearing others."""

import select
import socket
import struct
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import pytest
from pyroute2 import IPRoute

from policies import group
from ringfence.policy.packet import UDP
from ringfence.policy.values import Kind, Mac
from ringfence.world.frames import octets_of_mac
from ringfence.world.packets import encode_packet, tag_of
from ringfence.world.topology import BRIDGE
from segments import (
    LOOSE,
    RECORD,
    ROUTER_ALERT,
    SECURITY,
    STRICT,
    TIMESTAMP,
    arp,
    discovery,
    segment_routed,
    source_routed,
    with_option,
)
from waiting import wait_until

pytestmark = pytest.mark.netns

ALLOWED, DENIED = True, False
families = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
tags = pytest.mark.parametrize("tag_type", [0x8100, 0x88A8], ids=["802.1Q", "802.1ad"])
led = pytest.mark.parametrize(
    ("kind", "used"),
    [(LOOSE, False), (STRICT, False), (LOOSE, True), (STRICT, True), (None, False)],
    ids=["loose", "strict", "loose, used", "strict, used", "segments"],
)
ANY = {4: "0.0.0.0/0", 6: "::/0"}
ETHERTYPE = {4: 0x0800, 6: 0x86DD}
AF = {4: socket.AF_INET, 6: socket.AF_INET6}
IPV4_MORE, IPV6_MORE = 0x2000, 1
ARP, REQUEST, REPLY = 0x0806, 1, 2
EVERYBODY = Mac("ff:ff:ff:ff:ff:ff")
ADVERTISEMENT, TARGET_ETHER, OVERRIDE = 136, 2, 0x2000_0000
NODAD = 0x02  # IFA_F_NODAD
_QUIET_S = 0.05


def _open(lab):
    """``web`` may be reached at one port, from everywhere; ``app`` and ``db`` accept nothing."""
    rules = [f"ingress udp/53 from {network}" for network in ANY.values()]
    lab.enforce(group("g", *rules), lab.instance("web", "g"), lab.instance("app"), lab.instance("db"))


@families
@pytest.mark.parametrize("ethertype", [0x88B6, 0x8847, 0x8863, 0x88CC, 0x0004, 0x9000])
def test_a_frame_of_another_ethertype_goes_nowhere(lab, family, ethertype):
    _open(lab)
    way = lab.udp("app", "web", 53, family)
    lab.expect(ALLOWED, way)
    lab.expect_fate(DENIED, replace(way, link=ethertype.to_bytes(2, "big")))


@tags
@families
def test_a_vlan_tag_opens_nothing(lab, family, tag_type):
    _open(lab)
    allowed = lab.udp("app", "web", 53, family)
    denied = [lab.udp("app", "web", 54, family), allowed.again(source=lab.address("db", family))]
    for vlan in (0, 1, 5, 4095):
        link = struct.pack("!HHH", tag_type, vlan, ETHERTYPE[family])
        twice = struct.pack("!HH", tag_type, vlan) + link
        lab.forget_flows()
        lab.expect_fate(DENIED, *(replace(way, link=tagged) for way in denied for tagged in (link, twice)))
        # The kernel takes a tag of VLAN 0 off (it is a priority alone), and no frame of a VLAN that nobody made.
        lab.expect_fate(vlan == 0, replace(allowed, link=link))


def _sum(octets):
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize("kind", [LOOSE, STRICT], ids=["loose", "strict"])
@pytest.mark.parametrize("routes", [0, 1], ids=["as the kernel is", "with accept_source_route"])
def test_a_source_route_leads_round_no_rule(lab, kind, routes, used):
    _open(lab)
    _follow_ways(lab, "ipv4/conf/{}/accept_source_route", routes)
    hop = lab.address("host", 4)
    allowed = lab.udp("app", "web", 53)
    shut = lab.udp("app", "web", 54)
    spoofed = allowed.again(source=lab.address("db", 4))
    lab.expect(ALLOWED, allowed)
    lab.forget_flows()
    ways = (allowed, shut, spoofed)
    lab.expect_fate(DENIED, *(replace(way, encode=source_routed(way.packet, hop, kind, used=used)) for way in ways))
    _follow_ways(lab, "ipv4/conf/{}/accept_source_route", 0)


@pytest.mark.parametrize("has_mac", [True, False], ids=["mac", "any mac"])
def test_an_option_that_names_no_way_changes_nothing(lab, has_mac):
    rules = [f"ingress udp/53 from {network}" for network in ANY.values()]
    lab.enforce(group("g", *rules), lab.instance("web", "g"), lab.instance("app", mac=has_mac))
    allowed, shut = lab.udp("app", "web", 53), lab.udp("app", "web", 54)
    spoofed = allowed.again(source=lab.address("db", 4))
    lab.forget_flows()
    for option in (ROUTER_ALERT, ROUTER_ALERT + TIMESTAMP, RECORD, SECURITY[:4]):
        for way, passes in ((allowed, ALLOWED), (shut, DENIED), (spoofed, DENIED)):
            lab.expect_fate(passes, replace(way, encode=partial(_with_option, way.packet, option)))
    # Where the kernel sees no option that it knows, there may be a way among them.
    for option in (TIMESTAMP, SECURITY):
        lab.expect_fate(DENIED, replace(allowed, encode=partial(_with_option, allowed.packet, option)))


def _with_option(packet, option, *, tag):
    return with_option(encode_packet(packet, tag=tag), option)


def _follow_ways(lab, setting, value):
    names = (placed.port for placed in lab.world.placed.values())
    for name in ("all", "default", *names, *([BRIDGE] if lab.is_bridged else [])):
        lab.world.router.write_sysctl(setting.format(name), value)


@pytest.mark.parametrize("has_mac", [True, False], ids=["mac", "any mac"])
@led
def test_a_known_flow_to_the_host_carries_nothing_on_along_a_way_that_a_packet_names(lab, kind, used, has_mac):
    family, setting = (4, "ipv4/conf/{}/accept_source_route") if kind else (6, "ipv6/conf/{}/seg6_enabled")
    lab.enforce(lab.instance("web"), lab.instance("app", mac=has_mac))
    _follow_ways(lab, setting, 1)
    hop = lab.address("host", family)
    talk = lab.udp("app", "host", 9999, family)
    onwards = lab.udp("app", "web", 9999, family, source_port=talk.packet.source_port)
    lab.expect(ALLOWED, talk)
    lab.expect_fate(ALLOWED, talk.back())
    lab.expect_fate(ALLOWED, talk)
    lab.expect_fate(DENIED, replace(onwards, encode=_lead(onwards.packet, hop, kind, used)))
    _follow_ways(lab, setting, 0)


@pytest.mark.kind(Kind.ROUTED, Kind.BRIDGED)
@led
def test_no_answer_to_the_host_goes_on_to_an_instance_along_a_way_that_it_names(lab, kind, used):
    family, setting = (4, "ipv4/conf/{}/accept_source_route") if kind else (6, "ipv6/conf/{}/seg6_enabled")
    lab.enforce(lab.instance("web"))
    _follow_ways(lab, setting, 1)
    hop = lab.address("host", family)
    asked = lab.udp("host", "outside", 443, family)
    lab.expect_fate(ALLOWED, asked)
    lab.expect_fate(ALLOWED, asked.back())
    onwards = replace(asked.back(destination=lab.address("web", family)), destination="web")
    lab.expect_fate(DENIED, replace(onwards, encode=_lead(onwards.packet, hop, kind, used)))
    _follow_ways(lab, setting, 0)


def _lead(packet, hop, kind, used):
    return source_routed(packet, hop, kind, used=used) if kind else segment_routed(packet, hop)


def _fragments(packet, tag):
    """A UDP packet in two fragments, the tag at the end of the second."""
    whole = encode_packet(packet, tag=tag)
    if packet.family == 4:
        body = whole[20:]
        for offset, piece, more in ((0, body[:8], IPV4_MORE), (8, body[8:], 0)):
            start = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(piece), tag & 0xFFFF, more | offset >> 3, 64, UDP)
            ends = packet.source.packed + packet.destination.packed
            yield start + _sum(start + bytes(2) + ends) + ends + piece
    else:
        body = whole[40:]
        for offset, piece, more in ((0, body[:8], IPV6_MORE), (8, body[8:], 0)):
            header = struct.pack("!IHBB", 6 << 28, 8 + len(piece), 44, 64)
            ends = packet.source.packed + packet.destination.packed
            yield header + ends + struct.pack("!BBHI", UDP, 0, offset | more, tag) + piece


@families
def test_fragments_from_another_address_or_machine_are_dropped(lab, family):
    _open(lab)
    own = lab.udp("app", "web", 53, family)
    cases = [(own, own.packet, None, True)]
    cases.append((own, own.again(source=lab.address("db", family)).packet, None, False))
    cases.append((own, lab.udp("app", "web", 53, family).packet, lab.world.placed["db"].mac, False))
    for number, (way, packet, mac, passes) in enumerate(cases, start=7_000_001):
        lab.forget_flows()
        tap = lab.range.taps[way.source]
        for fragment in _fragments(packet, number):
            tap.send(fragment, source_mac=mac)
        heard = _heard(lab)
        assert ("web" in heard.get(number, set())) == passes, f"{packet}: heard {heard}"


def _heard(lab):
    """Tag -> the taps at which it was heard, until nothing comes any more."""
    heard = {}
    taps = lab.range.taps.values()
    while select.select([tap.socket for tap in taps], [], [], _QUIET_S)[0]:
        for tap in taps:
            for packet in tap.take_packets():
                heard.setdefault(tag_of(packet), set()).add(tap.name)
    return heard


@families
def test_a_third_instance_hears_no_unicast_frame_of_others(lab, family):
    _open(lab)
    talks = [
        lab.udp("app", "web", 53, family),
        lab.udp("outside", "web", 53, family),
        lab.udp("web", "outside", 9, family),
    ]
    lab.expect(ALLOWED, *talks)
    shots = {8_000_001 + number: way for number, way in enumerate([*talks, *(way.back() for way in talks)])}
    for tag, way in shots.items():
        lab.range.taps[way.source].send(way.octets(tag))
    heard = _heard(lab)
    assert {tag: names for tag, names in heard.items() if tag in shots} == {
        tag: {way.destination} for tag, way in shots.items()
    }


@families
def test_what_an_instance_says_of_others_addresses_turns_nothing_aside(lab, family):
    """The host believes it, of that very port: no packet for the others goes there."""
    _open(lab)
    port, mac = lab.world.placed["app"].port, lab.world.placed["app"].mac
    lab.world.router.write_sysctl(f"ipv4/conf/{port}/arp_accept", 1)
    lab.world.router.write_sysctl(f"ipv6/conf/{port}/accept_untracked_na", 1)
    own, web, host = (lab.address(name, family) for name in ("app", "web", "host"))
    tap = lab.range.taps["app"]
    if family == 4:
        tap.send_frame(ARP, arp(REPLY, mac, web, host))
        tap.send_frame(ARP, arp(REQUEST, mac, web, web), to=EVERYBODY)
    else:
        tap.send(discovery(ADVERTISEMENT, own, host, web, (TARGET_ETHER, octets_of_mac(mac)), flags=OVERRIDE))
    lab.range.settle("app")
    assert lab.world.router.run(partial(_neighbours, port, family))[str(web)] == mac
    ways = [lab.udp(name, "web", 53, family) for name in ("outside", "db", "app")]
    lab.expect(ALLOWED, *ways)
    lab.expect_fate(ALLOWED, lab.udp("web", "outside", 9, family))
    lab.expect(ALLOWED, lab.udp("host", "web", 53, family))
    lab.world.router.run(partial(_forget_neighbour, port, web))


def _neighbours(port, family):
    """Called inside the router: address -> MAC address, as it is believed at the port."""
    with IPRoute() as netlink:
        (index,) = netlink.link_lookup(ifname=port)
        found = netlink.get_neighbours(family=AF[family], ifindex=index)
        return {one.get_attr("NDA_DST"): one.get_attr("NDA_LLADDR") for one in found}


def _forget_neighbour(port, address):
    with IPRoute() as netlink:
        netlink.neigh("del", dst=str(address), ifindex=netlink.link_lookup(ifname=port)[0])


@pytest.fixture(autouse=True)
def _quiet(lab):
    """No test hears what another one left."""
    lab.range  # noqa: B018  opened by being asked for
    _heard(lab)


@pytest.mark.parametrize("addressed", [True, False], ids=["from its address", "before it has one"])
def test_the_hosts_own_listener_reports_reach_an_instance_that_lets_in_nothing(lab, addressed):
    """Like discovery of its own they name the port as where they came in, though nobody sent them there."""
    lab.enforce(lab.instance("web"))
    port, tap = lab.world.placed["web"].port, lab.range.taps["web"]
    with nullcontext() if addressed else _without_addresses(lab, port):
        tap.take_packets()
        with lab.world.router.run(partial(_listener, port)):
            wait_until(lambda: any(_is_report(packet) for packet in tap.take_packets()))


@contextmanager
def _without_addresses(lab, port):
    taken = lab.world.router.run(partial(_take_addresses, port))
    try:
        yield
    finally:
        lab.world.router.run(partial(_give_addresses, port, taken))


def _take_addresses(port):
    """Called inside the router."""
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname=port)[0]
        taken = [one.get("address") for one in netlink.get_addr(family=socket.AF_INET6, index=index)]
        for address in taken:
            netlink.addr("del", index=index, address=address, prefixlen=64)
    return taken


def _give_addresses(port, addresses):
    with IPRoute() as netlink:
        for address in addresses:
            index = netlink.link_lookup(ifname=port)[0]
            netlink.addr("add", index=index, address=address, prefixlen=64, flags=NODAD)


def _listener(port):
    opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    membership = socket.inet_pton(socket.AF_INET6, "ff02::4:2") + struct.pack("@I", socket.if_nametoindex(port))
    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
    return opened


def _is_report(packet):
    """An MLDv2 report (RFC 3810), behind the router alert."""
    return packet[0] >> 4 == 6 and packet[6] == 0 and packet[48] == 143
