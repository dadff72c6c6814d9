"""The first packet of a would-be flow, and what conntrack makes of it: does it open a flow, or belong to none?

Facts of Linux: nf_conntrack_proto_icmp.c, nf_conntrack_proto_icmpv6.c, nf_conntrack_proto_tcp.c, nf_conntrack_core.c;
exthdrs_core.c (ipv6_skip_exthdr finds nothing to track where no header follows).
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from ringfence.policy.values import PROTOCOL_NUMBER, Address, Protocol
from ringfence.policy.well_known import LINK_TYPES

TCP: Final = PROTOCOL_NUMBER[Protocol.TCP]
UDP: Final = PROTOCOL_NUMBER[Protocol.UDP]
ICMP: Final = PROTOCOL_NUMBER[Protocol.ICMP]
ICMPV6: Final = PROTOCOL_NUMBER[Protocol.ICMPV6]
AH: Final = PROTOCOL_NUMBER[Protocol.AH]
NO_NEXT_HEADER: Final = 59  # what an IPv6 packet without content ends with (RFC 8200)

EPHEMERAL_PORT: Final = 49152  # the first of them (RFC 6335): a likely source port
OPENING_ICMP: Final = frozenset({8, 13, 15, 17})  # echo, timestamp, information and address mask requests
OPENING_ICMPV6: Final = frozenset({128, 139})  # echo and node information requests
_ASKED_BY: Final = {
    (ICMP, 0): 8,
    (ICMP, 14): 13,
    (ICMP, 16): 15,
    (ICMP, 18): 17,
    (ICMPV6, 129): 128,
    (ICMPV6, 140): 139,
}


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet as it is at an instance's interface. Ports count for tcp and udp, type and code for icmp and icmpv6.

    ``opening`` is False for a TCP packet that is no plain SYN. AH over IPv6 counts as untrackable, whatever is inside.
    """

    source: Address
    destination: Address
    protocol: int  # IANA number
    source_port: int = 0
    destination_port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    opening: bool = True
    hop_limit: int = 64

    @property
    def family(self) -> int:
        return self.source.version


def answered_by(packet: Packet) -> Packet:
    """The packet to which ``packet`` is an answer."""
    return replace(
        packet,
        source=packet.destination,
        destination=packet.source,
        source_port=packet.destination_port,
        destination_port=packet.source_port,
        icmp_type=_ASKED_BY.get((packet.protocol, packet.icmp_type), packet.icmp_type),
    )


class Tracking(Enum):
    """FLOW opens one, STRAY is TCP in mid-stream, NONE fits none ("invalid"), LINK is discovery, not tracked."""

    FLOW = "flow"
    STRAY = "stray"
    NONE = "none"
    LINK = "link"


def tracking_of(packet: Packet) -> Tracking:
    """How conntrack classifies a packet that belongs to no known flow."""
    match (packet.protocol, packet.family):
        case (1, 4):
            return Tracking.FLOW if packet.icmp_type in OPENING_ICMP else Tracking.NONE
        case (58, 6):
            if packet.icmp_type in LINK_TYPES:
                return Tracking.LINK
            return Tracking.FLOW if packet.icmp_type in OPENING_ICMPV6 else Tracking.NONE
        case (1, 6) | (58, 4) | (51, 6) | (59, 6):
            return Tracking.NONE
        case (6, _):
            return Tracking.FLOW if packet.opening else Tracking.STRAY
        case _:
            return Tracking.FLOW
