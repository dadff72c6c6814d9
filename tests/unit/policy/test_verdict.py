"""One packet per row, the wanted result first: every row of the semantics, and why."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from generated import PORTS, Way, difference
from policies import address, group, group_id, instance, mac_of, rule, snapshot
from ringfence.policy.packet import AH, ICMP, ICMPV6, NO_NEXT_HEADER, TCP, UDP, Packet, Tracking, tracking_of
from ringfence.policy.program.compile import compile_program
from ringfence.policy.values import Direction, link_local
from ringfence.policy.verdict import Allowance, Default, allowing_rules, find_endpoint
from ringfence.policy.view import resolve_view

ALLOWED, DENIED = True, False
A4, A6, B4, B6 = "10.0.0.1", "2001:db8::1", "10.0.0.2", "2001:db8::2"
OUT4, OUT6 = "198.51.100.9", "2001:db8:f::9"
ESP, GRE, IPIP, SCTP = 50, 47, 4, 132


def tcp(port, source=OUT4, destination=A4, **fields):
    return Packet(ip_address(source), ip_address(destination), TCP, 40000, port, **fields)


def udp(port, source=OUT4, destination=A4, source_port=40000):
    return Packet(ip_address(source), ip_address(destination), UDP, source_port, port)


def icmp(type_, code=0, source=OUT4, destination=A4):
    number = ICMPV6 if ":" in destination else ICMP
    return Packet(ip_address(source), ip_address(destination), number, icmp_type=type_, icmp_code=code)


def other(number, source=OUT4, destination=A4):
    return Packet(ip_address(source), ip_address(destination), number)


def box(*lines, wears=("own",), mac=True, addresses=(A4, A6)):
    """Instance a (wearing "own" with these rules) and instance b (wearing "peers" and nothing that matters)."""
    return snapshot(
        group("own", *lines),
        group("peers", "source 203.0.113.0/24", "ingress tcp from 0.0.0.0/0", "ingress tcp from ::/0"),
        group("empty"),
        instance("a", *addresses, wears=wears, mac=mac),
        instance("b", B4, B6, wears=["peers"]),
    )


def judged(whole, packet, *, from_host=False, sender=None):
    """The verdict on a packet whose ends are known by their addresses; ``sender`` names who really sends it.

    The compiled program must say the same, so that every row below is one of it too.
    """
    view = resolve_view(whole)
    named = {endpoint.name: endpoint for endpoint in view.endpoints}
    source = named[sender] if sender else find_endpoint(view, packet.source)
    way = Way(packet, source, find_endpoint(view, packet.destination), from_host)
    assert difference(view, compile_program(view, PORTS), way) is None
    return way.judged(view)


INGRESS = [
    (DENIED, [], tcp(80), "ingress is denied by default"),
    (DENIED, [], icmp(8), "echo too"),
    (DENIED, ["egress tcp/80 to 0.0.0.0/0"], tcp(80), "an egress rule opens nothing inward"),
    (ALLOWED, ["ingress tcp/80 from 0.0.0.0/0"], tcp(80), "its port"),
    (DENIED, ["ingress tcp/80 from 0.0.0.0/0"], tcp(81), "another port"),
    (DENIED, ["ingress tcp/80 from 0.0.0.0/0"], udp(80), "another protocol"),
    (ALLOWED, ["ingress tcp/80-90 from 0.0.0.0/0"], tcp(80), "the first port"),
    (ALLOWED, ["ingress tcp/80-90 from 0.0.0.0/0"], tcp(90), "the last port"),
    (DENIED, ["ingress tcp/80-90 from 0.0.0.0/0"], tcp(79), "one before"),
    (DENIED, ["ingress tcp/80-90 from 0.0.0.0/0"], tcp(91), "one after"),
    (ALLOWED, ["ingress tcp from 0.0.0.0/0"], tcp(65535), "without ports every port"),
    (DENIED, ["ingress tcp/80 from 0.0.0.0/0"], tcp(80, opening=False), "in mid-stream nothing begins"),
    (DENIED, ["ingress tcp/80 from 0.0.0.0/0"], tcp(80, OUT6, A6), "IPv4 for everybody opens no IPv6"),
    (ALLOWED, ["ingress tcp/80 from ::/0"], tcp(80, OUT6, A6), "IPv6 for everybody"),
    (DENIED, ["ingress tcp/80 from ::/0"], tcp(80), "IPv6 for everybody opens no IPv4"),
    (ALLOWED, ["ingress tcp/80 from 198.51.100.77/24"], tcp(80), "host bits do not count"),
    (DENIED, ["ingress tcp/80 from 198.51.100.8/32"], tcp(80), "another host"),
    (ALLOWED, ["ingress tcp/80 from 198.51.100.9/32"], tcp(80), "one host"),
    (ALLOWED, ["ingress icmp from 0.0.0.0/0"], icmp(8), "icmp is any type"),
    (ALLOWED, ["ingress icmp from 0.0.0.0/0"], icmp(13, 1), "and any code"),
    (ALLOWED, ["ingress icmp/8 from 0.0.0.0/0"], icmp(8, 7), "a type with any code"),
    (ALLOWED, ["ingress icmp/8/0 from 0.0.0.0/0"], icmp(8), "type and code"),
    (DENIED, ["ingress icmp/8/0 from 0.0.0.0/0"], icmp(8, 1), "another code"),
    (DENIED, ["ingress icmp/8/0 from 0.0.0.0/0"], icmp(13), "another type"),
    (DENIED, ["ingress icmp from ::/0"], icmp(8), "icmp of an IPv6 network matches nothing"),
    (DENIED, ["ingress icmp from ::/0"], icmp(128, 0, OUT6, A6), "and is not icmpv6"),
    (ALLOWED, ["ingress icmpv6/128/0 from ::/0"], icmp(128, 0, OUT6, A6), "icmpv6"),
    (DENIED, ["ingress icmpv6 from 0.0.0.0/0"], icmp(8), "icmpv6 is IPv6's only"),
    (DENIED, ["ingress icmp from group peers"], other(ICMP, B6, A6), "icmp over IPv6 is nothing"),
    (DENIED, ["ingress icmpv6 from group peers"], other(ICMPV6, B4, A4), "icmpv6 over IPv4 is nothing"),
    (ALLOWED, ["ingress icmp/3 from 0.0.0.0/0"], icmp(3, 1), "a rule wins over conntrack's invalid"),
    (DENIED, ["ingress icmp/3/0 from 0.0.0.0/0"], icmp(3, 1), "but only for its code"),
    (ALLOWED, ["ingress icmpv6/1 from ::/0"], icmp(1, 4, OUT6, A6), "in IPv6 too"),
    (DENIED, ["ingress all from 0.0.0.0/0"], icmp(3, 1), "all does not name icmp: invalid stays out"),
    (ALLOWED, ["ingress all from 0.0.0.0/0"], icmp(8), "all is every protocol that opens a flow"),
    (ALLOWED, ["ingress all from 0.0.0.0/0"], other(SCTP), "one that no rule could name"),
    (DENIED, ["ingress tcp from 0.0.0.0/0", "ingress udp from 0.0.0.0/0"], other(SCTP), "which only all opens"),
    (ALLOWED, ["ingress esp from 0.0.0.0/0"], other(ESP), "esp"),
    (ALLOWED, ["ingress gre from 0.0.0.0/0"], other(GRE), "gre"),
    (ALLOWED, ["ingress ipip from 0.0.0.0/0"], other(IPIP), "ipip"),
    (DENIED, ["ingress esp from 0.0.0.0/0"], other(AH), "esp is not ah"),
    (ALLOWED, ["ingress ah from 0.0.0.0/0"], other(AH), "ah"),
    (ALLOWED, ["ingress ah from ::/0"], other(AH, OUT6, A6), "ah over IPv6, which conntrack looks through"),
    (DENIED, ["ingress all from ::/0"], other(AH, OUT6, A6), "and which all does not name"),
    (ALLOWED, ["ingress tcp/80 from group peers"], tcp(80, B4), "a member"),
    (ALLOWED, ["ingress tcp/80 from group peers"], tcp(80, B6, A6), "a member's IPv6 address"),
    (ALLOWED, ["ingress tcp/80 from group peers"], tcp(80, "203.0.113.5"), "an external source of the group"),
    (DENIED, ["ingress tcp/80 from group peers"], tcp(80), "somebody else"),
    (DENIED, ["ingress tcp/80 from group empty"], tcp(80, B4), "an empty group is nobody"),
    (DENIED, ["ingress tcp/80 from group missing"], tcp(80, B4), "a missing group is nobody"),
    (DENIED, ["ingress tcp/80 from group own"], tcp(80, B4), "a group that names itself does not mean others"),
]


@pytest.mark.parametrize(("wanted", "lines", "packet", "why"), INGRESS, ids=[row[-1] for row in INGRESS])
def test_ingress(wanted, lines, packet, why):
    assert judged(box(*lines), packet).ingress.allowed is wanted, why


EGRESS = [
    (ALLOWED, [], tcp(80, A4, OUT4), "egress is open by default"),
    (ALLOWED, ["ingress tcp/22 from 0.0.0.0/0"], tcp(80, A4, OUT4), "ingress rules change nothing"),
    (DENIED, ["egress udp/53 to 0.0.0.0/0"], tcp(80, A4, OUT4), "one egress rule closes the rest"),
    (ALLOWED, ["egress udp/53 to 0.0.0.0/0"], udp(53, A4, OUT4), "and opens what it says"),
    (DENIED, ["egress udp/53 to 0.0.0.0/0"], udp(53, A6, OUT6), "in its family"),
    (DENIED, ["egress tcp to group empty"], tcp(80, A4, OUT4), "even when it can match nothing"),
    (ALLOWED, ["egress tcp to group peers"], tcp(80, A4, B4), "a member"),
    (ALLOWED, ["egress tcp to group peers"], tcp(80, A4, "203.0.113.5"), "an external source as destination"),
    (DENIED, ["egress tcp to group peers"], tcp(80, A4, OUT4), "nobody else"),
    (DENIED, [], tcp(80, A4, OUT4, opening=False), "mid-stream, even where everything is open"),
    (DENIED, [], icmp(3, 1, A4, OUT4), "invalid, even where everything is open"),
    (ALLOWED, ["egress icmp/3 to 0.0.0.0/0"], icmp(3, 1, A4, OUT4), "but for a rule"),
    (DENIED, ["egress tcp/80 to 0.0.0.0/0"], icmp(3, 1, A4, OUT4), "of that kind"),
]


@pytest.mark.parametrize(("wanted", "lines", "packet", "why"), EGRESS, ids=[row[-1] for row in EGRESS])
def test_egress(wanted, lines, packet, why):
    assert judged(box(*lines), packet).egress.allowed is wanted, why


def test_between_two_instances_both_sides_must_allow():
    both = tcp(80, A4, B4)
    assert judged(box("egress tcp/80 to group peers"), both).allowed
    assert judged(box("egress tcp/81 to group peers"), both).refusing.direction is Direction.EGRESS
    assert judged(box(), udp(80, A4, B4)).refusing.direction is Direction.INGRESS


def test_when_both_sides_deny_the_sender_is_named():
    assert judged(box("egress tcp/81 to group peers"), udp(80, A4, B4)).refusing.direction is Direction.EGRESS


def test_what_no_instance_takes_part_in_nobody_judges():
    verdict = judged(box(), tcp(80, OUT4, "192.0.2.1"))
    assert verdict.allowed
    assert (verdict.egress, verdict.ingress, verdict.refusing) == (None, None, None)


def test_the_union_of_groups_counts_and_their_order_does_not():
    one, two = group("one", "ingress tcp/80 from 0.0.0.0/0"), group("two", "ingress tcp/443 from 0.0.0.0/0")
    for worn in (["one", "two"], ["two", "one"]):
        whole = snapshot(one, two, instance("a", A4, wears=worn))
        assert [judged(whole, tcp(port)).allowed for port in (80, 443, 22)] == [True, True, False]


def test_an_egress_rule_of_one_group_restricts_the_others_too():
    whole = snapshot(group("one", "egress tcp/80 to 0.0.0.0/0"), group("two"), instance("a", A4, wears=["one", "two"]))
    assert not judged(whole, tcp(443, A4, OUT4)).allowed


def test_without_groups_ingress_is_closed_and_egress_open():
    whole = snapshot(instance("a", A4))
    assert not judged(whole, tcp(80)).allowed
    assert judged(whole, tcp(80, A4, OUT4)).allowed


def test_a_group_that_names_itself_means_its_members():
    lines = group("own", "ingress tcp from group own")
    whole = snapshot(lines, instance("a", A4, wears=["own"]), instance("b", B4, wears=["own"]))
    assert judged(whole, tcp(80, B4)).allowed


def test_the_host_itself_is_a_source_like_others():
    assert not judged(box(), tcp(80), from_host=True).allowed
    assert judged(box("ingress tcp/80 from 198.51.100.0/24"), tcp(80), from_host=True).allowed


OWN_LINK_LOCAL = str(link_local(mac_of("a")))
NOBODY4, NOBODY6, EVERYBODY4 = ".".join("0000"), "::", "255.255.255.255"
SENT = [
    (ALLOWED, Default.EGRESS_OPEN, tcp(80, A6, OUT6), True, "its own address"),
    (DENIED, Default.SPOOFED, tcp(80, B4, OUT4), True, "another instance's address"),
    (DENIED, Default.SPOOFED, tcp(80, OUT4, B4), True, "a stranger's address"),
    (ALLOWED, Default.EGRESS_OPEN, tcp(80, OWN_LINK_LOCAL, OUT6), True, "the link-local address of its MAC address"),
    (DENIED, Default.SPOOFED, tcp(80, "fe80::bad", OUT6), True, "another link-local address"),
    (ALLOWED, Default.EGRESS_OPEN, tcp(80, "fe80::bad", OUT6), False, "unchecked when no MAC address is declared"),
    (DENIED, Default.SPOOFED, tcp(80, NOBODY4, OUT4), True, "no address at all"),
    (ALLOWED, Default.LINK, udp(67, NOBODY4, EVERYBODY4, 68), True, "asking for an address"),
    (DENIED, Default.SPOOFED, udp(67, NOBODY4, OUT4, 68), True, "but only everybody at once"),
    (DENIED, Default.SPOOFED, udp(69, NOBODY4, EVERYBODY4, 68), True, "and only for that"),
    (ALLOWED, Default.LINK, udp(67, A4, EVERYBODY4, 68), True, "asking again"),
    (ALLOWED, Default.LINK, udp(547, OWN_LINK_LOCAL, "ff02::1:2", 546), True, "asking for an IPv6 address"),
    (DENIED, Default.ROGUE, udp(68, A4, OUT4, 67), True, "playing the DHCP server"),
    (DENIED, Default.ROGUE, udp(546, A6, OUT6, 547), True, "playing the DHCPv6 server"),
    (DENIED, Default.ROGUE, icmp(134, 0, OWN_LINK_LOCAL, "ff02::1"), True, "playing the router"),
    (DENIED, Default.ROGUE, icmp(137, 0, OWN_LINK_LOCAL, OUT6), True, "redirecting"),
    (ALLOWED, Default.LINK, icmp(135, 0, A6, "ff02::1"), True, "looking for a neighbour"),
    (ALLOWED, Default.LINK, icmp(135, 0, NOBODY6, "ff02::1"), True, "looking whether an address is free"),
    (ALLOWED, Default.LINK, icmp(133, 0, NOBODY6, "ff02::2"), True, "looking for a router"),
    (ALLOWED, Default.LINK, icmp(143, 0, NOBODY6, "ff02::16"), True, "reporting a listener"),
    (DENIED, Default.SPOOFED, icmp(136, 0, NOBODY6, "ff02::1"), True, "advertising from nowhere"),
    (DENIED, Default.SPOOFED, icmp(128, 0, NOBODY6, OUT6), True, "an echo from nowhere"),
    (DENIED, Default.SPOOFED, icmp(135, 0, B6, "ff02::1"), True, "looking in another's name"),
]


@pytest.mark.parametrize(("wanted", "reason", "packet", "mac", "why"), SENT, ids=[row[-1] for row in SENT])
def test_what_an_instance_may_send(wanted, reason, packet, mac, why):
    side = judged(box(mac=mac), packet, sender="a").egress
    assert (side.allowed, side.reason) == (wanted, reason), why


@pytest.mark.parametrize("packet", [udp(68, A4, OUT4, 67), icmp(134, 0, A6, OUT6)])
def test_no_rule_lets_an_instance_play_router_or_dhcp_server(packet):
    lines = ["egress udp to 0.0.0.0/0", "egress icmpv6 to ::/0", "egress all to 0.0.0.0/0", "egress all to ::/0"]
    assert judged(box(*lines), packet, sender="a").egress.reason is Default.ROGUE


@pytest.mark.parametrize("packet", [udp(67, NOBODY4, EVERYBODY4, 68), icmp(135, 0, A6, "ff02::1")])
def test_no_egress_rule_closes_discovery_and_dhcp(packet):
    assert judged(box("egress tcp/80 to 0.0.0.0/0"), packet, sender="a").egress.allowed


def test_discovery_reaches_nobody_beyond_its_link():
    for type_ in (130, 131, 133, 135, 136, 143):
        assert judged(box(), icmp(type_, 0, A6, OUT6), sender="a").egress.reason is Default.FOREIGN_LINK
        assert judged(box(), icmp(type_, 0, A6, OUT6), sender="a", from_host=True).egress.reason is Default.LINK


def test_a_declared_link_local_address_is_the_only_one_let_through():
    whole = box(mac=False, addresses=(A4, "fe80::5"))
    assert judged(whole, tcp(80, "fe80::5", OUT6), sender="a").allowed
    assert not judged(whole, tcp(80, "fe80::6", OUT6), sender="a").allowed


LINK = [
    (ALLOWED, Default.LINK, icmp(135, 0, "fe80::1", A6), True, "discovery by the host"),
    (ALLOWED, Default.LINK, icmp(134, 0, "fe80::1", A6), True, "the host is the router"),
    (DENIED, Default.FOREIGN_LINK, icmp(135, 0, OUT6, A6), False, "discovery from beyond the link"),
    (ALLOWED, Default.LINK, udp(68, OUT4, A4, 67), True, "the host's DHCP server"),
    (ALLOWED, Default.LINK, udp(546, OUT6, A6, 547), True, "the host's DHCPv6 server"),
    (DENIED, Default.NO_INGRESS_RULE, udp(68, OUT4, A4, 67), False, "a DHCP server elsewhere"),
]


@pytest.mark.parametrize(("wanted", "reason", "packet", "from_host", "why"), LINK, ids=[row[-1] for row in LINK])
def test_what_the_link_lets_in(wanted, reason, packet, from_host, why):
    side = judged(box(), packet, from_host=from_host).ingress
    assert (side.allowed, side.reason) == (wanted, reason), why


def test_no_rule_opens_discovery_from_beyond_the_link():
    lines = ["ingress icmpv6 from ::/0", "ingress all from ::/0"]
    assert not judged(box(*lines), icmp(136, 0, OUT6, A6)).ingress.allowed


REASONS = [
    (Default.NO_INGRESS_RULE, "ingress", [], tcp(80)),
    (Default.NO_EGRESS_RULE, "egress", ["egress udp to 0.0.0.0/0"], tcp(80, A4, OUT4)),
    (Default.EGRESS_OPEN, "egress", [], tcp(80, A4, OUT4)),
    (Default.UNTRACKABLE, "ingress", ["ingress all from 0.0.0.0/0"], icmp(3)),
    (Default.UNTRACKABLE, "egress", [], icmp(3, 0, A4, OUT4)),
    (Default.MID_STREAM, "ingress", ["ingress tcp from 0.0.0.0/0"], tcp(80, opening=False)),
    (Default.MID_STREAM, "egress", [], tcp(80, A4, OUT4, opening=False)),
]


@pytest.mark.parametrize(("reason", "side", "lines", "packet"), REASONS)
def test_a_default_says_which(reason, side, lines, packet):
    assert getattr(judged(box(*lines), packet), side).reason is reason


def test_a_hit_belongs_to_the_first_matching_rule():
    lines = [
        "ingress tcp/443 from 0.0.0.0/0",
        "ingress tcp/80-90 from 198.51.100.0/24",
        "ingress tcp/80 from 0.0.0.0/0",
    ]
    whole = box(*lines)
    assert judged(whole, tcp(80)).ingress.reason == Allowance(group_id("own"), rule(lines[1], "own"))


def test_every_matching_rule_is_known_in_the_order_in_which_they_are_asked():
    lines = ["ingress tcp/80 from 0.0.0.0/0", "ingress udp from 0.0.0.0/0", "ingress all from 0.0.0.0/0"]
    whole = box(*lines)
    view = resolve_view(whole)
    found = allowing_rules(view, find_endpoint(view, address(A4)), tcp(80), Direction.INGRESS)
    assert [allowance.rule for allowance in found] == [rule(lines[0], "own"), rule(lines[2], "own")]


def test_nobody_has_an_address_that_nobody_has():
    assert find_endpoint(resolve_view(box()), address(OUT4)) is None


TRACKING = [
    (Tracking.FLOW, tcp(80)),
    (Tracking.STRAY, tcp(80, opening=False)),
    (Tracking.FLOW, udp(53)),
    *((Tracking.FLOW, icmp(type_)) for type_ in (8, 13, 15, 17)),
    *((Tracking.NONE, icmp(type_)) for type_ in (0, 3, 4, 5, 9, 10, 11, 12, 14, 16, 18, 42)),
    *((Tracking.FLOW, icmp(type_, 0, OUT6, A6)) for type_ in (128, 139)),
    *((Tracking.NONE, icmp(type_, 0, OUT6, A6)) for type_ in (1, 2, 3, 4, 129, 138, 140, 200)),
    *((Tracking.LINK, icmp(type_, 0, OUT6, A6)) for type_ in (130, 131, 132, 133, 134, 135, 136, 137, 143)),
    (Tracking.NONE, other(ICMP, OUT6, A6)),
    (Tracking.NONE, other(ICMPV6)),
    (Tracking.FLOW, other(AH)),
    (Tracking.NONE, other(AH, OUT6, A6)),
    (Tracking.FLOW, other(NO_NEXT_HEADER)),
    (Tracking.NONE, other(NO_NEXT_HEADER, OUT6, A6)),
    *((Tracking.FLOW, other(number)) for number in (ESP, GRE, IPIP, SCTP)),
]


@pytest.mark.parametrize(("tracking", "packet"), TRACKING)
def test_what_conntrack_makes_of_a_first_packet(tracking, packet):
    assert tracking_of(packet) is tracking


def test_a_packet_that_only_looks_like_discovery_over_ipv4_is_untrackable():
    assert tracking_of(replace(other(ICMPV6), icmp_type=135)) is Tracking.NONE


def test_of_an_observed_instance_everything_passes_with_the_reason_it_would_have_been_refused_for():
    whole = box("egress udp to 0.0.0.0/0")
    (id_, one) = next(item for item in whole.instances.items() if address(A4) in item[1].addresses)
    watched = replace(whole, instances={**whole.instances, id_: replace(one, observe=True)})
    refused = {
        Default.NO_INGRESS_RULE: tcp(80),
        Default.MID_STREAM: tcp(80, opening=False),
        Default.NO_EGRESS_RULE: tcp(80, A4, OUT4),
        Default.UNTRACKABLE: icmp(3),
    }
    for reason, packet in refused.items():
        assert not judged(whole, packet).allowed
        verdict = judged(watched, packet)
        assert verdict.allowed
        assert verdict.refusing is None
        assert reason in {side.reason for side in (verdict.egress, verdict.ingress) if side}
