"""The links of this network namespace with their lasting addresses, for a first inventory. Needs no rights.

Not for the agent itself, which enforces what the inventory says and never guesses.
"""

import socket
from collections import defaultdict
from ipaddress import ip_address

from pyroute2 import IPRoute

from ringfence.agent.draft import Link

_UNIVERSE = 0  # rtnetlink(7): valid everywhere, neither on the link alone nor within the machine
_PASSING = 0x01 | 0x08 | 0x20 | 0x40  # if_addr.h: temporary (privacy extensions), failed, deprecated, tentative


def find_links() -> list[Link]:
    """Every link but loopback, in the kernel's order."""
    with IPRoute() as netlink:
        ways_out = {route.get_attr("RTA_OIF") for route in netlink.get_default_routes()}
        addresses = defaultdict(list)
        for one in netlink.get_addr():
            lasts = one["family"] == socket.AF_INET or not one["flags"] & _PASSING
            if one["scope"] == _UNIVERSE and lasts:
                addresses[one["index"]].append(ip_address(one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS")))
        return [
            Link(
                link.get_attr("IFLA_IFNAME"),
                link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND"),
                tuple(addresses[link["index"]]),
                is_way_out=link["index"] in ways_out,
            )
            for link in netlink.get_links()
            if link.get_attr("IFLA_IFNAME") != "lo"
        ]
