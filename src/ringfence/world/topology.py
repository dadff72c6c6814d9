"""A world: one router namespace, where an agent can run, and a namespace behind it for every node.

Every node hangs on a veth pair of its own: ``eth0`` at the node, ``veth-NAME`` (a managed port) or ``up-NAME`` (an
unmanaged one) at the router. The router routes each address to its port and answers as 169.254.1.1 and fe80::1, so that
addresses are free of subnets. The ports of *bridged* nodes are plugged into the router's bridge ``br0``, which answers
in their stead; such nodes reach one another without the router. A *mute* node has no addresses configured: nothing
there answers, whatever arrives.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pyroute2 import IPRoute

from ringfence.policy.errors import OperatorError
from ringfence.policy.values import Address, Mac
from ringfence.world.namespaces import Namespace, make_namespace

GATEWAY4: Final = "169.254.1.1"
GATEWAY6: Final = "fe80::1"
GATEWAY_MAC: Final = Mac("02:00:00:00:00:01")
NODE_INTERFACE: Final = "eth0"
BRIDGE: Final = "br0"
_LINK_NETWORKS: Final = ("10.77.0.0/24", "fd77::/64")  # what bridged nodes find on their own link
_LOOPBACK_INDEX: Final = 1
_PERMANENT: Final = 0x80  # NUD_PERMANENT
_NODAD: Final = 0x02  # IFA_F_NODAD
_NTF_MASTER: Final = 0x04  # linux/neighbour.h: an entry of the bridge, not of its port
_STATIC: Final = 0x40  # NUD_NOARP: neither learned nor forgotten, so that nothing for it is flooded
_ONLINK: Final = 0x04  # RTNH_F_ONLINK
_UP_S: Final = 5.0
_POLL_S: Final = 0.0005
_NAME_LENGTH: Final = 15  # IFNAMSIZ without the closing NUL

# A new interface inherits "default"; all of these must be there before the first one.
_QUIET: Final[dict[str, int | str]] = {
    "ipv6/conf/all/forwarding": 0,
    "ipv6/conf/default/dad_transmits": 0,
    "ipv6/conf/default/accept_dad": 0,
    "ipv6/conf/default/accept_ra": 0,
    "ipv6/conf/default/router_solicitations": 0,
    "ipv6/conf/default/addr_gen_mode": 0,
    "ipv6/conf/default/disable_ipv6": 0,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
    "ipv4/ping_group_range": "0 0",
}
_FORWARDING: Final[dict[str, int | str]] = {
    "ipv4/ip_forward": 1,
    "ipv6/conf/all/forwarding": 1,
    "ipv6/conf/default/forwarding": 1,
}
_MUTE: Final[dict[str, int | str]] = {"ipv6/conf/all/disable_ipv6": 1, "ipv6/conf/default/disable_ipv6": 1}


@dataclass(frozen=True, slots=True)
class Node:
    """Someone at the end of a veth pair. ``managed`` says how the router calls its port, unless ``link`` names it."""

    name: str
    addresses: tuple[Address, ...]
    managed: bool = True
    link: str | None = None
    bridged: bool = False

    @property
    def port(self) -> str:
        """The name of the router's end, at most 15 bytes."""
        if self.link is not None:
            return self.link
        return f"{'veth' if self.managed else 'up'}-{self.name}"[:_NAME_LENGTH]


@dataclass(frozen=True, slots=True)
class Placed:
    """A node in the world, with the namespace it lives in and the MAC address of its ``eth0``."""

    node: Node
    namespace: Namespace
    mac: Mac

    @property
    def port(self) -> str:
        return self.node.port

    def address(self, family: int) -> Address:
        """The node's first address of the family (4 or 6); LookupError when it has none."""
        for address in self.node.addresses:
            if address.version == family:
                return address
        raise LookupError(f"{self.node.name} has no IPv{family} address")


@dataclass(slots=True)
class World:
    """The router and what is plugged into it; ``close`` gives everything back to the kernel."""

    router: Namespace
    mute: bool = False
    placed: dict[str, Placed] = field(default_factory=dict)
    _plugged: int = 0

    def plug(self, node: Node) -> Placed:
        """Add a node: its namespace, its veth pair, its routes. About 10 ms."""
        self._plugged += 1
        mac = Mac(f"02:00:00:01:{self._plugged >> 8:02x}:{self._plugged & 0xFF:02x}")
        namespace = make_namespace(node.name)
        placed = Placed(node, namespace, mac)
        _write_all(namespace, _QUIET | _MUTE if self.mute else _QUIET)
        self._wire(placed)
        self.placed[node.name] = placed
        return placed

    def pull(self, name: str) -> None:
        """The node's port vanishes and its namespace stays; ``push`` gives it a new one."""
        placed = self.placed[name]
        self.router.run(lambda: _remove_port(placed.port))

    def push(self, name: str) -> None:
        """A new port of the old name for a node whose port was pulled, as when a virtual machine starts again."""
        self._wire(self.placed[name])

    def _wire(self, placed: Placed) -> None:
        if placed.node.bridged:
            self.router.run(_add_bridge)
        self.router.run(lambda: _connect(placed, static_neighbours=self.mute))
        placed.namespace.run(lambda: _configure_node(placed, mute=self.mute))
        self.router.run(lambda: _wait_up(placed.port))
        placed.namespace.run(lambda: _wait_up(NODE_INTERFACE))

    def unplug(self, name: str) -> None:
        """Remove a node with its port, as when a virtual machine is destroyed."""
        placed = self.placed.pop(name)
        self.router.run(lambda: _remove_port(placed.port))
        placed.namespace.close()

    def close(self) -> None:
        for placed in self.placed.values():
            placed.namespace.close()
        self.placed.clear()
        self.router.close()


def build_world(nodes: Iterable[Node], *, router_addresses: tuple[Address, ...] = (), mute: bool = False) -> World:
    """A router that forwards IPv4 and IPv6 with its own ``router_addresses`` on loopback, and every node plugged in.

    Raises:
        OperatorError: when the kernel does not let us.
    """
    router = make_namespace("router")
    _write_all(router, _QUIET | _FORWARDING)
    router.run(lambda: _configure_router(router_addresses))
    world = World(router, mute)
    for node in nodes:
        world.plug(node)
    return world


def raise_loopback() -> None:
    """Bring up the loopback interface of the calling thread's namespace."""
    with IPRoute() as netlink:
        netlink.link("set", index=_LOOPBACK_INDEX, state="up")


def _write_all(namespace: Namespace, settings: dict[str, int | str]) -> None:
    for name, value in settings.items():
        namespace.write_sysctl(name, value)


def _configure_router(addresses: tuple[Address, ...]) -> None:
    with IPRoute() as netlink:
        netlink.link("set", index=_LOOPBACK_INDEX, state="up")
        for address in addresses:
            _add_address(netlink, _LOOPBACK_INDEX, address)


def _connect(placed: Placed, *, static_neighbours: bool) -> None:
    """Called inside the router: a port for the node, ready to carry packets as soon as the node's end is up."""
    with IPRoute() as netlink:
        peer = {"ifname": NODE_INTERFACE, "net_ns_fd": placed.namespace.fd, "address": placed.mac}
        netlink.link("add", ifname=placed.port, kind="veth", address=GATEWAY_MAC, peer=peer)
        index = netlink.link_lookup(ifname=placed.port)[0]
        if placed.node.bridged:
            bridge = netlink.link_lookup(ifname=BRIDGE)[0]
            netlink.link("set", index=index, master=bridge, state="up")
            netlink.fdb("add", ifindex=index, lladdr=placed.mac, flags=_NTF_MASTER, state=_STATIC)
            index = bridge
        else:
            _answer_as_gateway(netlink, index)
        for address in placed.node.addresses:
            # Not "add": who comes back behind a bridge has its routes still.
            netlink.route("replace", dst=f"{address}/{address.max_prefixlen}", oif=index)
            if static_neighbours:
                # Not "add": a packet on its way may have made the kernel look for the neighbour already.
                netlink.neigh("replace", dst=str(address), lladdr=placed.mac, ifindex=index, state=_PERMANENT)


def _add_bridge() -> None:
    """Called inside the router: a bridge, unless there is one."""
    with IPRoute() as netlink:
        if netlink.link_lookup(ifname=BRIDGE):
            return
        netlink.link("add", ifname=BRIDGE, kind="bridge", address=GATEWAY_MAC, br_mcast_snooping=0)
        _answer_as_gateway(netlink, netlink.link_lookup(ifname=BRIDGE)[0])


def _answer_as_gateway(netlink: IPRoute, index: int) -> None:
    netlink.addr("add", index=index, address=GATEWAY4, prefixlen=32)
    netlink.link("set", index=index, state="up")
    netlink.addr("add", index=index, address=GATEWAY6, prefixlen=64, flags=_NODAD)


def _configure_node(placed: Placed, *, mute: bool) -> None:
    """Called inside the node's namespace."""
    with IPRoute() as netlink:
        netlink.link("set", index=_LOOPBACK_INDEX, state="up")
        index = netlink.link_lookup(ifname=NODE_INTERFACE)[0]
        netlink.link("set", index=index, state="up")
        if mute:
            return
        for address in placed.node.addresses:
            _add_address(netlink, index, address)
        families = {address.version for address in placed.node.addresses}
        gateways = {4: GATEWAY4, 6: GATEWAY6}
        for family in sorted(families):
            destination = "0.0.0.0/0" if family == 4 else "::/0"  # noqa: PLR2004  the family's number
            netlink.route("add", dst=destination, gateway=gateways[family], oif=index, flags=_ONLINK)
        if placed.node.bridged:
            for network in _LINK_NETWORKS:
                netlink.route("add", dst=network, oif=index)


def _wait_up(interface: str) -> None:
    """Return when the interface really carries packets.

    A veth that was set up before its peer gets its queue from a kernel worker, a moment after the peer came up
    (net/core/link_watch.c); what is sent through it before is lost. Only its operational state tells.
    """
    deadline_s = time.monotonic() + _UP_S
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname=interface)[0]
        while netlink.link("get", index=index)[0].get_attr("IFLA_OPERSTATE") != "UP":
            if time.monotonic() > deadline_s:
                raise OperatorError(f"bringing up {interface}", f"the kernel has not started it after {_UP_S:.0f} s")
            time.sleep(_POLL_S)


def _remove_port(port: str) -> None:
    with IPRoute() as netlink:
        for index in netlink.link_lookup(ifname=port):
            netlink.link("del", index=index)


def _add_address(netlink: IPRoute, index: int, address: Address) -> None:
    flags = _NODAD if address.version == 6 else 0  # noqa: PLR2004  the family's number
    netlink.addr("add", index=index, address=str(address), prefixlen=address.max_prefixlen, flags=flags)
