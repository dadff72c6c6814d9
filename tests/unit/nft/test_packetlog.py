"""Logged packets are read as they were made, and octets that are none of a packet's are nobody's."""

import struct
from dataclasses import replace
from functools import partial
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.nft.netlink import pack, pack_message, pack_number, pack_text
from ringfence.nft.packetlog import Told, parse_packet, parse_told
from ringfence.policy.packet import AH, ICMP, ICMPV6, TCP, UDP, Packet
from ringfence.world.packets import encode_packet
from segments import behind_options

ENDS = {
    4: (ip_address("10.77.0.1"), ip_address("198.51.100.10")),
    6: (ip_address("fd77::1"), ip_address("2001:db8::10")),
}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP, ICMP, ICMPV6, AH, 47])
def test_what_was_sent_is_what_is_read(family, protocol):
    ports = {"source_port": 1234, "destination_port": 53} if protocol in (TCP, UDP) else {}
    types = {"icmp_type": 8, "icmp_code": 1} if protocol in (ICMP, ICMPV6) else {}
    packet = Packet(*ENDS[family], protocol, **ports, **types)
    assert parse_packet(encode_packet(packet, tag=7)) == packet


def test_ports_are_found_behind_extension_headers():
    packet = Packet(*ENDS[6], UDP, source_port=1, destination_port=2)
    assert parse_packet(behind_options(partial(encode_packet, packet))(tag=1)) == packet


def test_a_later_fragment_has_no_ports():
    octets = bytearray(encode_packet(Packet(*ENDS[4], UDP, source_port=1, destination_port=2), tag=1))
    octets[6:8] = (100).to_bytes(2, "big")
    assert parse_packet(bytes(octets)) == Packet(*ENDS[4], UDP)


@given(st.binary(max_size=80), st.sampled_from((0x40, 0x45, 0x4F, 0x60)))
def test_no_octets_are_too_strange_to_be_read(octets, first):
    for each in (octets, bytes([first]) + octets):
        found = parse_packet(each)
        assert found is None or found.source.version in (4, 6)


def _message(hook, packet, prefix="ringfence drop spoofed", **indices):
    attributes = pack(1, struct.pack(">HBx", 0x800, hook)) + pack_text(10, prefix) + pack(9, packet)
    attributes += b"".join(pack_number({"came": 4, "goes": 5}[way], index) for way, index in indices.items())
    return pack_message(4 << 8, 0, 0, attributes, family=2)


def test_the_interface_told_of_is_the_one_that_was_judged():
    packet = Packet(*ENDS[4], UDP, source_port=1, destination_port=2)
    octets = encode_packet(packet, tag=1)
    datagram = _message(0, octets, came=3) + _message(4, octets, came=3, goes=4)
    leaving, arriving = parse_told(datagram)
    assert leaving == Told("ringfence drop spoofed", 3, leaves=True, packet=packet)
    assert arriving == replace(leaving, index=4, leaves=False)
