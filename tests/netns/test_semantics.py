"""Every row of docs/semantics.md as packets on the wire; ``Lab.expect`` compares each fate with the model's, too."""

import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from pyroute2 import IPRoute

from lab import DHCP6_SERVERS, FAMILIES, HOST, HOST_ADDRESSES, MLD_ROUTERS, Way
from policies import group
from ringfence.policy.packet import AH, ICMP, ICMPV6, NO_NEXT_HEADER, TCP, UDP
from ringfence.policy.values import PROTOCOL_NUMBER, Kind, Mac, Protocol, link_local
from ringfence.world.packets import encode_packet
from segments import TOO_BIG, UNREACHABLE, authenticated_udp, behind_options, error_about, large
from traffic import open_talk, talk_to_itself
from waiting import wait_until

pytestmark = pytest.mark.netns

ALLOWED, DENIED = True, False
ANY = {4: "0.0.0.0/0", 6: "::/0"}
NOBODY = {4: IPv4Address(0), 6: IPv6Address(0)}
BROADCAST = ip_address("255.255.255.255")
ALL_ROUTERS = ip_address("ff02::2")
GATEWAY = ip_address("fe80::1")
OSPF = 89  # stands for every protocol that no rule can name
ESP, GRE, IPIP = (PROTOCOL_NUMBER[protocol] for protocol in (Protocol.ESP, Protocol.GRE, Protocol.IPIP))
KINDS = (Kind.ROUTED, Kind.BRIDGED)  # every row holds for both, but for what is marked as a matter of one alone
families = pytest.mark.parametrize("family", FAMILIES)
routed_alone = pytest.mark.kind(Kind.ROUTED)  # its like for bridged ports is in test_bridged.py


# Row 1: ingress is denied, egress is open until a rule says otherwise; groups add up.


@families
def test_ingress_is_denied_by_default(lab, family):
    lab.enforce(group("idle"), lab.instance("web"), lab.instance("app", "idle"))
    for name in ("web", "app"):
        ways = [lab.way("outside", name, protocol, family) for protocol in (ESP, GRE, IPIP, AH, OSPF)]
        lab.expect(DENIED, lab.tcp("outside", name, 80, family), lab.udp("outside", name, 53, family), *ways)
        lab.expect(DENIED, lab.echo("outside", name, family))


@families
def test_egress_is_open_until_a_group_has_an_egress_rule(lab, family):
    tcp, udp, echo = (
        lab.tcp("web", "outside", 443, family),
        lab.udp("web", "outside", 53, family),
        lab.echo("web", "outside", family),
    )
    lab.enforce(group("g", f"ingress tcp/22 from {ANY[family]}"), lab.instance("web", "g"))
    lab.expect(ALLOWED, tcp, udp, echo, lab.way("web", "outside", ESP, family))
    # A rule of the other family, or one that matches nothing here, restricts all the same.
    for rule in (f"egress tcp/443 to {ANY[family]}", "egress tcp/443 to group nobody"):
        lab.enforce(group("g", rule), group("nobody"), lab.instance("web", "g"))
        lab.expect("nobody" not in rule, tcp)
        lab.expect(DENIED, udp, echo, lab.tcp("web", "outside", 444, family), lab.way("web", "outside", ESP, family))


@families
def test_the_union_of_all_groups_counts(lab, family):
    groups = (
        group("a", f"ingress tcp/80 from {ANY[family]}", f"egress udp/53 to {ANY[family]}"),
        group("b", f"ingress tcp/443 from {ANY[family]}"),
        group("c", f"egress udp/123 to {ANY[family]}"),
    )
    for worn in (("a", "b", "c"), ("c", "b", "a")):
        lab.enforce(*groups, lab.instance("web", *worn))
        lab.expect(ALLOWED, *(lab.tcp("outside", "web", port, family) for port in (80, 443)))
        lab.expect(ALLOWED, *(lab.udp("web", "outside", port, family) for port in (53, 123)))
        lab.expect(DENIED, lab.tcp("outside", "web", 81, family), lab.udp("web", "outside", 54, family))


# Row 2: stateful; related errors; both sides.


@families
def test_replies_of_an_allowed_flow_pass(lab, family):
    rules = (f"ingress udp/53 from {ANY[family]}", "egress tcp/1 to 192.0.2.1/32")
    lab.enforce(group("g", *rules), lab.instance("web", "g"))
    asked = lab.udp("outside", "web", 53, family)
    lab.expect(DENIED, asked.back())
    lab.expect(ALLOWED, asked)
    lab.expect_fate(ALLOWED, asked.back(), asked.back(), asked)
    lab.expect_fate(DENIED, asked.back(destination_port=19999))


@families
def test_replies_to_an_instance_that_asked_pass(lab, family):
    lab.enforce(lab.instance("web"))
    asked = lab.udp("web", "outside", 53, family)
    lab.expect(DENIED, asked.back())
    lab.expect(ALLOWED, asked)
    lab.expect_fate(ALLOWED, asked.back())


def _error(lab, way, *, kind, source=None):
    """An error about the packet, from its receiver (or ``source``) to its sender."""
    sender, family = source or way.destination, way.packet.family
    packet, encode = error_about(
        way.packet, way.octets(0), source=lab.address(sender, family), destination=way.packet.source, kind=kind
    )
    return Way(sender, way.source, packet, encode)


@families
@pytest.mark.parametrize("kind", [TOO_BIG, UNREACHABLE], ids=["too-big", "unreachable"])
def test_errors_about_an_allowed_flow_pass_and_errors_about_nothing_do_not(lab, family, kind):
    lab.enforce(group("g", f"ingress udp/53 from {ANY[family]}"), lab.instance("web", "g"))
    for way in (lab.udp("web", "outside", 99, family), lab.udp("outside", "web", 53, family)):
        lab.expect(DENIED, _error(lab, way, kind=kind))
        lab.expect(ALLOWED, way)
        lab.expect_fate(ALLOWED, _error(lab, way, kind=kind))


@families
def test_errors_from_a_router_in_between_pass_when_related(lab, family):
    lab.enforce(lab.instance("web"))
    way = lab.udp("web", "outside", 99, family)
    lab.expect(DENIED, _error(lab, way, kind=TOO_BIG, source="beyond"))
    lab.expect(ALLOWED, way)
    lab.expect_fate(ALLOWED, _error(lab, way, kind=TOO_BIG, source="beyond"))


@families
def test_errors_about_a_flow_pass_in_a_later_generation_and_do_not_revive_a_revoked_one(lab, family):
    out, into = f"egress udp/99 to {ANY[family]}", f"ingress udp/53 from {ANY[family]}"
    lab.enforce(group("g", out, into, "egress tcp/1 to 192.0.2.1/32"), lab.instance("web", "g"))
    ways = lab.udp("web", "outside", 99, family), lab.udp("outside", "web", 53, family)
    errors = [_error(lab, way, kind=TOO_BIG) for way in ways]
    lab.expect(ALLOWED, *ways)
    before = lab.generation
    lab.enforce(group("g", out, into), lab.instance("web", "g"))
    assert lab.generation != before
    lab.expect_fate(ALLOWED, *errors)
    lab.enforce(group("g", "egress tcp/1 to 192.0.2.1/32"), lab.instance("web", "g"))
    lab.expect_fate(ALLOWED, *errors)
    for way in ways:
        lab.expect_fate(DENIED, way.back(), way)


@families
def test_an_icmp_rule_lets_errors_about_nothing_pass(lab, family):
    protocol, (type_, code) = {4: "icmp", 6: "icmpv6"}[family], TOO_BIG[family]
    lab.enforce(group("g", f"ingress {protocol}/{type_}/{code} from {ANY[family]}"), lab.instance("web", "g"))
    way = lab.udp("web", "outside", 99, family)
    lab.expect(ALLOWED, _error(lab, way, kind=TOO_BIG))
    lab.expect(DENIED, _error(lab, way, kind=UNREACHABLE))


@contextmanager
def _mtu(lab, port, size):
    def change(mtu):
        with IPRoute() as netlink:
            netlink.link("set", index=netlink.link_lookup(ifname=port)[0], mtu=mtu)

    lab.world.router.run(lambda: change(size))
    yield
    lab.world.router.run(lambda: change(1500))


@families
def test_path_mtu_discovery_works_through_the_enforcing_host_itself(lab, family):
    """The router's own "too big" reaches who sent a packet that does not fit the next link, in any generation."""
    rule = f"egress udp/99 to {ANY[family]}"
    lab.enforce(group("g", rule, "egress tcp/1 to 192.0.2.1/32"), lab.instance("web", "g"))
    way = lab.udp("web", "outside", 99, family)
    oversize = replace(way, encode=large(way.packet, 1350))
    with _mtu(lab, "up-outside", 1280):
        lab.expect(ALLOWED, way)
        lab.enforce(group("g", rule), lab.instance("web", "g"))
        lab.range.taps["web"].take_packets()
        lab.range.taps["web"].send(oversize.octets(1))
        answer = wait_until(lab.range.taps["web"].take_packets)[0]
    header = 20 if family == 4 else 40
    assert tuple(answer[header : header + 2]) == TOO_BIG[family]
    assert answer[header + 6 : header + 8] == (1280).to_bytes(2, "big")


@families
def test_between_two_instances_both_sides_must_allow(lab, family):
    into, out = f"ingress tcp/5432 from {ANY[family]}", f"egress tcp/5432 to {ANY[family]}"
    elsewhere = "egress tcp/1 to 192.0.2.1/32"
    for receiver, sender, allowed in (
        ((into,), (out,), True),
        ((into,), (elsewhere,), False),
        ((), (out,), False),
        ((into,), (), True),
    ):
        groups = (group("db", *receiver), group("app", *sender))
        lab.enforce(*groups, lab.instance("db", "db"), lab.instance("app", "app"))
        lab.expect(allowed, lab.tcp("app", "db", 5432, family))


@pytest.mark.parametrize("destination", ["app", "outside", HOST])
def test_no_instance_sends_ipv4_redirects_even_about_a_known_flow(lab, destination):
    rules = ("ingress all from 0.0.0.0/0", "ingress icmp from 0.0.0.0/0")
    lab.enforce(group("open", *rules), lab.instance("web", "open"), lab.instance("app", "open"))
    way = lab.udp(destination, "web", 53)
    redirect = _error(lab, way, kind={4: (5, 1)})
    lab.expect(DENIED, redirect)
    lab.expect(ALLOWED, way)
    lab.expect_fate(DENIED, redirect)
    assert not lab.judge(redirect).allowed


# Row 3: peers.


@families
def test_a_group_peer_is_its_members_and_its_external_sources(lab, family):
    sources = ("source 198.51.100.0/24", "source 2001:db8::/48")
    groups = (
        group("db", "ingress tcp/5432 from group app", "egress tcp/25 to group app"),
        group("app", *sources),
    )
    lab.enforce(*groups, lab.instance("db", "db"), lab.instance("app", "app"), lab.instance("web"))
    beyond = ip_address("198.51.100.77" if family == 4 else "2001:db8:0:7fff::1")
    lab.expect(ALLOWED, *(lab.tcp(name, "db", 5432, family) for name in ("app", "outside")))
    lab.expect(ALLOWED, lab.tcp("beyond", "db", 5432, family, source=beyond), lab.tcp("db", "outside", 25, family))
    lab.expect(
        DENIED, *(lab.tcp(name, "db", 5432, family) for name in ("web", "beyond")), lab.tcp("app", "db", 5433, family)
    )
    lab.expect(DENIED, lab.tcp("db", "beyond", 25, family))
    lab.enforce(*groups[:1], group("app"), lab.instance("db", "db"), lab.instance("app"))
    lab.expect(DENIED, *(lab.tcp(name, "db", 5432, family) for name in ("app", "outside")))


@families
def test_a_peer_group_that_is_empty_or_absent_is_nobody(lab, family):
    rules = ("ingress tcp/80 from group empty", "ingress all from group absent")
    lab.enforce(group("g", *rules), group("empty"), lab.instance("web", "g"))
    lab.expect(DENIED, *(lab.tcp(name, "web", 80, family) for name in ("app", "outside", "beyond")))


@families
def test_a_group_may_name_itself(lab, family):
    mine = group("peers", "ingress tcp/7000 from group peers")
    lab.enforce(mine, lab.instance("web", "peers"), lab.instance("app", "peers"), lab.instance("db"))
    lab.expect(ALLOWED, lab.tcp("web", "app", 7000, family), lab.tcp("app", "web", 7000, family))
    lab.expect(DENIED, lab.tcp("db", "app", 7000, family), lab.tcp("outside", "app", 7000, family))


@families
def test_a_network_with_host_bits_means_its_network(lab, family):
    written = {4: "198.51.100.77/24", 6: "2001:DB8:0:0::77/32"}[family]
    lab.enforce(group("g", f"ingress tcp/80 from {written}"), lab.instance("web", "g"))
    lab.expect(ALLOWED, lab.tcp("outside", "web", 80, family))
    elsewhere = ip_address("198.51.101.1" if family == 4 else "2001:db9::1")
    lab.expect(DENIED, lab.tcp("outside", "web", 80, family, source=elsewhere))


# Row 4: protocols.


@families
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_port_ranges_hold_at_both_ends(lab, family, protocol):
    name = {TCP: "tcp", UDP: "udp"}[protocol]
    rules = (f"ingress {name}/1000-1999 from {ANY[family]}", f"ingress {name}/53 from {ANY[family]}")
    lab.enforce(group("g", *rules), lab.instance("web", "g"))

    def ways(*ports, protocol=protocol):
        return [lab.way("outside", "web", protocol, family, destination_port=port) for port in ports]

    lab.expect(ALLOWED, *ways(53, 1000, 1001, 1999))
    lab.expect(DENIED, *ways(0, 1, 52, 54, 999, 2000, 65535), *ways(53, 1000, protocol=TCP + UDP - protocol))


@families
def test_fragments_are_judged_as_the_packet_they_make(live, family):
    live.enforce(group("g", f"ingress udp/53 from {ANY[family]}"), live.instance("web", "g"))
    outside, web = live.world.placed["outside"], live.world.placed["web"]
    open_port, closed_port = (open_talk(outside, web, web.address(family), port) for port in (53, 54))
    large_datagram = bytes(5000)
    for talk in (closed_port, open_port):
        talk.client.socket.send(large_datagram)
    wait_until(lambda: _received(open_port) == large_datagram)
    assert _received(closed_port) is None
    for talk in (closed_port, open_port):
        talk.client.socket.close()
        talk.server.socket.close()


def _received(talk):
    try:
        return talk.server.socket.recv(65535)
    except BlockingIOError:
        return None


@families
def test_a_rule_without_ports_means_every_port_of_its_protocol(lab, family):
    lab.enforce(group("g", f"ingress udp from {ANY[family]}"), lab.instance("web", "g"))
    lab.expect(ALLOWED, *(lab.udp("outside", "web", port, family) for port in (1, 53, 65535)))
    lab.expect(DENIED, lab.tcp("outside", "web", 53, family), lab.way("outside", "web", ESP, family))


def test_icmp_rules_hold_type_and_code(lab):
    def enforced(what):
        lab.enforce(group("g", f"ingress icmp{what} from 0.0.0.0/0"), lab.instance("web", "g"))

    def ways(*kinds):
        return [lab.icmp("outside", "web", type_, code) for type_, code in kinds]

    enforced("/8/0")
    lab.expect(ALLOWED, *ways((8, 0)))
    lab.expect(DENIED, *ways((8, 1), (13, 0), (3, 0), (11, 0), (0, 0)))
    enforced("/8/-1")
    lab.expect(ALLOWED, *ways((8, 0), (8, 1)))
    lab.expect(DENIED, *ways((13, 0), (9, 0)))
    enforced("")
    lab.expect(ALLOWED, *ways((8, 0), (8, 1), (13, 0), (3, 3), (42, 0), (0, 0)))
    lab.expect(DENIED, lab.icmpv6("outside", "web"), lab.udp("outside", "web", 1))


def test_icmpv6_rules_hold_type_and_code(lab):
    def enforced(what):
        lab.enforce(group("g", f"ingress icmpv6{what} from ::/0"), lab.instance("web", "g"))

    def ways(*kinds):
        return [lab.icmpv6("outside", "web", type_, code) for type_, code in kinds]

    enforced("/128/0")
    lab.expect(ALLOWED, *ways((128, 0)))
    lab.expect(DENIED, *ways((128, 1), (139, 0), (1, 0), (129, 0)))
    enforced("/1/-1")
    lab.expect(ALLOWED, *ways((1, 0), (1, 4)))
    lab.expect(DENIED, *ways((2, 0), (128, 0)))
    enforced("")
    lab.expect(ALLOWED, *ways((128, 0), (128, 1), (139, 0), (1, 3), (200, 0)))
    lab.expect(DENIED, lab.icmp("outside", "web"), lab.udp("outside", "web", 1, 6))


@families
@pytest.mark.parametrize("protocol", [Protocol.ESP, Protocol.AH, Protocol.GRE, Protocol.IPIP], ids=lambda p: p.value)
def test_protocols_without_ports_pass_by_their_own_rule_alone(lab, family, protocol):
    own = PROTOCOL_NUMBER[protocol]
    lab.enforce(group("g", f"ingress {protocol.value} from {ANY[family]}"), lab.instance("web", "g"))
    lab.expect(ALLOWED, lab.way("outside", "web", own, family))
    others = [number for number in (ESP, AH, GRE, IPIP, OSPF) if number != own]
    lab.expect(DENIED, *(lab.way("outside", "web", number, family) for number in others))
    lab.expect(DENIED, lab.tcp("outside", "web", 80, family), lab.echo("outside", "web", family))
    lab.enforce(group("g", f"egress {protocol.value} to {ANY[family]}"), lab.instance("web", "g"))
    lab.expect(ALLOWED, lab.way("web", "beyond", own, family))
    lab.expect(DENIED, *(lab.way("web", "beyond", number, family) for number in others))


@families
def test_all_means_every_protocol(lab, family):
    lab.enforce(group("g", f"ingress all from {ANY[family]}"), lab.instance("web", "g"))
    generic = [lab.way("outside", "web", number, family) for number in (ESP, GRE, IPIP, OSPF)]
    ports = lab.tcp("outside", "web", 80, family), lab.udp("outside", "web", 53, family)
    lab.expect(ALLOWED, *generic, *ports, lab.echo("outside", "web", family))


@families
def test_an_icmp_rule_wins_over_conntrack_that_calls_the_packet_invalid(lab, family):
    """An address mask reply, a type that nobody knows: such packets open no flow, and ``all`` does not mean them."""
    name, types = {4: ("icmp", (18, 42)), 6: ("icmpv6", (129, 200))}[family]

    def ways(source, destination):
        protocol = {4: ICMP, 6: ICMPV6}[family]
        return [lab.way(source, destination, protocol, family, icmp_type=type_) for type_ in types]

    lab.enforce(group("g", f"ingress {name} from {ANY[family]}"), lab.instance("web", "g"))
    lab.expect(ALLOWED, *ways("outside", "web"))
    lab.expect(DENIED, *ways("web", "outside"))
    lab.enforce(group("g", f"egress {name}/{types[0]} to {ANY[family]}"), lab.instance("web", "g"))
    lab.expect(ALLOWED, ways("web", "outside")[0])
    lab.expect(DENIED, ways("web", "outside")[1], *ways("outside", "web"))
    lab.enforce(group("g", f"ingress all from {ANY[family]}"), lab.instance("web", "g"))
    lab.expect(DENIED, *ways("outside", "web"))


def test_an_ah_rule_wins_over_conntrack_that_cannot_place_ipv6_ah(lab):
    lab.enforce(group("g", "ingress ah from 2001:db8::10/128"), lab.instance("web", "g"))
    lab.expect(ALLOWED, lab.way("outside", "web", AH, 6))
    lab.expect(DENIED, lab.way("beyond", "web", AH, 6), lab.way("outside", "web", AH, 4))
    lab.enforce(group("g", "ingress all from ::/0"), lab.instance("web", "g"))
    lab.expect(DENIED, lab.way("outside", "web", AH, 6))


@families
def test_ah_is_judged_as_ah_whatever_it_carries(lab, family):
    way = lab.way("outside", "web", AH, family, destination_port=500)
    carrying = replace(way, encode=authenticated_udp(way.packet))
    for rule, allowed in (("ah", True), ("udp/500", False), ("esp", False)):
        lab.enforce(group("g", f"ingress {rule} from {ANY[family]}"), lab.instance("web", "g"))
        lab.forget_flows()
        lab.expect_fate(allowed, carrying)


def test_ah_is_found_behind_other_extension_headers(lab):
    way = lab.way("outside", "web", AH, 6, destination_port=500)
    for encode in (authenticated_udp(way.packet), partial(encode_packet, way.packet)):
        hidden = replace(way, encode=behind_options(encode))
        for rule, allowed in (("ah", True), ("udp/500", False), ("esp", False)):
            lab.enforce(group("g", f"ingress {rule} from ::/0"), lab.instance("web", "g"))
            lab.forget_flows()
            lab.expect_fate(allowed, hidden)


def test_ah_over_ipv6_rides_on_a_live_flow_of_what_it_carries(lab):
    """A known limit: to conntrack such a packet is a packet of the flow inside, and that one was allowed."""
    lab.enforce(group("g", "ingress udp/500 from ::/0"), lab.instance("web", "g"))
    plain = lab.udp("outside", "web", 500, 6)
    carrying = replace(plain, encode=authenticated_udp(plain.packet))
    lab.expect(ALLOWED, plain)
    lab.expect_fate(DENIED, carrying)
    lab.expect_fate(ALLOWED, plain.back())
    lab.expect_fate(ALLOWED, carrying)
    lab.enforce(lab.instance("web"))
    lab.expect_fate(DENIED, carrying, plain)


def test_what_ends_without_content_is_of_no_flow(lab):
    lab.enforce(group("g", "ingress all from ::/0", "ingress all from 0.0.0.0/0"), lab.instance("web", "g"))
    ends = lab.way("outside", "web", NO_NEXT_HEADER, 6), lab.way("web", "outside", NO_NEXT_HEADER, 6)
    lab.expect(
        DENIED, *ends, *(replace(way, encode=behind_options(partial(encode_packet, way.packet))) for way in ends)
    )
    lab.expect(ALLOWED, lab.way("outside", "web", NO_NEXT_HEADER, 4))  # in IPv4 a number like others


def test_a_family_never_widens(lab):
    everything4 = ("ingress all from 0.0.0.0/0", "ingress tcp/80 from 0.0.0.0/0", "ingress icmp from 0.0.0.0/0")
    lab.enforce(group("g", *everything4), lab.instance("web", "g"))
    lab.expect(ALLOWED, lab.tcp("outside", "web", 80), lab.icmp("outside", "web"))
    v6 = lab.tcp("outside", "web", 80, 6), lab.icmpv6("outside", "web"), lab.way("outside", "web", ESP, 6)
    lab.expect(DENIED, *v6, lab.way("outside", "web", ICMP, 6, icmp_type=8))
    everything6 = ("ingress all from ::/0", "ingress tcp/80 from ::/0", "ingress icmpv6 from ::/0")
    lab.enforce(group("g", *everything6), lab.instance("web", "g"))
    lab.expect(ALLOWED, *v6[:2])
    lab.expect(DENIED, lab.tcp("outside", "web", 80), lab.icmp("outside", "web"), lab.way("outside", "web", ESP))
    lab.expect(DENIED, lab.way("outside", "web", ICMPV6, 4, icmp_type=128))


def test_icmp_with_a_network_of_the_other_family_matches_nothing(lab):
    lab.enforce(group("g", "ingress icmp from ::/0", "ingress icmpv6 from 0.0.0.0/0"), lab.instance("web", "g"))
    lab.expect(DENIED, lab.icmp("outside", "web"), lab.icmpv6("outside", "web"))
    lab.expect(DENIED, lab.way("outside", "web", ICMP, 6, icmp_type=8))


# Row 7: whatever the other end, the host itself included.


@families
def test_what_the_host_sends_to_an_instance_is_judged(lab, family):
    lab.enforce(group("g", f"ingress tcp/22 from {ANY[family]}"), lab.instance("web", "g"))
    lab.expect(ALLOWED, lab.tcp(HOST, "web", 22, family))
    lab.expect(
        DENIED, lab.tcp(HOST, "web", 23, family), lab.udp(HOST, "web", 22, family), lab.echo(HOST, "web", family)
    )


@families
def test_what_an_instance_sends_to_the_host_is_judged(lab, family):
    lab.enforce(group("g", f"egress udp/53 to {ANY[family]}"), lab.instance("web", "g"), lab.instance("app"))
    lab.expect(ALLOWED, lab.udp("web", HOST, 53, family), lab.udp("app", HOST, 54, family))
    lab.expect(
        DENIED, lab.udp("web", HOST, 54, family), lab.tcp("web", HOST, 53, family), lab.echo("web", HOST, family)
    )


@families
def test_replies_between_host_and_instance_pass(lab, family):
    rule = f"ingress udp/161 from {ANY[family]}"
    lab.enforce(group("g", rule, "egress tcp/1 to 192.0.2.1/32"), lab.instance("web", "g"), lab.instance("app"))
    for asked in (lab.udp(HOST, "web", 161, family), lab.udp("app", HOST, 53, family)):
        lab.forget_flows()
        lab.expect_fate(ALLOWED, asked)
        lab.expect_fate(ALLOWED, asked.back())


# Row 5: what passes besides rules, and what never does.

CLOSED_OUT = "egress tcp/1 to 192.0.2.1/32"  # a group that lets nothing else out


def _shut(lab, **options):
    lab.enforce(group("shut", CLOSED_OUT), lab.instance("web", "shut", **options), lab.instance("app", "shut"))


def test_a_dhcp_client_reaches_the_host_and_is_answered(lab):
    _shut(lab)
    ask4 = {"source": NOBODY[4], "destination": BROADCAST, "source_port": 68}
    lab.expect(
        ALLOWED,
        lab.udp("web", HOST, 67, **ask4),
        lab.udp("web", HOST, 67, **(ask4 | {"source": lab.address("web", 4)})),
    )
    solicit = {"source": link_local(lab.world.placed["web"].mac), "destination": DHCP6_SERVERS, "source_port": 546}
    lab.expect(ALLOWED, lab.udp("web", HOST, 547, 6, **solicit))
    lab.expect(DENIED, lab.udp("web", HOST, 67, source_port=68), lab.udp("web", HOST, 547, 6, source_port=546))
    lab.expect(ALLOWED, lab.udp(HOST, "web", 68, source_port=67), lab.udp(HOST, "web", 546, 6, source_port=547))
    lab.expect(DENIED, lab.udp(HOST, "web", 68, source_port=66), lab.udp(HOST, "web", 547, 6, source_port=547))


def test_dhcp_answers_of_others_are_no_exception(lab):
    lab.enforce(group("open", "ingress udp/68 from 198.51.100.10/32"), lab.instance("web", "open"), lab.instance("app"))
    lab.expect(ALLOWED, lab.udp("outside", "web", 68, source_port=67))
    lab.expect(
        DENIED, lab.udp("outside", "app", 68, source_port=67), lab.udp("outside", "app", 546, 6, source_port=547)
    )


@pytest.mark.parametrize("destination", ["app", "outside", HOST])
def test_no_instance_acts_as_dhcp_server(lab, destination):
    rules = ("ingress all from 0.0.0.0/0", "ingress all from ::/0")
    lab.enforce(group("open", *rules), lab.instance("web", "open"), lab.instance("app", "open"))
    answer4 = lab.udp("web", destination, 68, 4, source_port=67)
    answer6 = lab.udp("web", destination, 546, 6, source_port=547)
    lab.expect(DENIED, answer4, answer6)
    # Not even as the reply to somebody who asked.
    lab.forget_flows()
    if destination != HOST:
        lab.expect_fate(ALLOWED, answer4.back(), answer6.back())
        lab.expect_fate(DENIED, answer4, answer6)


DISCOVERY = (133, 135, 136)  # router solicitation, neighbour solicitation and advertisement
LISTENER_REPORTS = (131, 132, 143)


@routed_alone
def test_neighbour_discovery_passes_between_an_instance_and_its_host(lab):
    _shut(lab)
    own = link_local(lab.world.placed["web"].mac)
    for source in (lab.address("web", 6), own):
        lab.expect(ALLOWED, *(lab.icmpv6("web", HOST, type_, source=source) for type_ in (*DISCOVERY, 130)))
        reports = [lab.icmpv6("web", HOST, type_, source=source, destination=MLD_ROUTERS) for type_ in LISTENER_REPORTS]
        lab.expect(ALLOWED, *reports)
    for type_ in (133, 134, 135, 136, 137, 130):  # the host is the router of the link
        lab.expect(ALLOWED, lab.icmpv6(HOST, "web", type_, source=GATEWAY))


@routed_alone
@pytest.mark.parametrize("has_mac", [True, False], ids=["mac", "any mac"])
def test_before_it_has_an_address_an_instance_solicits_and_reports_and_no_more(lab, has_mac):
    _shut(lab, mac=has_mac)
    unspecified = {"source": NOBODY[6], "destination": ALL_ROUTERS}
    lab.expect(ALLOWED, *(lab.icmpv6("web", HOST, type_, **unspecified) for type_ in (133, 135, 131, 132, 143)))
    lab.expect(DENIED, *(lab.icmpv6("web", HOST, type_, **unspecified) for type_ in (136, 130, 128, 1)))
    lab.expect(DENIED, lab.udp("web", HOST, 547, 6, source=NOBODY[6], destination=DHCP6_SERVERS, source_port=546))
    lab.enforce(lab.instance("web"))
    lab.expect(DENIED, lab.udp("web", HOST, 53, source=NOBODY[4], destination=BROADCAST))


@routed_alone
def test_discovery_is_never_forwarded_to_an_instance(lab):
    rules = ("ingress icmpv6 from ::/0", "ingress all from ::/0")
    lab.enforce(group("open", *rules), lab.instance("web", "open"), lab.instance("app", "open"))
    for sender in ("app", "outside"):
        lab.expect(DENIED, *(lab.icmpv6(sender, "web", type_) for type_ in (*range(130, 138), 143)))
        for hop_limit in (255, 2):  # as far away as it claims to be, or about to run out
            ways = [lab.icmpv6(sender, "web", type_) for type_ in (134, 135, 136, 137, 143)]
            lab.forget_flows()
            lab.expect_fate(
                DENIED, *(replace(w, encode=partial(encode_packet, w.packet, hop_limit=hop_limit)) for w in ways)
            )


@pytest.mark.parametrize("kept_in", [("egress tcp/1 to 192.0.2.1/32",), ()], ids=["kept in", "open"])
def test_discovery_is_never_forwarded_from_an_instance_to_where_nobody_judges_it(lab, kept_in):
    """Else it would carry out what egress rules keep in."""
    lab.enforce(group("g", *kept_in), lab.instance("web", "g"))
    ways = [lab.icmpv6("web", "outside", type_, hop_limit=255) for type_ in (130, 131, 133, 135, 136, 143)]
    lab.expect(DENIED, *ways)
    lab.expect(ALLOWED, *(lab.icmpv6("web", HOST, type_) for type_ in (130, 131, 143)))
    for hop_limit in (2, 64):
        lab.expect_fate(DENIED, *(way.again(hop_limit=hop_limit) for way in ways))


@pytest.mark.parametrize("destination", ["app", "outside", HOST])
@pytest.mark.parametrize("type_", [134, 137], ids=["advertisement", "redirect"])
def test_no_instance_acts_as_router(lab, destination, type_):
    rules = ("ingress icmpv6 from ::/0", "egress icmpv6 to ::/0")
    lab.enforce(group("open", *rules), lab.instance("web", "open"), lab.instance("app", "open"))
    lab.expect(DENIED, lab.icmpv6("web", destination, type_))


@families
@pytest.mark.parametrize("destination", ["app", "outside", HOST])
def test_a_spoofed_address_is_dropped(lab, family, destination):
    rules = ("ingress all from 0.0.0.0/0", "ingress all from ::/0")
    lab.enforce(group("open", *rules), lab.instance("web", "open"), lab.instance("app", "open"), lab.instance("db"))
    honest = [lab.tcp("web", destination, 80, family), lab.udp("web", destination, 53, family)]
    lab.expect(ALLOWED, *honest, lab.echo("web", destination, family))
    for claimed in (lab.address("db", family), lab.address("outside", family), NOBODY[family]):
        lab.expect(DENIED, *(way.again(source=claimed) for way in (*honest, lab.echo("web", destination, family))))


@families
def test_a_spoofed_packet_does_not_touch_the_flow_of_whom_it_names(lab, family):
    lab.enforce(group("g", f"ingress udp/53 from {ANY[family]}"), lab.instance("web", "g"), lab.instance("app"))
    asked = lab.udp("outside", "web", 53, family)
    lab.expect(ALLOWED, asked)
    lab.expect_fate(DENIED, replace(asked.back(), source="app"))
    lab.expect_fate(ALLOWED, asked.back())


@families
def test_a_spoofed_mac_address_is_dropped(lab, family):
    lab.enforce(lab.instance("web"), lab.instance("app"))
    for protocol in (TCP, UDP):
        way = lab.way("web", "outside", protocol, family, destination_port=80)
        lab.forget_flows()
        lab.expect_fate(ALLOWED, way)
        lab.expect_fate(
            DENIED, replace(way, mac=lab.world.placed["app"].mac), replace(way, mac=Mac("02:00:00:00:00:99"))
        )


@routed_alone
@families
def test_without_a_declared_mac_any_mac_passes_and_a_spoofed_address_does_not(lab, family):
    lab.enforce(lab.instance("web", mac=False), lab.instance("app"))
    way = lab.udp("web", "outside", 53, family)
    lab.expect(ALLOWED, replace(way, mac=Mac("02:00:00:00:00:99")))
    lab.expect(DENIED, way.again(source=lab.address("app", family)))


@routed_alone
def test_with_a_declared_mac_only_its_own_link_local_address_passes(lab):
    lab.enforce(lab.instance("web"), lab.instance("app"))
    placed = lab.world.placed
    own, anothers = link_local(placed["web"].mac), link_local(placed["app"].mac)
    lab.expect(ALLOWED, lab.icmpv6("web", HOST, 135, source=own), lab.udp("web", HOST, 53, 6, source=own))
    lab.expect(DENIED, lab.icmpv6("web", HOST, 135, source=anothers), lab.udp("web", HOST, 53, 6, source=anothers))
    lab.expect(DENIED, lab.icmpv6("web", HOST, 136, source=GATEWAY))


@routed_alone
def test_without_a_declared_mac_any_link_local_address_passes_unless_one_is_declared(lab):
    declared, other = ip_address("fe80::77"), ip_address("fe80::78")
    lab.enforce(lab.instance("web", mac=False))
    lab.expect(ALLOWED, *(lab.icmpv6("web", HOST, 135, source=source) for source in (declared, other)))
    lab.enforce(lab.instance("web", mac=False, more=(str(declared),)))
    lab.expect(ALLOWED, lab.icmpv6("web", HOST, 135, source=declared))
    lab.expect(DENIED, lab.icmpv6("web", HOST, 135, source=other))


def test_tcp_in_mid_stream_opens_no_flow(lab):
    rules = ("ingress tcp from 0.0.0.0/0", "ingress tcp from ::/0")
    lab.enforce(group("g", *rules), lab.instance("web", "g"), lab.instance("app"))
    for family in FAMILIES:
        for source, destination in (("outside", "web"), ("app", "web"), ("web", "outside"), (HOST, "web")):
            lab.expect(ALLOWED, lab.tcp(source, destination, 80, family))
            lab.expect(DENIED, lab.tcp(source, destination, 80, family, opening=False))


@families
def test_loopback_is_free(lab, family):
    lab.enforce(group("shut", CLOSED_OUT), lab.instance("web", "shut"))
    for address in ({4: "127.0.0.1", 6: "::1"}[family], str(HOST_ADDRESSES[FAMILIES.index(family)])):
        lab.world.router.run(partial(talk_to_itself, address))


# Ports under our care, and those that are not.


@families
def test_a_port_under_our_care_without_an_instance_is_closed_in_both_directions(lab, family):
    lab.enforce(group("open", f"ingress all from {ANY[family]}"), lab.instance("web", "open"))
    for other in ("web", "outside", HOST):
        lab.forget_flows()
        out = [
            lab.tcp("vacant", other, 80, family),
            lab.udp("vacant", other, 53, family),
            lab.echo("vacant", other, family),
        ]
        lab.expect_fate(DENIED, *out)
        lab.expect_fate(
            DENIED, *(replace(way.again(), source=other, destination="vacant") for way in _turned(lab, out))
        )
    lab.expect_fate(DENIED, lab.icmpv6("vacant", HOST, 135), lab.udp("vacant", HOST, 67, 4, source_port=68))
    lab.expect_fate(
        DENIED, lab.icmpv6(HOST, "vacant", 135, source=GATEWAY), lab.udp(HOST, "vacant", 68, source_port=67)
    )


def _turned(lab, ways):
    return [
        lab.way(way.destination, way.source, way.packet.protocol, way.packet.family, destination_port=80, icmp_type=8)
        for way in ways
    ]


@families
def test_removing_an_instance_closes_its_port(lab, family):
    open_ = group("open", f"ingress all from {ANY[family]}")
    lab.enforce(open_, lab.instance("web", "open"), lab.instance("app", "open"))
    ways = lab.tcp("outside", "web", 80, family), lab.udp("web", "outside", 53, family)
    lab.expect(ALLOWED, *ways)
    lab.enforce(open_, lab.instance("app", "open"))
    lab.forget_flows()
    lab.expect_fate(DENIED, *ways)
    lab.expect(ALLOWED, lab.tcp("outside", "app", 80, family))


@families
def test_an_instance_without_groups_is_closed_for_ingress_and_open_for_egress(lab, family):
    lab.enforce(lab.instance("web"))
    lab.expect(DENIED, lab.tcp("outside", "web", 80, family))
    lab.expect(ALLOWED, lab.tcp("web", "outside", 80, family))


@families
def test_unmanaged_interfaces_are_untouched(lab, family):
    """Between two of them, and between one and the host, everything passes: invalid, in mid-stream, spoofed, rogue."""
    lab.enforce(group("shut", CLOSED_OUT), lab.instance("web", "shut"))
    invalid = {4: lab.icmp("outside", "beyond", 3, 3), 6: lab.icmpv6("outside", "beyond", 1, 4)}[family]
    lab.expect(
        ALLOWED,
        invalid,
        lab.tcp("outside", "beyond", 80, family),
        lab.tcp("beyond", "outside", 80, family, opening=False),
        lab.udp("outside", "beyond", 9, family, source=ip_address("192.0.2.99" if family == 4 else "2001:db8:f::99")),
        lab.udp("outside", "beyond", 68 if family == 4 else 546, family, source_port=67 if family == 4 else 547),
        lab.way("outside", "beyond", AH, family),
        lab.way("outside", "beyond", OSPF, family),
    )
    lab.expect(ALLOWED, lab.udp("outside", HOST, 53, family), lab.tcp("outside", HOST, 80, family, opening=False))
    lab.expect(ALLOWED, lab.udp(HOST, "outside", 53, family), lab.tcp(HOST, "outside", 80, family, opening=False))


# Ports under destination translation by somebody else's table.


@contextmanager
def _translation(lab, family):
    """Another program's table sends udp/8080 and tcp/8080 at the host's address on to web's port 80."""
    ip = {4: "ip", 6: "ip6"}[family]
    host, real = lab.address(HOST, family), lab.address("web", family)
    target = {4: f"{real}:80", 6: f"[{real}]:80"}[family]
    rules = f"""table {ip} foreign {{
        chain before {{
            type nat hook prerouting priority dstnat
            {ip} daddr {host} meta l4proto {{ tcp, udp }} th dport 8080 dnat to {target}
        }}
    }}
    """

    program = shutil.which("nft", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        pytest.skip("the nft program is not installed, which plays the other program here")

    def nft(*arguments, text=""):
        command = (program, *arguments)
        lab.world.router.run(lambda: subprocess.run(command, input=text, text=True, check=True))  # noqa: S603  ours

    nft("-f", "-", text=rules)
    yield
    nft("delete", "table", ip, "foreign")


@families
def test_a_translated_port_is_judged_by_the_real_port_and_address(lab, family):
    published = lab.udp("outside", HOST, 8080, family)
    arriving = replace(published, destination="web")
    real = arriving.again(destination=lab.address("web", family), destination_port=80)

    def judged(rule):
        lab.enforce(group("g", rule, CLOSED_OUT), lab.instance("web", "g"))
        return lab.judge(real).allowed

    with _translation(lab, family):
        assert judged(f"ingress udp/80 from {ANY[family]}")
        lab.forget_flows()
        lab.expect_fate(ALLOWED, arriving)
        lab.expect_fate(ALLOWED, real.back())
        # The cut finds it, whoever speaks first.
        assert not judged(f"ingress udp/8080 from {ANY[family]}")
        lab.expect_fate(DENIED, real.back(), arriving)
        lab.forget_flows()
        lab.expect_fate(DENIED, arriving)
