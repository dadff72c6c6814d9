"""Addresses and ICMP types to which standards give a meaning; the compiler and the verdict share them."""

from ipaddress import IPv4Network, IPv6Network
from typing import Final

BROADCAST: Final = IPv4Network("255.255.255.255/32")
LINK_LOCAL: Final = IPv6Network("fe80::/10")
LOOPBACKS: Final = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
ALL_DHCP_SERVERS: Final = IPv6Network("ff02::1:2/128")
# Multicast listener and neighbour discovery, which conntrack does not track (nf_conntrack_proto_icmpv6.c): never a
# matter of groups. 134 is the router advertisement, 137 the redirect.
LINK_TYPES: Final = frozenset({*range(130, 138), 143})
DISCOVERY_TYPES: Final = frozenset(range(133, 138))  # solicitations, advertisements, redirects
ADVERTISEMENT: Final = 136  # of a neighbour
ROGUE_TYPES: Final = frozenset({134, 137})
ROGUE_ICMP_TYPE: Final = 5  # IPv4's redirect; conntrack takes it for an error about a flow
# From the unspecified address, while an address is still being found: listener reports, solicitations.
UNSPECIFIED_TYPES: Final = frozenset({131, 132, 133, 135, 143})
