"""Text into values: what is kept, what is meant, and everything that is refused."""

from contextlib import suppress
from ipaddress import IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.policy.errors import Invalid
from ringfence.policy.values import (
    ALL_PORTS,
    Icmp,
    Ports,
    link_local,
    parse_address,
    parse_cidr,
    parse_interface,
    parse_interface_pattern,
    parse_mac,
)

NETWORKS = [
    ("10.0.0.0/8", IPv4Network("10.0.0.0/8")),
    ("10.0.0.1/8", IPv4Network("10.0.0.0/8")),
    ("0.0.0.0/0", IPv4Network("0.0.0.0/0")),
    ("255.255.255.255/32", IPv4Network("255.255.255.255/32")),
    ("1.2.3.4/0", IPv4Network("0.0.0.0/0")),
    ("::/0", IPv6Network("::/0")),
    ("2001:DB8::1/32", IPv6Network("2001:db8::/32")),
    ("2001:db8:0:0:0:0:0:1/128", IPv6Network("2001:db8::1/128")),
    ("fe80::1/10", IPv6Network("fe80::/10")),
    ("64:ff9b::192.0.2.1/96", IPv6Network("64:ff9b::/96")),
]
REFUSED_NETWORKS = [
    "",
    "10.0.0.1",
    "::1",
    "10.0.0.0/",
    "/8",
    "10.0.0.0/33",
    "::/129",
    "::/1000",
    "10.0.0.0/-1",
    "10.0.0.0/+8",
    "10.0.0.0/08",
    "10.0.0.0/8/8",
    "10.0.0.0/255.0.0.0",
    "10.0.0.0/0.255.255.255",
    "010.0.0.0/8",
    "10.0.0/8",
    "10/8",
    "10.0.0.256/32",
    "10.0.0.0-10.0.0.9",
    "10.0.0.0/8,11.0.0.0/8",
    "10.0.0.0/8 ",
    " 10.0.0.0/8",
    "10.0.0.0 /8",
    "10.0.0.0/8\n",
    "10.0.0.0/8\0",
    "\u0661\u0660.0.0.0/8",  # digits, but not ours
    "10.0.0.0/\u0668",
    "fe80::1%eth0/64",
    "fe80::%1/64",
    "::ffff:10.0.0.1/128",
    "::ffff:0:0/96",
    "::FFFF:a00:1/120",
    "0:0:0:0:0:ffff:10.0.0.0/104",
    "example.com",
    "example.com/24",
    "localhost/8",
    "any",
    "0x0a000000/8",
    "167772160/8",
    "2001:db8:::/32",
    "[::1]/128",
    "{ 10.0.0.0/8 }",
    "10.0.0.0/8; flush ruleset",
]


@pytest.mark.parametrize(("text", "network"), NETWORKS)
def test_a_network_is_kept_as_written_and_means_its_network(text, network):
    cidr = parse_cidr(text, field="$.network")
    assert (cidr.text, cidr.network) == (text, network)


@pytest.mark.parametrize("text", REFUSED_NETWORKS)
def test_what_is_no_network_is_refused_naming_the_field(text):
    with pytest.raises(Invalid, match=r"\$\.network: expected an IPv4 or IPv6 network") as caught:
        parse_cidr(text, field="$.network")
    assert caught.value.field == "$.network"


def test_a_wide_ipv6_network_that_holds_the_mapped_ones_is_no_mapped_network():
    assert parse_cidr("::/80", field="f").network == IPv6Network("::/80")


def test_an_error_shows_a_bounded_and_printable_part_of_what_was_written():
    with pytest.raises(Invalid) as caught:
        parse_cidr("\x1b[31m" + "9" * 5000, field="f")
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_network_or_refused(text):
    with suppress(Invalid):
        assert parse_cidr(text, field="f").text == text


ADDRESSES = ["10.0.0.1", "2001:db8::1", "fe80::1", "255.255.255.255", "240.0.0.1"]
REFUSED_ADDRESSES = [
    "",
    "10.0.0.1/32",
    "10.0.0.01",
    "0.0.0.0",  # noqa: S104  nothing is bound
    "127.0.0.1",
    "224.0.0.1",
    "::",
    "::1",
    "ff02::1",
    "fe80::1%eth0",
    "::ffff:10.0.0.1",
    "10.0.0.1-10.0.0.2",
    "host.example",
    "10.0.0.1\n",
    "10",
]


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_of_one_host_is_taken(text):
    assert str(parse_address(text, field="f")) == text


@pytest.mark.parametrize("text", REFUSED_ADDRESSES)
def test_what_is_not_the_address_of_one_host_is_refused(text):
    with pytest.raises(Invalid, match=r"^f: expected"):
        parse_address(text, field="f")


@pytest.mark.parametrize(("text", "mac"), [("02:00:00:00:00:01",) * 2, ("FE:AB:cd:00:00:01", "fe:ab:cd:00:00:01")])
def test_a_mac_address_is_kept_in_small_letters(text, mac):
    assert parse_mac(text, field="f") == mac


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02-00-00-00-00-01",
        "0200.0000.0001",
        "02:00:00:00:00",
        "02:00:00:00:00:01:02",
        "2:0:0:0:0:1",
        "02:00:00:00:00:0g",
    ],
)
def test_what_is_no_mac_address_is_refused(text):
    with pytest.raises(Invalid, match=r"^f: expected a unicast MAC address"):
        parse_mac(text, field="f")


@pytest.mark.parametrize("text", ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"])
def test_a_mac_address_of_many_is_refused(text):
    with pytest.raises(Invalid):
        parse_mac(text, field="f")


@pytest.mark.parametrize("text", ["eth0", "veth-web", "br0.100", "a", "x" * 15, "wg@home", "_", "-"])
def test_an_interface_name_is_taken(text):
    assert parse_interface(text, field="f") == text


@pytest.mark.parametrize("text", ["", "x" * 16, "eth/0", 'eth"0', "tap*", "eth0\n", "é", "eth;0", "$x", "eth\\0"])
def test_what_nft_text_could_misread_is_no_interface_name(text):
    with pytest.raises(Invalid, match=r"^f: expected an interface name"):
        parse_interface(text, field="f")


@pytest.mark.parametrize("text", ["veth*", "eth0", "x" * 15, "x" * 14 + "*"])
def test_a_pattern_is_a_name_or_a_prefix(text):
    assert parse_interface_pattern(text, field="f") == text


@pytest.mark.parametrize("text", ["", "*", "*eth", "e*h", "eth**", "x" * 15 + "*", "x" * 16, "eth?", "eth[0-9]"])
def test_no_other_pattern_is_taken_and_none_that_means_everything(text):
    with pytest.raises(Invalid):
        parse_interface_pattern(text, field="f")


@pytest.mark.parametrize(
    ("mac", "address"),
    [("02:00:00:00:00:01", "fe80::ff:fe00:1"), ("00:1b:21:3c:4d:5e", "fe80::21b:21ff:fe3c:4d5e")],
)
def test_the_link_local_address_follows_from_the_mac_address(mac, address):
    assert link_local(parse_mac(mac, field="f")) == IPv6Address(address)


def test_ports_hold_both_ends():
    ports = Ports(80, 90)
    assert [port for port in (79, 80, 90, 91) if port in ports] == [80, 90]
    assert 0 in ALL_PORTS
    assert 65535 in ALL_PORTS


@pytest.mark.parametrize(
    ("icmp", "matched"),
    [
        (Icmp(8, 0), [(8, 0)]),
        (Icmp(8, -1), [(8, 0), (8, 1)]),
        (Icmp(8, None), [(8, 0), (8, 1)]),
        (Icmp(-1, -1), [(8, 0), (8, 1), (3, 1), (0, 0)]),
        (Icmp(None, None), [(8, 0), (8, 1), (3, 1), (0, 0)]),
        (Icmp(0, 0), [(0, 0)]),
    ],
)
def test_icmp_minus_one_and_nothing_both_mean_any(icmp, matched):
    assert [each for each in [(8, 0), (8, 1), (3, 1), (0, 0)] if icmp.matches(*each)] == matched
