"""How each field of the abstract program is loaded by the kernel and spelled in nft text: one table for both.

Sizes and keys: linux/netfilter/nf_tables.h (enum nft_meta_keys, nft_ct_keys); spellings: nft(8).
"""

import sys
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from ringfence.policy.program.model import ETHERNET, ORIGINAL, REPLY, Equal, Field, Header
from ringfence.policy.program.names import TableFamily
from ringfence.policy.values import PROTOCOL_NUMBER, Protocol

NFPROTO_OF_FAMILY: Final = {4: 2, 6: 10}
INTERFACE_SIZE: Final = 16


class Source(Enum):
    """The kernel expression that loads a field."""

    META = "meta"
    CT = "ct"
    LINK = 0  # payload bases
    NETWORK = 1
    TRANSPORT = 2


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """How a field is loaded. ``size`` in octets; compared by identity.

    ``key`` is a meta or ct key, or an offset into the header; ``needs`` must hold for the field to have a meaning.
    """

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
ETHERTYPE_OF_FAMILY: Final = {4: 0x0800, 6: 0x86DD}
_ARP: Final = Equal(Field.ETHER_TYPE, 0x0806)

LOADS: Final[dict[Field, Load]] = {
    Field.IN_INTERFACE: Load(Source.META, 6, INTERFACE_SIZE, "iifname"),
    Field.OUT_INTERFACE: Load(Source.META, 7, INTERFACE_SIZE, "oifname"),
    Field.IN_INDEX: Load(Source.META, 4, 4, "iif", order=HOST_ORDER),
    Field.OUT_INDEX: Load(Source.META, 5, 4, "oif", order=HOST_ORDER),
    Field.IN_TYPE: Load(Source.META, 8, 2, "meta iiftype", order=HOST_ORDER),
    Field.FAMILY: Load(Source.META, 15, 1, "meta nfproto"),
    Field.PROTOCOL: Load(Source.META, 16, 1, "meta l4proto"),
    Field.DIRECTION: Load(Source.CT, 1, 1, "ct direction"),
    Field.ETHER_SOURCE: Load(Source.LINK, 6, 6, "ether saddr"),
    Field.ETHER_DESTINATION: Load(Source.LINK, 0, 6, "ether daddr"),
    Field.ETHER_TYPE: Load(Source.LINK, 12, 2, "ether type"),
    Field.FIRST_OCTET: Load(Source.NETWORK, 0, 1, "@nh,0,8"),
    Field.ARP_HEADER: Load(Source.NETWORK, 0, 6, "@nh,0,48"),
    Field.ARP_OPERATION: Load(Source.NETWORK, 6, 2, "arp operation", needs=_ARP),
    Field.ARP_SENDER_ETHER: Load(Source.NETWORK, 8, 6, "arp saddr ether", needs=_ARP),
    Field.ARP_SENDER4: Load(Source.NETWORK, 14, 4, "arp saddr ip", needs=_ARP),
    Field.ARP_TARGET4: Load(Source.NETWORK, 24, 4, "arp daddr ip", needs=_ARP),
    Field.SOURCE4: Load(Source.NETWORK, 12, 4, "ip saddr", needs=_IPV4),
    Field.DESTINATION4: Load(Source.NETWORK, 16, 4, "ip daddr", needs=_IPV4),
    Field.SOURCE6: Load(Source.NETWORK, 8, 16, "ip6 saddr", needs=_IPV6),
    Field.DESTINATION6: Load(Source.NETWORK, 24, 16, "ip6 daddr", needs=_IPV6),
    Field.LENGTH6: Load(Source.NETWORK, 4, 2, "ip6 length", needs=_IPV6),
    Field.NEXT_HEADER6: Load(Source.NETWORK, 6, 1, "ip6 nexthdr", needs=_IPV6),
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
    Field.ND_TARGET6: Load(Source.TRANSPORT, 8, 16, "@th,64,128"),
    Field.ND_OPTION: Load(Source.TRANSPORT, 24, 2, "@th,192,16"),
    Field.ND_OPTION_ETHER: Load(Source.TRANSPORT, 26, 6, "@th,208,48"),
    Field.RS_OPTION: Load(Source.TRANSPORT, 8, 2, "@th,64,16"),
    Field.RS_OPTION_ETHER: Load(Source.TRANSPORT, 10, 6, "@th,80,48"),
}
# In chains of family bridge "meta nfproto" is always bridge, so there the frame's type tells IPv4 from IPv6.
_BRIDGE_LOADS: Final = LOADS | {Field.FAMILY: Load(Source.META, 1, 2, "meta protocol")}


def loads_of(table: TableFamily) -> dict[Field, Load]:
    """How fields are loaded in chains of a table of that family."""
    return _BRIDGE_LOADS if table is TableFamily.BRIDGE else LOADS


_FIELDS: Final = {load: field for loads in (LOADS, _BRIDGE_LOADS) for field, load in loads.items()}


def field_of(load: Load) -> Field:
    """The field that is loaded so. Raises ``KeyError`` for a load of no field."""
    return _FIELDS[load]


@dataclass(frozen=True, slots=True)
class Presence:
    """A header or option and how the kernel's ``exthdr`` names it (enum nft_exthdr_op)."""

    operation: int
    number: int
    text: str
    family: int


PRESENCES: Final = {
    Header.ROUTING6: Presence(0, 43, "exthdr rt", 6),
    Header.LOOSE_ROUTE4: Presence(2, 131, "ip option lsrr", 4),
    Header.STRICT_ROUTE4: Presence(2, 137, "ip option ssrr", 4),
    Header.RECORD_ROUTE4: Presence(2, 7, "ip option rr", 4),
    Header.ROUTER_ALERT4: Presence(2, 148, "ip option ra", 4),
}


def needed_by(header: Header, table: TableFamily) -> Equal:
    """What must be compared before a packet is asked for the header; nft adds the same by itself."""
    family = PRESENCES[header].family
    is_frame = table is TableFamily.BRIDGE
    return Equal(Field.ETHER_TYPE, ETHERTYPE_OF_FAMILY[family]) if is_frame else Equal(Field.FAMILY, family)


# Loads that are no fields of the program but belong to Fresh, Stamp, InState and NotOpening.
CT_STATE: Final = Load(Source.CT, 0, 4, "ct state", order=HOST_ORDER)
CT_MARK: Final = Load(Source.CT, 3, 4, "ct mark", order=HOST_ORDER)
TCP_FLAGS: Final = Load(Source.TRANSPORT, 13, 1, "tcp flags")
TCP_FLAG_MASK: Final = 0x17  # fin, syn, rst, ack
TCP_SYN: Final = 0x02
MARK: Final = Load(Source.META, 3, 4, "meta mark", order=HOST_ORDER)
IS_ETHERNET: Final = Equal(Field.IN_TYPE, ETHERNET)
IS_TCP: Final = Equal(Field.PROTOCOL, PROTOCOL_NUMBER[Protocol.TCP])


def octets_of(field: Field, value: int | str, table: TableFamily = TableFamily.INET) -> bytes:
    """A value as the kernel compares it with the loaded field."""
    if isinstance(value, str):
        return value.encode("ascii").ljust(INTERFACE_SIZE, b"\0")
    load = loads_of(table)[field]
    number = _family_numbers(table)[value] if field is Field.FAMILY else value
    return number.to_bytes(load.size, load.order)


def value_of(field: Field, octets: bytes, table: TableFamily = TableFamily.INET) -> int | str:
    """The inverse of ``octets_of``. Raises ``KeyError`` for a family that is neither IPv4 nor IPv6."""
    load = loads_of(table)[field]
    if load.size == INTERFACE_SIZE and load.source is Source.META:
        return octets.rstrip(b"\0").decode("ascii", "backslashreplace")
    number = int.from_bytes(octets, load.order)
    return (
        {known: family for family, known in _family_numbers(table).items()}[number] if field is Field.FAMILY else number
    )


def _family_numbers(table: TableFamily) -> dict[int, int]:
    return ETHERTYPE_OF_FAMILY if table is TableFamily.BRIDGE else NFPROTO_OF_FAMILY
