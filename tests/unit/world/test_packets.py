"""Packets as bytes, checked against the definitions in the RFCs and not against the encoder's own arithmetic."""

import struct
from ipaddress import ip_address

import pytest

from ringfence.policy.packet import Packet
from ringfence.world.packets import encode_packet, tag_of

ENDS = {4: (ip_address("192.0.2.1"), ip_address("198.51.100.2")), 6: (ip_address("fd00::1"), ip_address("fd00::2"))}


def _ones_complement_sum(octets):
    octets += b"\x00" * (len(octets) % 2)
    total = 0
    for (word,) in struct.iter_unpack("!H", octets):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _pseudo(packet, body):
    return packet.source.packed + packet.destination.packed + struct.pack("!II", len(body), packet.protocol)


def _body(encoded):
    return encoded[20:] if encoded[0] >> 4 == 4 else encoded[40:]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", [6, 17, 58])
@pytest.mark.parametrize("tag", [0, 1, 2**64 - 1])
def test_checksums_over_the_pseudo_header_add_up(family, protocol, tag):
    packet = Packet(*ENDS[family], protocol, 1234, 80, 128, 0)
    body = _body(encode_packet(packet, tag=tag))
    assert _ones_complement_sum(_pseudo(packet, body) + body) == 0xFFFF


def test_icmp_sums_itself_alone():
    assert _ones_complement_sum(_body(encode_packet(Packet(*ENDS[4], 1, icmp_type=8), tag=9))) == 0xFFFF


@pytest.mark.parametrize("protocol", [1, 4, 6, 17, 47, 50, 51, 253])
def test_an_ipv4_header_sums_up_and_tells_its_length_and_protocol(protocol):
    encoded = encode_packet(Packet(*ENDS[4], protocol), tag=1)
    assert _ones_complement_sum(encoded[:20]) == 0xFFFF
    assert struct.unpack_from("!H", encoded, 2)[0] == len(encoded)
    assert encoded[9] == protocol


@pytest.mark.parametrize("protocol", [4, 6, 17, 47, 50, 51, 58, 253])
def test_an_ipv6_header_tells_its_payload_length_and_next_header(protocol):
    encoded = encode_packet(Packet(*ENDS[6], protocol), tag=1)
    assert (encoded[0] >> 4, struct.unpack_from("!H", encoded, 4)[0], encoded[6]) == (6, len(encoded) - 40, protocol)


@pytest.mark.parametrize(("opening", "flags"), [(True, 0x02), (False, 0x10)])
def test_a_tcp_packet_opens_or_is_in_mid_stream(opening, flags):
    body = _body(encode_packet(Packet(*ENDS[4], 6, 1, 2, opening=opening), tag=1))
    assert struct.unpack_from("!HH", body) == (1, 2)
    assert body[13] == flags


def test_the_tag_comes_back_and_foreign_bytes_have_none():
    assert tag_of(b"ethernet" + encode_packet(Packet(*ENDS[6], 50), tag=2**40)) == 2**40
    assert tag_of(b"x" * 60) is None
    assert tag_of(b"") is None
