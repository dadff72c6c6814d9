"""Conntrack's events about connections that begin and end (ctnetlink): the groups to join, and the events parsed.

Pure: octets in, values out. Layout: linux/netfilter/nfnetlink_conntrack.h. A connection begins when its first packet
has passed every hook, so there is no event for a packet that any table dropped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from ringfence.nft.netlink import number_of, parse, parse_list, parse_messages
from ringfence.policy.packet import ICMP, ICMPV6, TCP, UDP, Packet

GROUP_BEGUN, GROUP_ENDED = 1, 3  # NFNLGRP_CONNTRACK_NEW and _DESTROY

_SUBSYSTEM: Final = 1
_NEW, _DELETE = _SUBSYSTEM << 8, _SUBSYSTEM << 8 | 2
_ORIGINAL, _REPLY, _COUNTED, _COUNTED_BACK = 1, 2, 9, 10
_ENDS, _PROTOCOL = 1, 2  # of a tuple
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT, _ICMP_TYPE, _ICMP_CODE, _ICMPV6_TYPE, _ICMPV6_CODE = 1, 2, 3, 5, 6, 8, 9
_PACKETS, _OCTETS = 1, 2


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of a connection as conntrack knows it: addresses packed, ports 0 where there are none."""

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection that began, or has ended. ``packets`` and ``octets`` are of both directions, None if not counted.

    ``original`` is the direction of the first packet as sent, ``reply`` that of the answers as they arrive: address
    translation makes them differ.
    """

    ended: bool
    protocol: int
    original: Way
    reply: Way
    icmp_type: int = 0
    icmp_code: int = 0
    packets: int | None = None
    octets: int | None = None

    @property
    def asked(self) -> Packet:
        """Its first packet as it was sent."""
        return self._packet(self.original.destination, self.original.destination_port)

    @property
    def reached(self) -> Packet:
        """Its first packet as it arrived, after translation of the destination."""
        return self._packet(self.reply.source, self.reply.source_port)

    def _packet(self, destination: bytes, port: int) -> Packet:
        ports = (self.original.source_port, port) if self.protocol in (TCP, UDP) else (0, 0)
        ends = _address(self.original.source), _address(destination)
        return Packet(*ends, self.protocol, *ports, icmp_type=self.icmp_type, icmp_code=self.icmp_code)


@lru_cache(maxsize=4096)  # most events are about the same few addresses
def _address(packed: bytes) -> IPv4Address | IPv6Address:
    return ip_address(packed)


def parse_connections(datagram: bytes) -> Iterator[Connection]:
    """Every event in a received datagram. Raises ``ValueError`` or ``KeyError`` when one is malformed."""
    for message in parse_messages(datagram):
        if message.type in (_NEW, _DELETE):
            yield _connection(parse(message.payload), ended=message.type == _DELETE)


def _connection(attributes: dict[int, bytes], *, ended: bool) -> Connection:
    first, answer = parse(attributes[_ORIGINAL]), parse(attributes[_REPLY])
    protocol = parse(first[_PROTOCOL])
    number = protocol[_NUMBER][0]
    counted = [parse(attributes[one]) for one in (_COUNTED, _COUNTED_BACK) if one in attributes]
    type_, code = {ICMP: (_ICMP_TYPE, _ICMP_CODE), ICMPV6: (_ICMPV6_TYPE, _ICMPV6_CODE)}.get(number, (0, 0))
    return Connection(
        ended,
        number,
        _way(first[_ENDS], protocol),
        _way(answer[_ENDS], parse(answer[_PROTOCOL])),
        number_of(protocol.get(type_, b"")),
        number_of(protocol.get(code, b"")),
        sum(number_of(one.get(_PACKETS, b"")) for one in counted) if counted else None,
        sum(number_of(one.get(_OCTETS, b"")) for one in counted) if counted else None,
    )


def _way(ends: bytes, protocol: dict[int, bytes]) -> Way:
    (_, source), (_, destination) = parse_list(ends)
    ports = (number_of(protocol.get(port, b"")) for port in (_SOURCE_PORT, _DESTINATION_PORT))
    return Way(source, destination, *ports)
