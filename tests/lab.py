"""A router that enforces policies between mute nodes: raw packets of any kind go in, where each arrives comes out.

The rules are applied by the agent's own applier on a real kernel; every fate that a test expects is compared with what
the packet met on the wire *and* with ``verdict``.
"""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from ipaddress import ip_address
from itertools import count

from policies import instance, snapshot
from ringfence.agent.doors.conntrack import KernelConntrack
from ringfence.agent.doors.nftables import KernelNftables
from ringfence.agent.enforce import Enforcer
from ringfence.agent.generations import Generations
from ringfence.nft import DEFAULT_MASK, About, Generation, Touched
from ringfence.policy.model import Instance
from ringfence.policy.packet import ICMP, ICMPV6, TCP, UDP, Packet
from ringfence.policy.program.compile import LocalPorts
from ringfence.policy.program.names import LATE
from ringfence.policy.values import HostName, Kind, Mac
from ringfence.policy.verdict import Verdict, judge
from ringfence.policy.view import HostView, resolve_view
from ringfence.world.frames import Range, Shot, deliver, open_range
from ringfence.world.packets import encode_packet, tag_of
from ringfence.world.topology import GATEWAY_MAC, Node, World, build_world

HOST = "host"
HOST_ADDRESSES = (ip_address("10.77.255.1"), ip_address("fd77:ffff::1"))
NODES = (
    Node("web", (ip_address("10.77.0.1"), ip_address("fd77::1"))),
    Node("app", (ip_address("10.77.0.2"), ip_address("fd77::2"))),
    Node("db", (ip_address("10.77.0.3"), ip_address("fd77::3"))),
    Node("vacant", (ip_address("10.77.0.4"), ip_address("fd77::4"))),
    Node("outside", (ip_address("198.51.100.10"), ip_address("2001:db8::10")), managed=False),
    Node("beyond", (ip_address("203.0.113.20"), ip_address("2001:db8:b::20")), managed=False),
)
DHCP6_SERVERS = ip_address("ff02::1:2")
MLD_ROUTERS = ip_address("ff02::16")
GROUPS_OF_ROUTERS = (DHCP6_SERVERS, MLD_ROUTERS)
# The same behind a bridge, with somebody on it who is no instance, and nobody's business.
BRIDGED_NODES = (
    *(replace(node, bridged=node.managed) for node in NODES),
    Node("lan", (ip_address("10.77.0.9"), ip_address("fd77::9")), managed=False, bridged=True),
)
PATTERNS = ("veth*",)
FAMILIES = (4, 6)
_EVERY_FLOW = (0, 1)  # mark and mask of all flows: nobody sets bit 0
_IPV6_HDRINCL = 36  # linux/in6.h
_QUIET_MS = 2
_CONTROL_TIMEOUT_S = 2.0
_EARS = ((4, ICMP), (6, ICMPV6), *((family, number) for family in FAMILIES for number in (TCP, UDP, 47, 50, 51, 89)))
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Way:
    """A packet from a node (or HOST) that is to arrive at another. ``encode`` makes its octets for a tag."""

    source: str
    destination: str
    packet: Packet
    encode: Callable[..., bytes] | None = None
    mac: Mac | None = None  # of the sender, where it spoofs
    link: bytes | None = None  # what stands in the frame instead of the packet's ethertype
    to: Mac | None = None  # of the receiver on the link, where it is not who the way names

    def octets(self, tag: int) -> bytes:
        return self.encode(tag=tag) if self.encode else encode_packet(self.packet, tag=tag)

    def back(self, **changes: object) -> "Way":
        """The answer to it: both ends exchanged."""
        packet = self.packet
        reply = replace(
            packet,
            source=packet.destination,
            destination=packet.source,
            source_port=packet.destination_port,
            destination_port=packet.source_port,
        )
        return Way(self.destination, self.source, replace(reply, **changes))

    def again(self, **changes: object) -> "Way":
        """The same with some of the packet's fields changed."""
        return replace(self, packet=replace(self.packet, **changes))


class Lab:
    """A mute world and what enforces in it. ``enforce`` and ``expect`` are what tests are made of."""

    control = "outside"  # whom nobody keeps the host from reaching

    def __init__(
        self,
        world: World,
        *,
        nftables: type[KernelNftables] = KernelNftables,
        mask: int = DEFAULT_MASK,
        sweeps: bool = True,
    ) -> None:
        """``mask``: where ``nftables`` keeps the generation. Without ``sweeps`` old flows are not forgotten."""
        self.world = world
        self.is_bridged = any(placed.node.bridged for placed in world.placed.values())
        self.nftables = world.router.run(nftables)
        self.conntrack = world.router.run(KernelConntrack)
        sweeper = self.conntrack if sweeps else _Forgetful()
        self.view = HostView(0)
        self.settles = True  # at once, as the agent does; else rules that came stay elements
        self._enforcer = Enforcer(self.nftables, Generations(sweeper, mask), last_block=None)
        self._revisions = count(1)
        self._tags = count(1)
        self._ears = {key: world.router.run(partial(_raw, *key)) for key in _EARS}
        self._joined = world.router.run(_join_groups)
        self._mouths = {family: world.router.run(partial(_mouth, family)) for family in FAMILIES}

    @property
    def ports(self) -> LocalPorts:
        return LocalPorts(PATTERNS, Kind.BRIDGED if self.is_bridged else Kind.ROUTED)

    @cached_property
    def range(self) -> Range:
        return open_range(self.world)

    def close(self) -> None:
        for opened in (*self._ears.values(), *self._mouths.values(), self._joined, self.nftables, self.conntrack):
            opened.close()
        if "range" in vars(self):
            self.range.close()
        self.world.close()

    def instance(self, name: str, *groups: str, mac: bool = True, more: tuple[str, ...] = ()) -> Instance:
        """The node as an instance that wears the groups; ``more`` are addresses beside its own."""
        placed = self.world.placed[name]
        made = instance(name, *map(str, placed.node.addresses), *more, wears=groups)
        kind = Kind.BRIDGED if self.is_bridged else made.interfaces[0].kind
        interface = replace(made.interfaces[0], mac=placed.mac if mac else None, kind=kind)
        return replace(made, interfaces=(interface,))

    def enforce(self, *things: object) -> None:
        """Groups and instances, as the agent of host h1 does it."""
        revision = next(self._revisions)
        self.view = resolve_view(snapshot(*things, revision=revision), HostName("h1"))
        self._enforcer.enforce(self.view, About(revision, "lab"), self.ports)
        if self.settles:
            self._enforcer.settle()

    @property
    def holds_late(self) -> bool:
        """Whether rules are in force as elements."""
        found = self.nftables.read_touched(Touched(sets=frozenset(LATE.values()))).program
        return any(set_.elements for set_ in found.sets.values())

    @property
    def generation(self) -> Generation | None:
        return self.nftables.read().generation

    def forget_flows(self) -> None:
        self.conntrack.delete(*_EVERY_FLOW)

    def address(self, name: str, family: int):
        nodes = {node.name: node.addresses for node in BRIDGED_NODES} | {HOST: HOST_ADDRESSES}
        return next(address for address in nodes[name] if address.version == family)

    def way(self, source: str, destination: str, protocol: int, family: int = 4, /, **fields: object) -> Way:
        """A packet between the first addresses of two nodes, from a source port that no other packet has."""
        port = 20000 + next(self._tags) % 40000
        ends = {"source": self.address(source, family), "destination": self.address(destination, family)}
        return Way(source, destination, Packet(**({**ends, "protocol": protocol, "source_port": port} | fields)))

    def tcp(self, source: str, destination: str, port: int, family: int = 4, /, **fields: object) -> Way:
        return self.way(source, destination, TCP, family, destination_port=port, **fields)

    def udp(self, source: str, destination: str, port: int, family: int = 4, /, **fields: object) -> Way:
        return self.way(source, destination, UDP, family, destination_port=port, **fields)

    def icmp(self, source: str, destination: str, type_: int = 8, code: int = 0) -> Way:
        return self.way(source, destination, ICMP, 4, icmp_type=type_, icmp_code=code)

    def icmpv6(self, source: str, destination: str, type_: int = 128, code: int = 0, /, **fields: object) -> Way:
        return self.way(source, destination, ICMPV6, 6, icmp_type=type_, icmp_code=code, **fields)

    def echo(self, source: str, destination: str, family: int) -> Way:
        return self.icmp(source, destination) if family == 4 else self.icmpv6(source, destination)

    def expect(self, allowed: bool, *ways: Way) -> None:  # noqa: FBT001  reads as "expect(DENIED, ...)"
        """Each is the first packet of a would-be flow; kernel and model must both say ``allowed``."""
        self.forget_flows()
        self.expect_fate(allowed, *ways)
        for way in ways:
            verdict = self.judge(way)
            assert verdict.allowed == allowed, f"the model says {verdict} of {way}"

    def expect_fate(self, allowed: bool, *ways: Way) -> None:  # noqa: FBT001  as above
        """What the kernel does, in the present state of its flows."""
        for way, arrived in zip(ways, self.send(*ways), strict=True):
            wanted = way.destination if allowed else None
            assert arrived == wanted, f"arrived at {arrived}, expected {wanted}: {way}"

    def judge(self, way: Way) -> Verdict:
        ends = {endpoint.name: endpoint for endpoint in self.view.endpoints}
        return judge(
            self.view,
            way.packet,
            source=ends.get(way.source),
            destination=ends.get(way.destination),
            from_host=HOST in (way.source, way.destination)
            or (self._is_on_bridge(way.source) and self._is_on_bridge(way.destination)),
        )

    def _is_on_bridge(self, name: str) -> bool:
        return name in self.world.placed and self.world.placed[name].node.bridged

    def addressed(self, way: Way) -> Way:
        """The way, with whom its frame is for on the link where it is sent."""
        return replace(way, to=self.receiver(way))

    def receiver(self, way: Way) -> Mac:
        """Whom the frame is for on the link where it is sent."""
        if way.to is not None:
            return way.to
        if way.packet.destination.is_multicast or str(way.packet.destination) == "255.255.255.255":
            return _multicast_mac(way.packet.destination)
        if self._is_on_bridge(way.source) and self._is_on_bridge(way.destination):
            return self.world.placed[way.destination].mac
        return GATEWAY_MAC

    def send(self, *ways: Way) -> list[str | None]:
        """Where each arrived, sent in order. What the host sends and what nodes send must not be mixed in a call."""
        tagged = {next(self._tags): way for way in ways}
        if {way.source for way in ways} == {HOST}:
            arrived = self._send_from_host({tag: (way, way.octets(tag)) for tag, way in tagged.items()})
        else:
            taps = self.range.taps
            shots = [
                Shot(taps[way.source], way.octets(tag), tag, way.mac, way.link, self.receiver(way))
                for tag, way in tagged.items()
            ]
            # What the host heard counts before what its own stack answered.
            arrived = deliver(shots, self.range) | dict.fromkeys(self._heard_by_host(), HOST)
        return [arrived.get(tag) for tag in tagged]

    def _heard_by_host(self) -> set[int]:
        heard = set()
        for ear in self._ears.values():
            with contextlib.suppress(BlockingIOError):
                while True:
                    heard.add(tag_of(ear.recv(4096)))
        return heard - {None}

    def _send_from_host(self, tagged: dict[int, tuple[Way, bytes]]) -> dict[int, str]:
        taps = self.range.taps.values()  # listening before anything is sent
        control = next(self._tags)
        way = self.udp(HOST, self.control, 9)
        sizes = {tag: len(octets) for tag, (_, octets) in tagged.items()}
        for way_, octets in (*tagged.values(), (way, way.octets(control))):
            family = way_.packet.family
            with contextlib.suppress(PermissionError):  # how the kernel tells a sender on the host of a drop
                self._mouths[family].sendto(octets, (str(way_.packet.destination), 0))
        arrived: dict[int, str] = {}
        deadline_s = time.monotonic() + _CONTROL_TIMEOUT_S
        while self._taps_ready() or control not in arrived:
            assert time.monotonic() < deadline_s, "the control packet from the host does not arrive"
            for tap in taps:
                for packet in tap.take_packets():
                    tag = tag_of(packet)
                    if tag == control or sizes.get(tag) == len(packet):
                        arrived[tag] = tap.name
        return arrived

    def _taps_ready(self) -> bool:
        sockets = [tap.socket for tap in self.range.taps.values()]
        return bool(select.select(sockets, [], [], _QUIET_MS / 1000)[0])


class _Forgetful:
    """A conntrack door that deletes nothing."""

    def delete(self, mark: int, mask: int) -> None:
        pass


def _multicast_mac(address) -> Mac:
    """Where a packet to a group, or to everybody, goes on the link (RFC 1112, RFC 2464)."""
    if address.version == 6:
        return Mac("33:33:" + address.packed[-4:].hex(":"))
    if not address.is_multicast:
        return Mac("ff:ff:ff:ff:ff:ff")
    return Mac("01:00:5e:" + bytes((address.packed[1] & 0x7F, *address.packed[2:])).hex(":"))


def open_lab(*, mute: bool = True, bridged: bool = False) -> Lab:
    """``mute``: raw packets only. Else the nodes have stacks of their own, for sockets."""
    nodes = BRIDGED_NODES if bridged else NODES
    return Lab(build_world(nodes, router_addresses=HOST_ADDRESSES, mute=mute))


def _raw(family: int, protocol: int) -> socket.socket:
    """Called inside the router: hears what passes the input hook."""
    opened = socket.socket(_FAMILY[family], socket.SOCK_RAW, protocol)
    opened.setblocking(False)  # noqa: FBT003  the standard library's own signature
    return opened


def _join_groups() -> socket.socket:
    """Called inside the router: makes it a member of what instances send discovery and DHCP to."""
    opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    for index, name in socket.if_nameindex():
        for address in GROUPS_OF_ROUTERS if name != "lo" else ():
            membership = address.packed + struct.pack("@I", index)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
    return opened


def _mouth(family: int) -> socket.socket:
    """Called inside the router: sends whole IP packets of its own making."""
    opened = socket.socket(_FAMILY[family], socket.SOCK_RAW, socket.IPPROTO_RAW)
    if family == 4:
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
    else:
        opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
    return opened
