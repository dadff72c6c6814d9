"""Maps the addresses of both families to one line of integers, without overlap, so that one set can hold both.

Addresses that no flow between hosts has are left out of every question: unspecified, loopback, multicast, reserved, and
IPv6 link-local ones (see docs/semantics.md for what passes on the link).
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, summarize_address_range
from typing import Final

from ringfence.policy.addresses import FAMILIES, Family
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.values import V4_MAPPED, Address, Network

_V6: Final = 1 << 40  # where IPv6 begins; IPv4 begins at 0
WHOLE: Final[dict[Family, tuple[int, int]]] = {4: (0, (1 << 32) - 1), 6: (_V6, _V6 + (1 << 128) - 1)}
_EXCLUDED: Final[tuple[Network, ...]] = (
    *map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")),
    *map(IPv6Network, ("::/127", "fe80::/10", "ff00::/8")),
    V4_MAPPED,
)
# Addresses that the public network does not carry (RFC 1918, 3927, 4193, 6598).
PRIVATE: Final[tuple[Network, ...]] = (
    *map(IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")),
    IPv6Network("fc00::/7"),
)


def position(address: Address) -> int:
    """The integer of an address."""
    return int(address) + (_V6 if isinstance(address, IPv6Address) else 0)


def address_at(point: int) -> Address:
    """The inverse of ``position``."""
    return IPv6Address(point - _V6) if point >= _V6 else IPv4Address(point)


def span_of(network: Network) -> tuple[int, int]:
    """The first and last position of a network."""
    return position(network.network_address), position(network.broadcast_address)


def addresses_of(networks: Iterable[Network]) -> Intervals:
    """The addresses of all ``networks``."""
    return Intervals.union(map(span_of, networks))


def networks_of(addresses: Intervals) -> list[Network]:
    """The fewest networks that hold exactly ``addresses``, ascending, IPv4 first."""
    return [
        network for first, last in addresses for network in summarize_address_range(address_at(first), address_at(last))
    ]


UNICAST: Final = Intervals.union(WHOLE[family] for family in FAMILIES) - addresses_of(_EXCLUDED)
INTERNET: Final = UNICAST - addresses_of(PRIVATE)
