"""PURE: a packet of any protocol as bytes, checksums right, with a tag at its end to know it by when it arrives."""

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ringfence.policy.packet import ICMP, ICMPV6, NO_NEXT_HEADER, TCP, UDP, Packet
from ringfence.policy.values import PROTOCOL_NUMBER, Protocol

ETHERTYPE: Final = {4: 0x0800, 6: 0x86DD}
_TAG: Final = struct.Struct("!4sQ")
_MAGIC: Final = b"\x9eRF\xe9"
_SYN: Final = 0x02
_ACK: Final = 0x10
_UNASSIGNED: Final = 253  # "use for experimentation and testing" (RFC 3692)


def encode_packet(packet: Packet, *, tag: int, hop_limit: int | None = None) -> bytes:
    """The IP packet on the wire, with ``tag`` (64 bits) as its last bytes; any protocol number will do.

    ``hop_limit`` instead of the packet's own, for one that it does not matter to.
    """
    hop_limit = packet.hop_limit if hop_limit is None else hop_limit
    trailer = encode_tag(tag)
    encode_body = _BODIES.get(packet.protocol)
    body = trailer if encode_body is None else encode_body(packet, trailer)
    if packet.family == 4:  # noqa: PLR2004  the family's number
        return _ipv4_header(packet, len(body), tag & 0xFFFF, hop_limit) + body
    fixed = struct.pack("!IHBB", 6 << 28, len(body), packet.protocol, hop_limit)
    return fixed + packet.source.packed + packet.destination.packed + body


def encode_tag(tag: int) -> bytes:
    """What a tagged packet or frame ends with."""
    return _TAG.pack(_MAGIC, tag)


def tag_of(frame: bytes) -> int | None:
    """The tag that a frame or packet ends with, or None when it carries none."""
    if len(frame) < _TAG.size:
        return None
    magic, tag = _TAG.unpack_from(frame, len(frame) - _TAG.size)
    return int(tag) if magic == _MAGIC else None


def _tcp(packet: Packet, trailer: bytes) -> bytes:
    flags = _SYN if packet.opening else _ACK
    ports = struct.pack("!HHIIBBH", packet.source_port, packet.destination_port, 1, 0, 5 << 4, flags, 65535)
    return _with_checksum(ports, trailer, packet, pad=2)


def _udp(packet: Packet, trailer: bytes) -> bytes:
    header = struct.pack("!HHH", packet.source_port, packet.destination_port, 8 + len(trailer))
    return _with_checksum(header, trailer, packet)


def _icmp(packet: Packet, trailer: bytes) -> bytes:
    """Type, code, checksum, then four bytes that are identifier and sequence number of an echo.

    The identifier comes from the tag, so that no two echoes are of one flow. Only ICMPv6 sums a pseudo header.
    """
    kind = bytes((packet.icmp_type, packet.icmp_code))
    rest = trailer[-2:] + bytes(2) + trailer
    if packet.protocol == ICMP:
        return kind + _checksum(kind + bytes(2) + rest).to_bytes(2, "big") + rest
    return _with_checksum(kind, rest, packet)


def _ah(packet: Packet, trailer: bytes) -> bytes:
    """An authentication header with a 12-byte check value. What it carries: UDP on IPv4, on IPv6 nothing (type 59)."""
    inner = UDP if packet.family == 4 else NO_NEXT_HEADER  # noqa: PLR2004  the family's number
    return struct.pack("!BBHII", inner, 4, 0, 0x100, 1) + bytes(12) + trailer


def _ipip(packet: Packet, trailer: bytes) -> bytes:
    """A whole IPv4 packet of an unassigned protocol inside."""
    return _ipv4_header(replace(packet, protocol=_UNASSIGNED), len(trailer), 0, 64) + trailer


def _esp(_packet: Packet, trailer: bytes) -> bytes:
    return struct.pack("!II", 0x100, 1) + trailer


def _gre(_packet: Packet, trailer: bytes) -> bytes:
    return struct.pack("!HH", 0, ETHERTYPE[4]) + trailer


def _with_checksum(header: bytes, rest: bytes, packet: Packet, *, pad: int = 0) -> bytes:
    """``header``, the checksum over everything and the pseudo header, ``pad`` zero bytes, ``rest``."""
    length = len(header) + 2 + pad + len(rest)
    pseudo = packet.source.packed + packet.destination.packed + struct.pack("!II", length, packet.protocol)
    checksum = _checksum(pseudo + header + bytes(2 + pad) + rest)
    if packet.protocol == UDP and checksum == 0:
        checksum = 0xFFFF  # zero means "no checksum" in UDP
    return header + checksum.to_bytes(2, "big") + bytes(pad) + rest


def _ipv4_header(packet: Packet, body_bytes: int, identification: int, hop_limit: int) -> bytes:
    ends = packet.source.packed[-4:] + packet.destination.packed[-4:]
    start = struct.pack("!BBHHHBB", 0x45, 0, 20 + body_bytes, identification, 0, hop_limit, packet.protocol)
    return start + _checksum(start + bytes(2) + ends).to_bytes(2, "big") + ends


def _checksum(octets: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    if len(octets) % 2:
        octets += b"\x00"
    total: int = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


_BODIES: Final[dict[int, Callable[[Packet, bytes], bytes]]] = {
    TCP: _tcp,
    UDP: _udp,
    ICMP: _icmp,
    ICMPV6: _icmp,
    PROTOCOL_NUMBER[Protocol.AH]: _ah,
    PROTOCOL_NUMBER[Protocol.ESP]: _esp,
    PROTOCOL_NUMBER[Protocol.GRE]: _gre,
    PROTOCOL_NUMBER[Protocol.IPIP]: _ipip,
}
