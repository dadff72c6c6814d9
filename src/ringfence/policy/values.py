"""The small values of the model, and the parsers of them: ids, networks, ports, ICMP, MAC and interface names.

Input: text and numbers from a caller. Output: immutable values, or ``Invalid`` saying what was expected. Past this
module an address is never a string.
"""

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NewType
from uuid import UUID

from ringfence.policy.errors import Invalid

OrganisationId = NewType("OrganisationId", UUID)
GroupId = NewType("GroupId", UUID)
RuleId = NewType("RuleId", UUID)
InstanceId = NewType("InstanceId", UUID)
OperationId = NewType("OperationId", UUID)
HostName = NewType("HostName", str)
KeyId = NewType("KeyId", str)
Mac = NewType("Mac", str)  # six octets, lower case, colons: "02:00:00:00:00:01"
InterfaceName = NewType("InterfaceName", str)
Revision = NewType("Revision", int)  # one API call that changes anything = one revision, counted from 1

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_PORT: Final = 65535
ANY: Final = -1  # "any type" or "any code" of ICMP, as the API spells it
_SHOWN_LENGTH: Final = 64
V4_MAPPED: Final = IPv6Network("::ffff:0:0/96")

_CIDR = re.compile(r"[0-9A-Fa-f:.]+/(?:0|[1-9][0-9]{0,2})")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}")
# Narrower than the kernel (which forbids only "/", ":" and blanks): what nft text can carry quoted and unescaped.
_INTERFACE = re.compile(r"[A-Za-z0-9_.@-]{1,15}")
_PATTERN = re.compile(r"[A-Za-z0-9_.@-]{1,14}\*?|[A-Za-z0-9_.@-]{15}")


class Direction(Enum):
    """The way of a flow's first packet, always seen from the instance that wears the group."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Protocol(Enum):
    """What a rule may name, spelled as in the API (openapi.json, security-group-rule.protocol)."""

    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"
    ICMPV6 = "icmpv6"
    AH = "ah"
    ESP = "esp"
    GRE = "gre"
    IPIP = "ipip"
    ALL = "all"

    @property
    def has_ports(self) -> bool:
        return self in (Protocol.TCP, Protocol.UDP)

    @property
    def has_types(self) -> bool:
        return self in (Protocol.ICMP, Protocol.ICMPV6)


# IANA protocol numbers; ``all`` has none.
PROTOCOL_NUMBER: Final = {
    Protocol.TCP: 6,
    Protocol.UDP: 17,
    Protocol.ICMP: 1,
    Protocol.ICMPV6: 58,
    Protocol.AH: 51,
    Protocol.ESP: 50,
    Protocol.GRE: 47,
    Protocol.IPIP: 4,
}


class Kind(Enum):
    """How an instance's packets come through its host, as the host's inventory says (``kind``).

    ROUTED: over a link of its own. BRIDGED: over a port of a bridge. SELF: it is the host, and the link its uplink.
    """

    ROUTED = "routed"
    BRIDGED = "bridged"
    SELF = "self"


class Visibility(Enum):
    """Private groups belong to an organisation; public ones are the operator's and serve everybody as peers."""

    PRIVATE = "private"
    PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class Cidr:
    """A network as written and as meant: ``10.0.0.1/8`` is kept verbatim and means ``10.0.0.0/8``."""

    text: str
    network: Network


@dataclass(frozen=True, slots=True)
class Ports:
    """Destination ports, both ends included."""

    first: int
    last: int

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last


ALL_PORTS: Final = Ports(0, MAX_PORT)


@dataclass(frozen=True, slots=True)
class Icmp:
    """An ICMP type and code as the caller gave them; None (not given) and -1 both mean any."""

    type: int | None
    code: int | None

    @property
    def any_type(self) -> bool:
        return self.type is None or self.type == ANY

    @property
    def any_code(self) -> bool:
        return self.code is None or self.code == ANY

    def matches(self, type_: int, code: int) -> bool:
        return (self.any_type or self.type == type_) and (self.any_code or self.code == code)


def parse_cidr(text: str, *, field: str) -> Cidr:
    """A network from ``ADDRESS/PREFIX``; host bits are allowed and ignored.

    Raises:
        Invalid: for ranges, names, zone ids, net masks, a missing prefix and IPv4-mapped IPv6, naming ``field``.
    """
    expected = f"expected an IPv4 or IPv6 network in CIDR form such as 192.0.2.0/24, got {_shown(text)}"
    if not _CIDR.fullmatch(text):
        raise Invalid(expected, field=field)
    try:
        network = _network(text)
    except ValueError as error:
        raise Invalid(expected, field=field) from error
    if isinstance(network, IPv6Network) and network.subnet_of(V4_MAPPED):
        raise Invalid(f"{expected}: write IPv4-mapped networks as IPv4", field=field)
    return Cidr(text, network)


@lru_cache(maxsize=256)  # rules name the same few networks, and share what is known of them
def _network(text: str) -> Network:
    return ip_network(text, strict=False)


def parse_address(text: str, *, field: str) -> Address:
    """A single host address, without prefix or zone; unspecified, loopback, multicast and IPv4-mapped are refused."""
    try:
        address = ip_address(text)
    except ValueError as error:
        raise Invalid(f"expected one IPv4 or IPv6 address, got {_shown(text)}", field=field) from error
    mapped = isinstance(address, IPv6Address) and (address.ipv4_mapped is not None or address.scope_id is not None)
    if mapped or address.is_unspecified or address.is_multicast or address.is_loopback:
        raise Invalid(f"expected the address of one host, got {_shown(text)}", field=field)
    return address


def parse_mac(text: str, *, field: str) -> Mac:
    """A unicast MAC address in the form ``02:00:00:00:00:01``."""
    if not _MAC.fullmatch(text) or int(text[:2], 16) & 1:
        raise Invalid(f"expected a unicast MAC address such as 02:00:00:00:00:01, got {_shown(text)}", field=field)
    return Mac(text.lower())


def parse_interface(text: str, *, field: str) -> InterfaceName:
    """The name of one network interface: at most 15 of letters, digits and ``_ . @ -``."""
    if not _INTERFACE.fullmatch(text):
        raise Invalid(
            f"expected an interface name of 1 to 15 letters, digits, '_', '.', '@', '-', got {_shown(text)}",
            field=field,
        )
    return InterfaceName(text)


def parse_interface_pattern(text: str, *, field: str) -> str:
    """An interface name, or a prefix of one ending in ``*`` (``tap*``)."""
    if not _PATTERN.fullmatch(text):
        raise Invalid(f"expected an interface name or a prefix with '*' such as tap*, got {_shown(text)}", field=field)
    return text


def parse_label(text: str, *, field: str) -> str:
    """A name that fits into a header, a path and a file name: 1 to 63 letters, digits, ``.``, ``_`` and ``-``."""
    if not _LABEL.fullmatch(text):
        raise Invalid(f"expected 1 to 63 letters, digits, '.', '_' or '-', got {_shown(text)}", field=field)
    return text


def parse_duration(text: str, *, field: str, most: str | None = None) -> int:
    """The seconds in a time such as ``90s``, ``30m``, ``24h`` or ``400d``.

    With ``most``, itself such a time, it must be more than zero and no longer than that. Raises ``Invalid``.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Invalid(f"expected a time such as 90s, 30m, 24h or 400d, got {_shown(text)}", field=field)
    seconds = int(match[1]) * _UNIT_S[match[2]]
    if most is not None and not 0 < seconds <= parse_duration(most, field=field):
        raise Invalid(f"expected a time from 1s to {most}, got {_shown(text)}", field=field)
    return seconds


def link_local(mac: Mac) -> IPv6Address:
    """The EUI-64 link-local address that belongs to a MAC address (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    interface_id = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return IPv6Address(b"\xfe\x80" + bytes(6) + interface_id)


def _shown(text: str) -> str:
    """What a caller wrote, short and printable, for an error message."""
    shown = ascii(text)
    return shown if len(shown) <= _SHOWN_LENGTH else shown[: _SHOWN_LENGTH - 4] + "...'"
