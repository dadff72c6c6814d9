"""Packets that the world's own encoder does not make: TCP in its states, errors, AH, discovery, ways that are named."""

import struct
from dataclasses import dataclass, replace

from ringfence.policy.packet import AH, ICMP, ICMPV6, TCP, UDP, Packet
from ringfence.world.frames import octets_of_mac
from ringfence.world.packets import _checksum, _ipv4_header, _with_checksum, encode_packet, encode_tag

SYN, ACK, PUSH = 0x02, 0x10, 0x08
TOO_BIG = {4: (3, 4), 6: (2, 0)}  # "fragmentation needed" and "packet too big": type, code
UNREACHABLE = {4: (3, 1), 6: (1, 3)}
LOOSE, STRICT = 131, 137  # source routes (RFC 791)
# Options that name no way (RFC 2113, RFC 791, RFC 1108).
ROUTER_ALERT = bytes((148, 4, 0, 0))
RECORD = bytes((7, 7, 4)) + bytes(5)
TIMESTAMP = bytes((68, 8, 5)) + bytes(5)
SECURITY = bytes((130, 4, 0, 0)) + bytes((1, 1, 1, 0))
_DO_NOT_FRAGMENT = 0x4000
_ROUTING = 43


def said(packet: Packet, flags: int, sequence: int, acknowledged: int, payload: bytes = b"") -> bytes:
    """A TCP segment between the ends of ``packet``."""
    ports = packet.source_port, packet.destination_port
    header = struct.pack("!HHIIBBH", *ports, sequence, acknowledged, 5 << 4, flags, 65535)
    return _in_ip(packet, _with_checksum(header, payload, packet, pad=2), 0)


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment between the ends of ``packet``; every data segment is as long as its tag."""

    packet: Packet
    flags: int
    sequence: int
    acknowledged: int

    def __call__(self, *, tag: int) -> bytes:
        return said(self.packet, self.flags, self.sequence, self.acknowledged, encode_tag(tag))


@dataclass(frozen=True, slots=True)
class ErrorAbout:
    """An ICMP error from ``packet``'s source to its destination that quotes the octets of another packet."""

    packet: Packet
    quoted: bytes
    mtu: int = 1280

    def __call__(self, *, tag: int) -> bytes:
        kind = bytes((self.packet.icmp_type, self.packet.icmp_code))
        body = struct.pack("!I", self.mtu) + self.quoted + encode_tag(tag)
        if self.packet.protocol == ICMP:
            return _in_ip(self.packet, kind + _checksum(kind + bytes(2) + body).to_bytes(2, "big") + body, tag)
        return _in_ip(self.packet, _with_checksum(kind, body, self.packet), tag)


def error_about(packet: Packet, octets: bytes, *, source, destination, kind=TOO_BIG) -> tuple[Packet, ErrorAbout]:
    """An error of ``kind`` that ``source`` sends to ``destination`` about a packet, and how it is encoded."""
    type_, code = kind[packet.family]
    protocol = ICMP if packet.family == 4 else ICMPV6
    error = Packet(source, destination, protocol, icmp_type=type_, icmp_code=code)
    return error, ErrorAbout(error, octets)


def large(packet: Packet, size: int):
    """An encoder of the UDP packet, ``size`` bytes of payload long, that must not be fragmented."""

    def encode(*, tag: int) -> bytes:
        trailer = bytes(size) + encode_tag(tag)
        header = struct.pack("!HHH", packet.source_port, packet.destination_port, 8 + len(trailer))
        octets = bytearray(_in_ip(packet, _with_checksum(header, trailer, packet), tag))
        if packet.family == 4:
            octets[6:8] = _DO_NOT_FRAGMENT.to_bytes(2, "big")
            octets[10:12] = bytes(2)
            octets[10:12] = _checksum(bytes(octets[:20])).to_bytes(2, "big")
        return bytes(octets)

    return encode


def authenticated_udp(packet: Packet):
    """An encoder of the UDP packet behind an authentication header."""

    def encode(*, tag: int) -> bytes:
        udp = encode_packet(replace(packet, protocol=UDP), tag=tag)[20 if packet.family == 4 else 40 :]
        header = struct.pack("!BBHII", UDP, 4, 0, 0x100, 1) + bytes(12)
        return _in_ip(replace(packet, protocol=AH), header + udp, tag)

    return encode


def with_option(packet: bytes, option: bytes) -> bytes:
    """An IPv4 packet without options, and with this one (of a multiple of four octets)."""
    words = 5 + len(option) // 4
    header = bytes((0x40 | words,)) + packet[1:2] + struct.pack("!H", len(packet) + len(option)) + packet[4:10]
    header += bytes(2) + packet[12:20] + option
    return header[:10] + _checksum(header).to_bytes(2, "big") + header[12:] + packet[20:]


def behind_options(encode):
    """The IPv6 packet of another encoder with a hop-by-hop options header (eight octets of padding) before the rest."""

    def encode_with_options(*, tag: int) -> bytes:
        octets = encode(tag=tag)
        options = bytes([octets[6], 0, 1, 4, 0, 0, 0, 0])
        length = struct.pack("!H", len(octets) - 40 + len(options))
        return octets[:4] + length + bytes([0]) + octets[7:40] + options + octets[40:]

    return encode_with_options


def source_routed(packet: Packet, hop, kind: int, *, used: bool = False):
    """An encoder of the UDP packet, addressed to ``hop`` with the rest of its way in an option; no UDP checksum.

    ``used``: the way has one more address, which counts as passed.
    """
    passed = hop.packed if used else b""
    way = bytes((kind, 7 + len(passed), 4 + len(passed))) + passed + packet.destination.packed + bytes(1)

    def encode(*, tag: int) -> bytes:
        trailer = encode_tag(tag)
        body = struct.pack("!HHHH", packet.source_port, packet.destination_port, 8 + len(trailer), 0) + trailer
        whole = _ipv4_header(replace(packet, destination=hop), len(body), tag & 0xFFFF, 64) + body
        return with_option(whole, way)

    return encode


def segment_routed(packet: Packet, hop):
    """An encoder of the UDP packet, addressed to ``hop`` with the rest of its way in a segment header (RFC 8754)."""

    def encode(*, tag: int) -> bytes:
        body = encode_packet(replace(packet, destination=hop), tag=tag)[40:]
        segments = bytes((UDP, 4, 4, 1, 1, 0, 0, 0)) + packet.destination.packed + hop.packed
        return _in_ip(replace(packet, destination=hop, protocol=_ROUTING), segments + body, tag)

    return encode


def arp(operation: int, sender_mac: str, sender, target, target_mac="00:00:00:00:00:00", *, header=(1, 0x0800, 6, 4)):
    """ARP between IPv4 addresses; ``header``: kinds and lengths of both kinds of address."""
    ends = octets_of_mac(sender_mac) + sender.packed + octets_of_mac(target_mac) + target.packed
    return struct.pack("!HHBBH", *header, operation) + ends


def discovery(type_: int, source, destination, target=None, *options: tuple[int, bytes], flags: int = 0) -> bytes:
    """A packet of neighbour discovery; options as (type, six octets)."""
    packet = Packet(source, destination, ICMPV6, icmp_type=type_)
    target = target.packed if target else b""
    body = struct.pack("!I", flags) + target + b"".join(bytes((kind, 1)) + octets for kind, octets in options)
    icmp = _with_checksum(bytes((type_, 0)), body, packet)
    header = struct.pack("!IHBB", 6 << 28, len(icmp), ICMPV6, 255)
    return header + source.packed + destination.packed + icmp


def _in_ip(packet: Packet, body: bytes, tag: int) -> bytes:
    if packet.family == 4:
        return _ipv4_header(packet, len(body), tag & 0xFFFF, 64) + body
    fixed = struct.pack("!IHBB", 6 << 28, len(body), packet.protocol, 64)
    return fixed + packet.source.packed + packet.destination.packed + body


class Connection:
    """A TCP connection between two ends, one segment after the other, as conntrack wants to see it."""

    def __init__(self, opening: Packet) -> None:
        self._client = replace(opening, protocol=TCP)
        self._server = replace(
            self._client,
            source=opening.destination,
            destination=opening.source,
            source_port=opening.destination_port,
            destination_port=opening.source_port,
        )
        self._next = {self._client: 1000, self._server: 5000}

    def handshake(self) -> list[Segment]:
        """SYN, SYN-ACK and a first segment of data from the client, which completes it."""
        return [
            self._say(self._client, SYN, 0),
            self._say(self._server, SYN | ACK, self._next[self._client]),
            self.from_client(),
        ]

    def from_client(self) -> Segment:
        return self._say(self._client, ACK | PUSH, self._next[self._server])

    def from_server(self) -> Segment:
        return self._say(self._server, ACK | PUSH, self._next[self._client])

    def _say(self, packet: Packet, flags: int, acknowledged: int) -> Segment:
        segment = Segment(packet, flags, self._next[packet], acknowledged)
        self._next[packet] += (1 if flags & SYN else 0) + len(encode_tag(0))
        return segment


@dataclass(frozen=True, slots=True)
class Echo:
    """An echo request or reply; all with one identifier between two ends are one flow."""

    packet: Packet
    identifier: int

    def __call__(self, *, tag: int) -> bytes:
        kind = bytes((self.packet.icmp_type, self.packet.icmp_code))
        body = struct.pack("!HH", self.identifier, 1) + encode_tag(tag)
        if self.packet.protocol == ICMP:
            return _in_ip(self.packet, kind + _checksum(kind + bytes(2) + body).to_bytes(2, "big") + body, tag)
        return _in_ip(self.packet, _with_checksum(kind, body, self.packet), tag)
