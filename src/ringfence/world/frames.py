"""Packets put on one interface and looked for at the others.

A ``Tap`` is a node's interface; ``deliver`` tells for each packet at which tap it arrived. Made for mute nodes, where
no stack answers: what was let through is seen, and silence means that it was not. Packets that open flows need ends of
their own (another source port, say), else the second belongs to the flow of the first.
"""

import select
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from ringfence.policy.values import Mac
from ringfence.world.packets import ETHERTYPE, encode_tag, tag_of
from ringfence.world.topology import GATEWAY_MAC, NODE_INTERFACE, Placed, World

_FENCE_TYPE: Final = 0x88B5  # IEEE 802 local experimental: no stack takes it
_ETH_P_ALL: Final = 0x0003
_SOL_PACKET: Final = 263  # linux/socket.h; Python has no name for it
_PACKET_IGNORE_OUTGOING: Final = 23  # linux/if_packet.h
_FRAME_BYTES: Final = 2048
_ETHERNET_BYTES: Final = 14
_RECEIVE_BUFFER: Final = 4 << 20
_FENCE_TIMEOUT_S: Final = 2.0
# Frames in flight before the taps are read: the smallest receive buffer (net.core.rmem_default, 212,992 bytes) holds
# about 250 of them, and every frame may arrive at one and the same tap.
_VOLLEY: Final = 100
# How long every tap must stay silent after the fence came through. The second hop runs in the same softirq as the
# first as a rule; this is for the moments when ksoftirqd takes over.
_QUIET_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class Tap:
    """A node's interface seen from within: whole frames out, whole frames in (only those that arrive)."""

    name: str
    mac: Mac
    socket: socket.socket

    def send(
        self, packet: bytes, *, source_mac: Mac | None = None, link: bytes | None = None, to: Mac = GATEWAY_MAC
    ) -> None:
        """Put an IP packet on the interface, towards the router or ``to``; ``source_mac`` is for spoofing.

        ``link``: what stands between the MAC addresses and the packet; its ethertype, if nothing else is said.
        """
        kind = ETHERTYPE[packet[0] >> 4].to_bytes(2, "big") if link is None else link
        self.socket.send(octets_of_mac(to) + octets_of_mac(source_mac or self.mac) + kind + packet)

    def send_frame(
        self, ethertype: int, content: bytes, *, source_mac: Mac | None = None, to: Mac = GATEWAY_MAC
    ) -> None:
        """Put anything on the interface."""
        self.send(content, source_mac=source_mac, link=ethertype.to_bytes(2, "big"), to=to)

    def take_frames(self) -> list[bytes]:
        """Everything that arrived since the last call, in order; without waiting."""
        return _drain(self.socket)

    def take_packets(self) -> list[bytes]:
        """The IP packets that arrived since the last call, in order; without waiting."""
        return [frame[_ETHERNET_BYTES:] for frame in _drain(self.socket)]

    def close(self) -> None:
        self.socket.close()


@dataclass(frozen=True, slots=True)
class Shot:
    """A packet to be sent from a tap; the tag is what ``deliver`` reports it by, unique within one call."""

    tap: Tap
    packet: bytes
    tag: int
    source_mac: Mac | None = None
    link: bytes | None = None
    to: Mac = GATEWAY_MAC


@dataclass(frozen=True, slots=True)
class Range:
    """The taps of a world's nodes and, at the router's ports, the sockets that see fences come by."""

    taps: dict[str, Tap]
    fences: dict[str, socket.socket]

    def settle(self, name: str) -> None:
        """Return when the router has taken everything that this tap sent."""
        _pass_fence(self.taps[name], self.fences[name])

    def close(self) -> None:
        for tap in self.taps.values():
            tap.close()
        for fence in self.fences.values():
            fence.close()


def open_range(world: World) -> Range:
    """A tap on every node of the world. Close it when done."""
    taps = {name: _open_tap(placed) for name, placed in world.placed.items()}
    fences = {name: _open_fence(world, placed) for name, placed in world.placed.items()}
    return Range(taps, fences)


def deliver(shots: Iterable[Shot], field: Range) -> dict[int, str]:
    """Tag -> name of the tap where the packet arrived; what did not arrive is not in it. About 25 µs per packet.

    Raises:
        TimeoutError: when the router stopped taking frames, which would make every silence meaningless.
    """
    arrived: dict[int, str] = {}
    remaining = iter(shots)
    while volley := list(islice(remaining, _VOLLEY)):
        sizes = {shot.tag: len(shot.packet) for shot in volley}
        for shot in volley:
            shot.tap.send(shot.packet, source_mac=shot.source_mac, link=shot.link, to=shot.to)
        for name in {shot.tap.name for shot in volley}:
            field.settle(name)
        # An ICMP error ends with the packet it is about, tag and all, but is longer.
        arrived |= {tag: name for tag, size, name in _collect(field.taps.values()) if sizes.get(tag) == size}
    return arrived


def _collect(taps: Iterable[Tap]) -> list[tuple[int, int, str]]:
    """Tag and size of every tagged packet that arrived, and the tap's name."""
    by_descriptor = {tap.socket.fileno(): tap for tap in taps}
    poll = select.poll()
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    arrived = []
    while ready := poll.poll(_QUIET_S * 1000):
        for tap in (by_descriptor[descriptor] for descriptor, _ in ready):
            tagged = ((tag_of(packet), len(packet)) for packet in tap.take_packets())
            arrived += [(tag, size, tap.name) for tag, size in tagged if tag is not None]
    return arrived


def _pass_fence(tap: Tap, fence: socket.socket) -> None:
    """Return when the router has taken all that the tap sent before: an interface keeps its frames in order."""
    _drain(fence)
    mark = encode_tag(time.monotonic_ns())
    tap.send_frame(_FENCE_TYPE, mark)
    deadline = time.monotonic() + _FENCE_TIMEOUT_S
    while not any(frame.endswith(mark) for frame in _drain(fence)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the router's port of {tap.name} takes no frames any more")
        select.select([fence], [], [], _QUIET_S)


def _open_tap(placed: Placed) -> Tap:
    tap = placed.namespace.run(lambda: _packet_socket(NODE_INTERFACE, _ETH_P_ALL))
    return Tap(placed.node.name, placed.mac, tap)


def _open_fence(world: World, placed: Placed) -> socket.socket:
    # What a bridge takes from its port reaches nobody who asks for one type of frame only (__netif_receive_skb_core).
    kind = _ETH_P_ALL if placed.node.bridged else _FENCE_TYPE
    return world.router.run(lambda: _packet_socket(placed.port, kind))


def _packet_socket(interface: str, ethertype: int) -> socket.socket:
    """Called inside a namespace."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    opened.bind((interface, ethertype))
    opened.setblocking(False)  # noqa: FBT003  the standard library's own signature
    return opened


def _drain(receiver: socket.socket) -> list[bytes]:
    frames = []
    try:
        while True:
            frames.append(receiver.recv(_FRAME_BYTES))
    except BlockingIOError:
        return frames


def octets_of_mac(mac: Mac) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
