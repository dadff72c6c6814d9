"""The flow log: each packet that the kernel tells of becomes a record, kept in a file and sent to the server.

Input: the kernel's words, and which view is in force. Output: lines in the agent's own file, which is bounded, and
reports to the server. What cannot be sent in time is counted and not kept: a log must not grow without end.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ringfence.agent.client import Server
from ringfence.agent.doors.clock import Clock
from ringfence.agent.doors.files import FilesDoor
from ringfence.agent.doors.packets import PacketsDoor
from ringfence.nft.packetlog import Told
from ringfence.policy.errors import OperatorError
from ringfence.policy.model import GroupPeer
from ringfence.policy.packet import ICMP, ICMPV6, TCP, UDP, Packet
from ringfence.policy.refusal import Fate, Refusal, parse_log_prefix
from ringfence.policy.values import Address, Direction, GroupId, Kind
from ringfence.policy.view import Endpoint, HostView
from ringfence.wire.flows import MOST_RECORDS, FlowRecord, FlowReport, encode_record

FILE: Final = "flows.jsonl"
FILE_SIZE_BYTES: Final = 8 << 20  # then it becomes flows.jsonl.1, and a new one is begun
_MOST_WAITING: Final = 1000  # records that wait for the server
_MOST_GROUPS: Final = 32
_PAUSE_S: Final = 0.5  # between two reports at least
_REASON: Final = {
    Refusal.SPOOFED: "spoofed",
    Refusal.MARTIAN: "martian",
    Refusal.ROGUE: "rogue",
    Refusal.STRAY: "mid-stream",
    Refusal.LINK: "forwarded discovery",
    Refusal.CLOSED: "closed port",
    Refusal.DENIED_IN: "default ingress",
    Refusal.DENIED_OUT: "default egress",
}
_DIRECTION: Final = {Refusal.DENIED_IN: Direction.INGRESS, Refusal.DENIED_OUT: Direction.EGRESS}


class FlowLog:
    """Owns the file and what waits for the server. ``problem`` says why the file is not written, if so."""

    def __init__(self, packets: PacketsDoor, files: FilesDoor, clock: Clock, folder: Path) -> None:
        self._packets = packets
        self._files = files
        self._clock = clock
        self._file = folder / FILE
        self._waiting: deque[FlowRecord] = deque()
        self._untold = 0
        self.problem: str | None = None

    async def follow(self, in_force: Callable[[], HostView]) -> None:
        """Wait until the kernel tells of something, and take note of it by the view that is in force then."""
        await self._packets.wait()
        records = tuple(self._records(self._packets.take(), in_force()))
        self._keep(records)
        self._waiting += records
        while len(self._waiting) > _MOST_WAITING:
            self._waiting.popleft()
            self._untold += 1

    async def send(self, server: Server) -> None:
        """What waits, in bounded reports; after a failure it still waits. Raises ``OperatorError``."""
        await self._clock.sleep(_PAUSE_S)
        while self._waiting or self._untold:
            some = tuple(self._waiting)[:MOST_RECORDS]
            untold = self._untold
            await server.flows(FlowReport(some, untold))
            self._untold -= untold
            for record in some:
                if self._waiting and self._waiting[0] is record:  # else it made room for a newer one meanwhile
                    self._waiting.popleft()

    def _records(self, told: Iterable[Told], view: HostView) -> Iterable[FlowRecord]:
        ends = {str(end.interface): end for end in view.endpoints}
        for one in told:
            meaning, interface = parse_log_prefix(one.prefix), self._packets.interface(one.index)
            if meaning is not None and interface is not None and one.packet is not None:
                end = ends.get(interface) or _bridged_end(one, view)
                # What comes in by an uplink enters the host that is its own instance.
                leaves = one.leaves is not (end is not None and end.kind is Kind.SELF)
                yield make_record(one.packet, *meaning, Place(interface, end, leaves, self._clock.now()), view)

    def _keep(self, records: Iterable[FlowRecord]) -> None:
        lines = b"".join(map(encode_record, records))
        if not lines:
            return
        try:
            self._files.append(self._file, lines, most_bytes=FILE_SIZE_BYTES)
        except OperatorError as error:
            self.problem = f"{error}; refused packets are not logged"
        else:
            self.problem = None


def _bridged_end(told: Told, view: HostView) -> Endpoint | None:
    """Behind a bridge the interface is the bridge: whose packet it was only its address says."""
    if told.packet is None:
        return None
    address = told.packet.source if told.leaves else told.packet.destination
    return next((end for end in view.endpoints if end.kind is Kind.BRIDGED and address in end.addresses), None)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a packet was judged, and when (seconds since 1970); ``leaves``: on its way out of the instance."""

    interface: str
    end: Endpoint | None
    leaves: bool
    at: float


def make_record(packet: Packet, refusal: Refusal, fate: Fate, place: Place, view: HostView) -> FlowRecord:
    """The record of one refused packet."""
    direction = Direction.EGRESS if place.leaves else Direction.INGRESS
    peer = packet.destination if place.leaves else packet.source
    has_ports, has_types = packet.protocol in (TCP, UDP), packet.protocol in (ICMP, ICMPV6)
    return FlowRecord(
        at=round(place.at, 3),
        interface=place.interface,
        instance=place.end.instance if place.end else None,
        direction=_DIRECTION.get(refusal, direction),
        verdict=fate.value,
        reason=_REASON[refusal],
        protocol=packet.protocol,
        source=str(packet.source),
        destination=str(packet.destination),
        source_port=packet.source_port if has_ports else None,
        destination_port=packet.destination_port if has_ports else None,
        icmp_type=packet.icmp_type if has_types else None,
        icmp_code=packet.icmp_code if has_types else None,
        peer_groups=_groups_of(peer, place.end, view) if place.end else (),
    )


def _groups_of(peer: Address, end: Endpoint, view: HostView) -> tuple[GroupId, ...]:
    """Of the groups that rules of the endpoint name as a peer, those that the address is in."""
    rules = (rule for group in end.groups for rule in view.rules.get(group, ()))
    named = sorted({rule.peer.group for rule in rules if isinstance(rule.peer, GroupPeer)})
    return tuple(group for group in named if group in view.peers and peer in view.peers[group])[:_MOST_GROUPS]
