"""How each field of the abstract program is loaded by the kernel and spelled in nft text: one table for both.

Sizes and keys: linux/netfilter/nf_tables.h (enum nft_meta_keys, nft_ct_keys); spellings: nft(8).
"""

import sys
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from ringfence.policy.program import Equal, Field
from ringfence.policy.values import PROTOCOL_NUMBER, Protocol

ORIGINAL, REPLY = 0, 1
NFPROTO_OF_FAMILY: Final = {4: 2, 6: 10}
INTERFACE_SIZE: Final = 16


class Source(Enum):
    """The kernel expression that loads a field."""

    META = "meta"
    CT = "ct"
    LINK = 0  # payload bases
    NETWORK = 1
    TRANSPORT = 2


@dataclass(frozen=True, slots=True)
class Load:
    """``key`` is a meta or ct key, or an offset into the header; ``needs`` must hold before the field has a meaning."""

    source: Source
    key: int
    size: int
    text: str
    direction: int | None = None
    needs: Equal | None = None
    order: Literal["big", "little"] = "big"


HOST_ORDER: Final = sys.byteorder
_IPV4: Final = Equal(Field.FAMILY, 4)
_IPV6: Final = Equal(Field.FAMILY, 6)

LOADS: Final[dict[Field, Load]] = {
    Field.IN_INTERFACE: Load(Source.META, 6, INTERFACE_SIZE, "iifname"),
    Field.OUT_INTERFACE: Load(Source.META, 7, INTERFACE_SIZE, "oifname"),
    Field.IN_INDEX: Load(Source.META, 4, 4, "iif", order=HOST_ORDER),
    Field.OUT_INDEX: Load(Source.META, 5, 4, "oif", order=HOST_ORDER),
    Field.FAMILY: Load(Source.META, 15, 1, "meta nfproto"),
    Field.PROTOCOL: Load(Source.META, 16, 1, "meta l4proto"),
    Field.DIRECTION: Load(Source.CT, 1, 1, "ct direction"),
    Field.ETHER_SOURCE: Load(Source.LINK, 6, 6, "ether saddr"),
    Field.SOURCE4: Load(Source.NETWORK, 12, 4, "ip saddr", needs=_IPV4),
    Field.DESTINATION4: Load(Source.NETWORK, 16, 4, "ip daddr", needs=_IPV4),
    Field.SOURCE6: Load(Source.NETWORK, 8, 16, "ip6 saddr", needs=_IPV6),
    Field.DESTINATION6: Load(Source.NETWORK, 24, 16, "ip6 daddr", needs=_IPV6),
    Field.HOP_LIMIT6: Load(Source.NETWORK, 7, 1, "ip6 hoplimit", needs=_IPV6),
    Field.FLOW_SOURCE4: Load(Source.CT, 19, 4, "ct original ip saddr", ORIGINAL),
    Field.FLOW_SOURCE6: Load(Source.CT, 21, 16, "ct original ip6 saddr", ORIGINAL),
    Field.FLOW_DESTINATION4: Load(Source.CT, 19, 4, "ct reply ip saddr", REPLY),
    Field.FLOW_DESTINATION6: Load(Source.CT, 21, 16, "ct reply ip6 saddr", REPLY),
    Field.FLOW_PORT: Load(Source.CT, 11, 2, "ct reply proto-src", REPLY),
    Field.FLOW_ASKED_PORT: Load(Source.CT, 12, 2, "ct original proto-dst", ORIGINAL),
    Field.SOURCE_PORT: Load(Source.TRANSPORT, 0, 2, "th sport"),
    Field.DESTINATION_PORT: Load(Source.TRANSPORT, 2, 2, "th dport"),
    Field.ICMP_TYPE: Load(Source.TRANSPORT, 0, 1, "icmp type"),
    Field.ICMP_CODE: Load(Source.TRANSPORT, 1, 1, "icmp code"),
    Field.ICMPV6_TYPE: Load(Source.TRANSPORT, 0, 1, "icmpv6 type"),
    Field.ICMPV6_CODE: Load(Source.TRANSPORT, 1, 1, "icmpv6 code"),
}

# Loads with no field of their own in the program: parts of Fresh, Stamp, InState and NotOpening, and Ethernet itself.
CT_STATE: Final = Load(Source.CT, 0, 4, "ct state", order=HOST_ORDER)
CT_MARK: Final = Load(Source.CT, 3, 4, "ct mark", order=HOST_ORDER)
TCP_FLAGS: Final = Load(Source.TRANSPORT, 13, 1, "tcp flags")
TCP_FLAG_MASK: Final = 0x17  # fin, syn, rst, ack
TCP_SYN: Final = 0x02
MARK: Final = Load(Source.META, 3, 4, "meta mark", order=HOST_ORDER)
LINK_TYPE: Final = Load(Source.META, 8, 2, "meta iiftype", order=HOST_ORDER)
ETHERNET: Final = 1
IS_TCP: Final = Equal(Field.PROTOCOL, PROTOCOL_NUMBER[Protocol.TCP])


def octets_of(field: Field, value: int | str) -> bytes:
    """A value as the kernel compares it with the loaded field."""
    if isinstance(value, str):
        return value.encode("ascii").ljust(INTERFACE_SIZE, b"\0")
    load = LOADS[field]
    number = NFPROTO_OF_FAMILY[value] if field is Field.FAMILY else value
    return number.to_bytes(load.size, load.order)


def value_of(field: Field, octets: bytes) -> int | str:
    """The inverse of ``octets_of``. Raises ``KeyError`` for a family that is neither IPv4 nor IPv6."""
    load = LOADS[field]
    if load.size == INTERFACE_SIZE and load.source is Source.META:
        return octets.rstrip(b"\0").decode("ascii", "backslashreplace")
    number = int.from_bytes(octets, load.order)
    return {2: 4, 10: 6}[number] if field is Field.FAMILY else number
