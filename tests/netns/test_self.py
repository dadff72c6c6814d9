"""The rows of docs/semantics.md on a host that is its own instance, as packets on the wire and equal to the model."""

import select
import socket
import sys
from contextlib import closing
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from lab import FAMILIES, HOST, Way
from policies import group
from ringfence.agent.enforce import Enforcer
from ringfence.agent.generations import Generations
from ringfence.nft import About
from ringfence.policy.packet import AH, TCP, UDP
from ringfence.policy.program.compile import compile_program
from ringfence.policy.values import Mac
from ringfence.policy.verdict import Default
from ringfence.policy.view import HostView
from ringfence.world.frames import octets_of_mac
from segments import LOOSE, STRICT, TOO_BIG, discovery, error_about, segment_routed, source_routed
from self_lab import OWN, open_self_lab
from traffic import talk_to_itself
from waiting import wait_until

pytestmark = pytest.mark.netns

ALLOWED, DENIED = True, False
ANY = {4: "0.0.0.0/0", 6: "::/0"}
SHUT = "egress tcp/1 to 192.0.2.1/32"  # restricts egress to what nobody here is
LOOPBACK = {4: ip_address("127.0.0.1"), 6: ip_address("::1")}
NOBODY = {4: IPv4Address(0), 6: IPv6Address(0)}
BROADCAST = ip_address("255.255.255.255")
ALL_NODES = ip_address("ff02::1")
DHCP6_SERVERS = ip_address("ff02::1:2")
NEIGHBOUR = ip_address("fe80::77")
HOSTS_LINK_LOCAL = ip_address("fe80::1")
OSPF = 89
_DAD_FAILED = 0x08  # IFA_F_DADFAILED
families = pytest.mark.parametrize("family", FAMILIES)
uplinks = pytest.mark.parametrize("peer", ["outside", "beyond"])


@pytest.fixture(scope="module")
def host():
    with closing(open_self_lab()) as opened:
        yield opened


def _reason(lab, way):
    verdict = lab.judge(way)
    side = verdict.ingress or verdict.egress
    return side.reason


@families
def test_loopback_of_a_self_host_is_free(host, family):
    host.enforce(group("g", SHUT), wears=("g",))
    for address in (LOOPBACK[family], *(a for own in OWN.values() for a in own if a.version == family)):
        host.world.router.run(partial(talk_to_itself, str(address)))


@families
@uplinks
def test_what_comes_in_by_an_uplink_is_judged_by_the_hosts_ingress(host, family, peer):
    host.enforce()
    ways = host.tcp(peer, HOST, 80, family), host.udp(peer, HOST, 53, family), host.echo(peer, HOST, family)
    host.expect(DENIED, *ways, host.way(peer, HOST, AH, family))
    protocol = {4: "icmp", 6: "icmpv6"}[family]
    rules = (f"ingress tcp/80 from {ANY[family]}", f"ingress udp/53 from {ANY[family]}")
    host.enforce(group("g", *rules, f"ingress {protocol} from {ANY[family]}"), wears=("g",))
    host.expect(ALLOWED, *ways)
    host.expect(DENIED, host.tcp(peer, HOST, 81, family), host.udp(peer, HOST, 54, family))


@families
@uplinks
def test_what_the_host_sends_by_an_uplink_is_judged_by_its_egress(host, family, peer):
    ways = host.tcp(HOST, peer, 443, family), host.udp(HOST, peer, 53, family), host.echo(HOST, peer, family)
    host.enforce()
    host.expect(ALLOWED, *ways, host.way(HOST, peer, OSPF, family))
    host.enforce(group("g", f"egress tcp/443 to {ANY[family]}"), wears=("g",))
    host.expect(ALLOWED, ways[0])
    host.expect(DENIED, *ways[1:], host.tcp(HOST, peer, 444, family))


@families
def test_replies_and_errors_about_flows_of_a_self_host_pass(host, family):
    host.enforce(group("g", f"ingress udp/53 from {ANY[family]}", SHUT), wears=("g",))
    asked = host.udp("outside", HOST, 53, family)
    host.expect(DENIED, asked.back())
    host.expect(ALLOWED, asked)
    host.expect_fate(ALLOWED, asked.back())
    host.enforce()
    sent = host.udp(HOST, "outside", 53, family)
    host.expect(DENIED, sent.back(), _error(sent))
    host.expect(ALLOWED, sent)
    host.expect_fate(ALLOWED, sent.back(), _error(sent))
    host.enforce(group("g", SHUT), wears=("g",))
    host.expect_fate(ALLOWED, _error(sent))
    host.expect_fate(DENIED, sent.back())


def _error(way):
    packet, encode = error_about(
        way.packet, way.octets(0), source=way.packet.destination, destination=way.packet.source, kind=TOO_BIG
    )
    return Way(way.destination, way.source, packet, encode)


@families
def test_a_cut_of_a_self_host_stops_exactly_its_flows_both_ways(host, family):
    keeps = (f"ingress udp/99 from {ANY[family]}", f"egress udp/98 to {ANY[family]}")
    cut = (f"ingress udp/53 from {ANY[family]}", f"egress udp/52 to {ANY[family]}")
    ports = (53, 52), (99, 98)
    pairs = [(host.udp("outside", HOST, i, family), host.udp(HOST, "outside", o, family)) for i, o in ports]
    host.enforce(group("g", *keeps, *cut), wears=("g",))
    for into, out in pairs:
        host.expect_fate(ALLOWED, into)
        host.expect_fate(ALLOWED, into.back())
        host.expect_fate(ALLOWED, out)
        host.expect_fate(ALLOWED, out.back())
    host.enforce(group("g", *keeps), wears=("g",))
    for allowed, (into, out) in zip((DENIED, ALLOWED), pairs, strict=True):
        host.expect_fate(allowed, into.back())
        host.expect_fate(allowed, out.back())
        host.expect_fate(allowed, into)
        host.expect_fate(allowed, out)


@families
def test_flows_that_go_one_way_only_are_cut_at_a_self_host_too(host, family):
    rules = f"ingress udp/53 from {ANY[family]}", f"egress udp/53 to {ANY[family]}", SHUT
    into, out = host.udp("outside", HOST, 53, family), host.udp(HOST, "outside", 53, family)
    host.enforce(group("g", *rules), wears=("g",))
    for _ in range(3):
        host.expect_fate(ALLOWED, into)
        host.expect_fate(ALLOWED, out)
    host.enforce(group("g", SHUT), wears=("g",))
    host.expect_fate(DENIED, into)
    host.expect_fate(DENIED, out)


@families
def test_a_self_host_is_a_member_of_its_groups_and_a_group_may_be_its_peer(host, family):
    friends = group("friends", "source 198.51.100.0/24", "source 2001:db8::/64", "egress udp/99 to group friends")
    host.enforce(friends, group("g", "ingress udp/53 from group friends"), wears=("friends", "g"))
    assert host.view.peers[friends.id].members == {address for own in OWN.values() for address in own}
    host.expect(ALLOWED, host.udp("outside", HOST, 53, family), host.udp("outside", HOST, 53, family))
    host.expect(DENIED, host.udp("beyond", HOST, 53, family))
    host.expect(ALLOWED, host.udp(HOST, "outside", 99, family))
    host.expect(DENIED, host.udp(HOST, "beyond", 99, family))


@families
def test_tcp_in_mid_stream_opens_no_flow_of_a_self_host(host, family):
    host.enforce(group("g", f"ingress tcp from {ANY[family]}", f"egress tcp to {ANY[family]}"), wears=("g",))
    for source, destination in (("outside", HOST), (HOST, "outside"), ("outside", "beyond"), ("box", "outside")):
        host.expect(ALLOWED, host.tcp(source, destination, 443, family))
        host.expect(DENIED, host.tcp(source, destination, 443, family, opening=False))


@families
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_published_port_is_judged_as_the_hosts_by_the_port_on_the_wire(host, family, protocol):
    name = {TCP: "tcp", UDP: "udp"}[protocol]
    asked = host.published(host.way("outside", HOST, protocol, family, destination_port=8080))
    host.enforce(group("g", f"ingress {name}/80 from {ANY[family]}", SHUT), wears=("g",))
    host.expect(DENIED, asked)
    host.enforce(group("g", f"ingress {name}/8080 from {ANY[family]}", SHUT), wears=("g",))
    host.expect(ALLOWED, asked)


@families
def test_a_flow_to_a_published_port_is_answered_and_cut(host, family):
    asked = host.published(host.udp("outside", HOST, 8080, family))
    answer = host.deliver_published(asked, port=80)
    rule = f"ingress udp/8080 from {ANY[family]}"
    host.enforce(group("g", rule, SHUT), wears=("g",))
    host.expect(ALLOWED, asked)
    host.expect_fate(ALLOWED, answer)
    host.expect_fate(ALLOWED, asked)
    host.enforce(group("g", rule, SHUT, "ingress udp/7 from 0.0.0.0/0"), wears=("g",))
    host.expect_fate(ALLOWED, answer)
    host.enforce(group("g", SHUT), wears=("g",))
    host.expect_fate(DENIED, answer)
    host.expect_fate(DENIED, asked)
    host.enforce(group("g", rule, SHUT), wears=("g",))
    host.expect_fate(ALLOWED, asked)
    host.expect_fate(ALLOWED, answer)


@families
def test_what_containers_send_by_an_uplink_is_the_hosts_egress(host, family):
    allowed, denied = host.udp("box", "outside", 53, family), host.udp("box", "outside", 54, family)
    host.enforce()
    host.expect(ALLOWED, allowed, denied)
    host.enforce(group("g", f"egress udp/53 to {ANY[family]}"), wears=("g",))
    host.expect(ALLOWED, allowed)
    answer = replace(allowed.back(destination=host.address(HOST, family)), destination="box")
    host.expect_fate(ALLOWED, answer)
    host.expect(DENIED, denied)
    host.enforce(group("g", SHUT), wears=("g",))
    host.expect_fate(DENIED, allowed)


@families
def test_between_containers_and_between_them_and_the_host_nothing_is_touched(host, family):
    host.enforce(group("g", SHUT), wears=("g",))
    invalid = {4: host.icmp("box", "crate", 3, 3), 6: host.icmpv6("box", "crate", 1, 4)}[family]
    host.expect(
        ALLOWED,
        invalid,
        host.tcp("box", "crate", 80, family),
        host.tcp("crate", "box", 80, family, opening=False),
        host.udp("box", "crate", 68 if family == 4 else 546, family, source_port=67 if family == 4 else 547),
        host.way("box", "crate", AH, family),
        host.way("crate", "box", OSPF, family),
    )
    host.expect(ALLOWED, host.udp("box", HOST, 53, family), host.tcp("box", HOST, 80, family, opening=False))
    host.expect(ALLOWED, host.udp(HOST, "box", 53, family), host.tcp(HOST, "box", 80, family, opening=False))


@families
def test_what_passes_through_from_one_uplink_to_another_needs_both_directions(host, family):
    into, out = f"ingress udp/53 from {ANY[family]}", f"egress udp/53 to {ANY[family]}"
    for rules, allowed in (((into, out), ALLOWED), ((into, SHUT), DENIED), ((out,), DENIED)):
        host.enforce(group("g", *rules), wears=("g",))
        passing = host.udp("outside", "beyond", 53, family)
        host.expect(allowed, passing)
        if allowed:
            host.expect_fate(ALLOWED, passing.back())


@pytest.mark.parametrize(
    ("kind", "used"),
    [(LOOSE, False), (STRICT, False), (LOOSE, True), (None, False)],
    ids=["loose", "strict", "used", "segments"],
)
def test_a_known_flow_to_a_self_host_carries_nothing_through_it_along_a_way_that_a_packet_names(host, kind, used):
    family, setting = (4, "ipv4/conf/{}/accept_source_route") if kind else (6, "ipv6/conf/{}/seg6_enabled")
    host.enforce(group("g", f"ingress udp/53 from {ANY[family]}", SHUT), wears=("g",))
    for name in ("all", "eth0"):
        host.world.router.write_sysctl(setting.format(name), 1)
    hop = host.address(HOST, family)
    asked = host.udp("outside", HOST, 53, family)
    host.expect(ALLOWED, asked)
    host.expect_fate(ALLOWED, asked.back())
    for name in ("beyond", "box"):
        onwards = host.udp("outside", name, 53, family, source_port=asked.packet.source_port)
        routed = source_routed(onwards.packet, hop, kind, used=used) if kind else segment_routed(onwards.packet, hop)
        host.expect_fate(DENIED, replace(onwards, encode=routed))
    host.world.router.write_sysctl(setting.format("all"), 0)


@families
def test_martians_do_not_enter_a_self_host(host, family):
    """The kernel is told to let them in, as Kubernetes and others do (CVE-2020-8558)."""
    for name in ("route_localnet", "accept_local"):
        host.world.router.write_sysctl(f"ipv4/conf/eth0/{name}", 1)
    host.enforce(group("g", f"ingress all from {ANY[family]}"), wears=("g",))
    own = OWN["eth0"], OWN["eth1"]
    claimed = [LOOPBACK[family], *(a for addresses in own for a in addresses if a.version == family)]
    martians = [host.udp("outside", HOST, 53, family, source=address) for address in claimed]
    martians.append(host.udp("outside", HOST, 53, family, destination=LOOPBACK[family]))
    host.expect(DENIED, *martians)
    assert {_reason(host, way) for way in martians} == {Default.MARTIAN}
    host.expect(ALLOWED, host.udp("outside", HOST, 53, family))


@pytest.mark.parametrize("destination", ["239.1.2.3", "255.255.255.255", "ff02::fb"])
def test_a_self_host_hears_what_it_sends_to_many_itself(host, destination):
    """As programs of one host hear each other's announcements (mDNS): its kernel brings them back by the uplink."""
    told = partial(_tell_itself, destination)
    host.enforce(group("g", "egress udp/5353 to 0.0.0.0/0", "egress udp/5353 to ::/0"), wears=("g",))
    assert host.world.router.run(told)
    host.enforce(group("g", SHUT), wears=("g",))
    with pytest.raises(PermissionError):  # what must not leave does not come back either
        host.world.router.run(told)
    # Nobody outside is taken for it.
    host.enforce(group("g", "egress udp/5353 to 0.0.0.0/0", "egress udp/5353 to ::/0"), wears=("g",))
    family = ip_address(destination).version
    claimed = host.udp("outside", HOST, 5353, family, source=host.address(HOST, family))
    host.expect(DENIED, claimed, claimed.again(destination=ip_address(destination)))


def _tell_itself(destination):
    """Whether a program on the host hears what another sends by the uplink to many. Called inside the host."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    index = socket.if_nametoindex("eth0")
    with socket.socket(family, socket.SOCK_DGRAM) as ear, socket.socket(family, socket.SOCK_DGRAM) as mouth:
        if family == socket.AF_INET6:
            ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, ip_address(destination).packed + _int(index))
            mouth.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        else:
            by_uplink = bytes(4) + _int(index)
            if ip_address(destination).is_multicast:
                ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, ip_address(destination).packed + by_uplink)
            mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(4) + by_uplink)
            mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        own = next(str(address) for address in OWN["eth0"] if (address.version == 6) == (family == socket.AF_INET6))
        ear.bind(("", 5353))
        mouth.bind((own, 0))
        mouth.sendto(b"here", (destination, 5353))
        return bool(select.select([ear], [], [], 1.0)[0])


def _int(number):
    return number.to_bytes(4, sys.byteorder)


def test_a_self_host_learns_that_another_has_its_address(host):
    """It asks the link before it uses an address (RFC 4862), and who has it answers from that very address."""
    host.enforce(group("g", SHUT), wears=("g",))
    own = OWN["eth0"][1]
    advertised = host.icmpv6("outside", HOST, 136, source=own, destination=ALL_NODES, hop_limit=255)
    host.expect(ALLOWED, advertised)
    host.expect(
        DENIED, advertised.again(hop_limit=254), advertised.again(icmp_type=128), advertised.again(icmp_type=135)
    )
    tap = host.range.taps["outside"]
    told = discovery(136, own, ALL_NODES, own, (2, octets_of_mac(tap.mac)), flags=0x2000_0000)
    for setting, value in (("accept_dad", 1), ("dad_transmits", 1), ("router_solicitation_delay", 0)):
        host.world.router.write_sysctl(f"ipv6/conf/eth0/{setting}", value)
    address = partial(_change_address, str(own))
    host.world.router.run(partial(address, "add"))
    try:
        wait_until(lambda: any(_asks(frame, own) for frame in tap.take_frames()))
        tap.send(told, to=Mac("33:33:00:00:00:01"))
        wait_until(lambda: host.world.router.run(partial(_flags, own)) & _DAD_FAILED)
    finally:
        host.world.router.run(partial(address, "del"))


def _asks(frame, target):
    return frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 135 and frame[62:78] == target.packed


def _change_address(address, verb):
    with IPRoute() as netlink:
        netlink.addr(verb, index=socket.if_nametoindex("eth0"), address=address, prefixlen=128)


def _flags(address):
    """Of an address of the uplink, as /proc/net/if_inet6 shows them."""
    lines = map(str.split, Path("/proc/thread-self/net/if_inet6").read_text().splitlines())
    return next((int(line[4], 16) for line in lines if (line[0], line[5]) == (address.packed.hex(), "eth0")), 0)


def test_a_self_host_gets_its_addresses_by_dhcp(host):
    host.enforce(group("g", SHUT), wears=("g",))
    host.expect(
        ALLOWED, host.udp(HOST, "outside", 547, 6, source_port=546, source=HOSTS_LINK_LOCAL, destination=DHCP6_SERVERS)
    )
    host.expect(DENIED, host.udp(HOST, "outside", 547, 6, source_port=546))
    host.expect(DENIED, host.udp(HOST, "outside", 67, source_port=68))
    host.expect(ALLOWED, host.udp("outside", HOST, 68, source_port=67))
    host.expect(
        ALLOWED, host.udp("outside", HOST, 546, 6, source_port=547, source=NEIGHBOUR, destination=HOSTS_LINK_LOCAL)
    )
    host.expect(
        DENIED,
        host.udp("outside", HOST, 546, 6, source_port=547),
        host.udp("outside", HOST, 69, source_port=67),
        host.udp("outside", "box", 68, source_port=67),
    )


def test_discovery_of_its_own_link_reaches_a_self_host_and_none_from_beyond(host):
    host.enforce(group("g", SHUT), wears=("g",))
    discovery = [
        host.icmpv6("outside", HOST, type_, source=NEIGHBOUR, destination=ALL_NODES, hop_limit=255)
        for type_ in (133, 134, 135, 136, 137)
    ]
    listening = [
        host.icmpv6("outside", HOST, type_, source=NEIGHBOUR, destination=ALL_NODES, hop_limit=1)
        for type_ in (130, 131, 132, 143)
    ]
    host.expect(ALLOWED, *discovery, *listening)
    host.expect(DENIED, *(way.again(hop_limit=254) for way in (*discovery, *listening)))
    host.expect(DENIED, *(way.again(source=host.address("outside", 6)) for way in listening))
    host.expect(DENIED, *(way.again(hop_limit=1) for way in discovery))


def test_a_self_host_solicits_and_answers_on_its_link(host):
    host.enforce(group("g", SHUT), wears=("g",))
    ways = [
        host.icmpv6(HOST, "outside", type_, source=HOSTS_LINK_LOCAL, destination=ALL_NODES, hop_limit=255)
        for type_ in (133, 135, 136)
    ]
    report = host.icmpv6(HOST, "outside", 143, source=HOSTS_LINK_LOCAL, destination=ip_address("ff02::16"), hop_limit=1)
    host.expect(ALLOWED, *ways, report)


@families
def test_a_failsafe_port_passes_whatever_the_groups_say(host, family):
    policies = ((), ()), ((group("g", SHUT),), ("g",)), ((group("g", f"ingress tcp/80 from {ANY[family]}"),), ("g",))
    for groups, worn in policies:
        host.enforce(*groups, wears=worn)
        asked = host.tcp("outside", HOST, 22, family)
        host.expect(ALLOWED, asked, host.tcp("outside", HOST, 22, family, opening=False))
        host.expect(ALLOWED, host.udp("outside", HOST, 51820, family))
        assert _reason(host, asked) is Default.FAILSAFE
        for way in (asked, host.udp("outside", HOST, 51820, family)):
            host.expect_fate(ALLOWED, way)
            host.expect_fate(ALLOWED, way.back(opening=False))
        # Not from elsewhere, not for another port or protocol, not for what another table sends to that port.
        host.expect(
            DENIED,
            host.tcp("beyond", HOST, 22, family),
            host.tcp("outside", HOST, 23, family),
            host.udp("outside", HOST, 22, family),
            host.published(host.tcp("outside", HOST, 2222, family)),
        )


@families
def test_answers_from_a_failsafe_port_pass_without_a_known_flow_and_open_nothing(host, family):
    host.enforce(group("g", SHUT), wears=("g",))
    answer = host.tcp(HOST, "outside", 4000, family, source_port=22, opening=False)
    host.expect(ALLOWED, answer)
    host.expect_fate(ALLOWED, answer.back(opening=False))
    host.expect(
        DENIED,
        host.tcp(HOST, "outside", 4000, family, source_port=22),
        host.tcp(HOST, "beyond", 4000, family, source_port=22, opening=False),
    )
    host.expect(DENIED, host.tcp("box", "outside", 4000, family, source_port=22, opening=False))


@families
def test_a_published_port_that_leads_to_a_failsafe_number_is_cut_like_others(host, family):
    asked = host.published(host.tcp("outside", HOST, 2222, family))
    answer = host.deliver_published(asked, port=22)
    host.enforce(group("g", f"ingress tcp/2222 from {ANY[family]}", SHUT), wears=("g",))
    host.expect(ALLOWED, asked)
    host.expect_fate(ALLOWED, replace(answer, packet=replace(answer.packet, opening=False)))
    host.enforce(group("g", SHUT), wears=("g",))
    host.expect_fate(DENIED, asked.again(opening=False))
    host.expect_fate(DENIED, replace(answer, packet=replace(answer.packet, opening=False)))


@families
def test_the_agents_channel_to_its_server_passes_whatever_the_groups_say(host, family):
    for groups, worn in (((), ()), ((group("g", SHUT),), ("g",))):
        host.enforce(*groups, wears=worn)
        call = host.tcp(HOST, "beyond", 8443, family)
        host.expect(ALLOWED, call)
        assert _reason(host, call) is Default.CHANNEL
        host.expect_fate(ALLOWED, call.back(opening=False))
        host.expect_fate(ALLOWED, call.again(opening=False))
        host.expect(ALLOWED, host.tcp("beyond", HOST, 5000, family, source_port=8443, opening=False))
        host.expect(DENIED, host.tcp("beyond", HOST, 5000, family, source_port=8443))
    host.expect(
        DENIED,
        host.tcp(HOST, "beyond", 8444, family),
        host.tcp(HOST, "outside", 8443, family),
        host.udp(HOST, "beyond", 8443, family),
    )
    host.expect(DENIED, host.tcp("box", "beyond", 8443, family))


@families
def test_a_self_host_without_its_view_is_closed_but_for_its_lifelines_and_its_link(host, family):
    """Before any view, and when its endpoint cannot be compiled."""
    open_to_all = group("g", f"ingress all from {ANY[family]}")
    host.enforce(open_to_all, wears=("g",))

    def broken(view, ports):
        if view.endpoints:
            raise RuntimeError("made to fail")
        return compile_program(view, ports)

    failing = Enforcer(host.nftables, Generations(host.conntrack), last_block=None, compile_=broken)
    for view in (host.view, HostView(0)):
        outcome = failing.enforce(view, About(10**6, "lab"), host.ports)
        assert bool(outcome.refused) == bool(view.endpoints)
        host.forget_flows()
        others = [host.tcp("outside", HOST, 80, family), host.published(host.udp("outside", HOST, 8080, family))]
        host.expect_fate(DENIED, *others, host.udp("box", "outside", 53, family))
        host.expect_fate(DENIED, host.udp(HOST, "outside", 53, family))
        host.expect_fate(ALLOWED, host.tcp("outside", HOST, 22, family))
        host.expect_fate(ALLOWED, host.tcp(HOST, "beyond", 8443, family))
        if family == 6:
            advertised = host.icmpv6("outside", HOST, 136, source=NEIGHBOUR, destination=ALL_NODES, hop_limit=255)
            host.expect_fate(ALLOWED, advertised)


@families
def test_before_any_view_a_self_host_is_observed(host, family):
    host.observed = True
    host._enforcer.enforce(HostView(0), About(0, ""), host.ports)
    del host.observed
    host.forget_flows()
    ways = host.tcp("outside", HOST, 80, family), host.published(host.udp("outside", HOST, 8080, family))
    host.expect_fate(ALLOWED, *ways, host.tcp("outside", HOST, 80, family, opening=False))
    host.expect_fate(ALLOWED, host.udp(HOST, "outside", 53, family))
    host.expect_fate(ALLOWED, host.udp("box", "outside", 54, family))


@families
def test_an_interface_of_the_host_that_is_not_managed_is_not_filtered(host, family):
    host.managed = ("eth0",)
    host.enforce(group("g", SHUT), wears=("g",))
    host.expect(ALLOWED, host.udp("beyond", HOST, 53, family), host.tcp("beyond", HOST, 80, family, opening=False))
    host.expect(ALLOWED, host.udp(HOST, "beyond", 53, family))
    host.expect(DENIED, host.udp("outside", HOST, 53, family))
    del host.managed
    host.enforce(group("g", SHUT), wears=("g",))
    host.expect(DENIED, host.udp("beyond", HOST, 53, family), host.udp("beyond", HOST, 9, family))


@families
def test_an_interface_under_a_pattern_is_closed_at_a_self_host_too(host, family):
    host.enforce(group("g", f"ingress all from {ANY[family]}"), wears=("g",))
    host.forget_flows()
    host.expect_fate(DENIED, *(host.udp("born", name, 53, family) for name in (HOST, "outside", "box")))
    host.expect_fate(DENIED, *(host.udp(name, "born", 53, family) for name in ("outside", "box")))
    host.expect_fate(DENIED, host.udp(HOST, "born", 53, family))
    if family == 6:
        solicitation = host.icmpv6("born", HOST, 135, source=NEIGHBOUR, destination=ALL_NODES, hop_limit=255)
        host.expect_fate(DENIED, solicitation)
