"""The packets that the kernel logs (nfnetlink_log): the requests to get them, and each logged packet parsed.

Pure: octets in, octets or values out. Layout: linux/netfilter/nfnetlink_log.h; headers: RFC 791, 8200, 9293, 768, 792.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from ringfence.nft.expressions import LOG_GROUP, LOG_SNAPLEN
from ringfence.nft.netlink import (
    F_ACK,
    F_REQUEST,
    NFPROTO_UNSPEC,
    Attributes,
    number_of,
    pack,
    pack_message,
    pack_number,
    parse,
    parse_messages,
    text_of,
)
from ringfence.policy.packet import ICMP, ICMPV6, TCP, UDP, Packet

_SUBSYSTEM: Final = 4
_PACKET, _CONFIG = 0, 1
_BIND: Final = 1
_COPY_PACKET: Final = 2
_TIMEOUT_CS: Final = 10  # hundredths of a second for which the kernel may collect packets into one datagram
_PREROUTING, _INPUT = 0, 1
_IP, _ARP = (0x0800, 0x86DD), 0x0806  # ethertypes
_ARP_OF_IPV4: Final = bytes((0, 1, 8, 0, 6, 4))  # of Ethernet and IPv4 addresses (RFC 826)
_ARP_SIZE: Final = 28
_PORTS: Final = struct.Struct("!HH")
_IPV4_SIZE, _IPV6_SIZE = 20, 40
_EXTENSIONS: Final = frozenset({0, 43, 60})  # hop-by-hop, routing, destination options
_FRAGMENT: Final = 44
_LATER_FRAGMENT: Final = 0x1FFF
_LATER_FRAGMENT6: Final = 0xFFF8


@dataclass(frozen=True, slots=True)
class Told:
    """A logged packet: the line's log prefix, the index of the interface that was judged, and the packet.

    ``packet`` is None when it is not IP. ``leaves``: it was logged before routing. ``port``: the index of the bridge
    port that it came in or goes out by, if any. ``arp``: sender and target that an ARP packet names.
    """

    prefix: str
    index: int
    leaves: bool
    packet: Packet | None
    port: int | None = None
    arp: tuple[IPv4Address, IPv4Address] | None = None


def encode_requests() -> tuple[bytes, ...]:
    """The requests of a socket for our log group, in order; the first is refused if another program has the group."""
    mode = struct.pack(">IBx", LOG_SNAPLEN, _COPY_PACKET)
    attributes = (pack(1, bytes([_BIND])), pack(2, mode), pack_number(4, _TIMEOUT_CS))
    return tuple(
        pack_message(
            _SUBSYSTEM << 8 | _CONFIG, F_REQUEST | F_ACK, number, one, family=NFPROTO_UNSPEC, resource=LOG_GROUP
        )
        for number, one in enumerate(attributes, start=1)
    )


def parse_told(datagram: bytes) -> Iterator[Told]:
    """Every packet in a received datagram. Raises ``ValueError`` when a length is impossible."""
    for message in parse_messages(datagram):
        if message.type == _SUBSYSTEM << 8 | _PACKET:
            yield _told(parse(message.payload))


def _told(attributes: Attributes) -> Told:
    header, octets = attributes.get(1, bytes(4)), attributes.get(9, b"")
    leaves = header[2] in (_PREROUTING, _INPUT)
    index, port = (number_of(attributes.get(number, b"")) for number in ((4, 6) if leaves else (5, 7)))
    kind = int.from_bytes(header[:2], "big")
    packet = parse_packet(octets) if kind in _IP else None
    is_arp = kind == _ARP and octets.startswith(_ARP_OF_IPV4) and len(octets) >= _ARP_SIZE
    arp = (IPv4Address(octets[14:18]), IPv4Address(octets[24:28])) if is_arp else None
    return Told(text_of(attributes.get(10, b"")), index, leaves, packet, port or None, arp)


def parse_packet(octets: bytes) -> Packet | None:
    """An IP packet from its first octets, as far as its headers are there; None when it is not IP."""
    match octets[0] >> 4 if octets else 0:
        case 4 if len(octets) >= _IPV4_SIZE:
            return _parse_ipv4(octets)
        case 6 if len(octets) >= _IPV6_SIZE:
            return _parse_ipv6(octets)
        case _:
            return None


def _parse_ipv4(octets: bytes) -> Packet:
    whole = not int.from_bytes(octets[6:8], "big") & _LATER_FRAGMENT
    transport = octets[(octets[0] & 15) * 4 :] if whole else b""
    ends = IPv4Address(octets[12:16]), IPv4Address(octets[16:20])
    return _with_transport(Packet(*ends, octets[9], hop_limit=octets[8]), transport)


def _parse_ipv6(octets: bytes) -> Packet:
    following, offset, whole = octets[6], _IPV6_SIZE, True
    while following in _EXTENSIONS or following == _FRAGMENT:
        header = octets[offset : offset + 8]
        if len(header) < 8:
            whole = False
            break
        if following == _FRAGMENT:
            whole = not int.from_bytes(header[2:4], "big") & _LATER_FRAGMENT6
            offset += 8
        else:
            offset += (header[1] + 1) * 8
        following = header[0]
    ends = IPv6Address(octets[8:24]), IPv6Address(octets[24:40])
    return _with_transport(Packet(*ends, following, hop_limit=octets[7]), octets[offset:] if whole else b"")


def _with_transport(packet: Packet, octets: bytes) -> Packet:
    ends = packet.source, packet.destination, packet.protocol
    if len(octets) < _PORTS.size:
        return packet
    if packet.protocol in (TCP, UDP):
        source, destination = _PORTS.unpack_from(octets)
        return Packet(*ends, source, destination, hop_limit=packet.hop_limit)
    if packet.protocol in (ICMP, ICMPV6):
        return Packet(*ends, icmp_type=octets[0], icmp_code=octets[1], hop_limit=packet.hop_limit)
    return packet
