"""The flow log: what was refused and what was allowed, as lines of a file and as reports to the server.

Input: records of ``refused`` and ``allowed``. Output: a file, and reports. Records that cannot be sent in time are
dropped and counted, those that cannot be written are dropped, for nothing may grow without bound. The file is written
by a thread: who waits for a disk that hangs must be nobody else.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from ringfence.agent.client import Server
from ringfence.agent.doors.clock import Clock
from ringfence.agent.doors.files import FilesDoor
from ringfence.agent.worker import Worker
from ringfence.policy.errors import OperatorError
from ringfence.policy.model import GroupPeer
from ringfence.policy.packet import ICMP, ICMPV6, TCP, UDP, Packet
from ringfence.policy.values import Address, Direction, GroupId, InstanceId, RuleId
from ringfence.policy.view import Endpoint, HostView
from ringfence.wire.flows import MOST_RECORDS, RATE_LIMIT, FlowRecord, FlowReport, encode_record

FILE: Final = "flows.jsonl"
FILE_SIZE_BYTES: Final = 8 << 20  # then it becomes flows.jsonl.1, and a new one is begun
_MOST_WAITING: Final = 1000  # records that wait for the server
_MOST_UNWRITTEN_BYTES: Final = 1 << 20  # lines that wait for the disk
_MOST_GROUPS: Final = 32
_PAUSE_S: Final = 0.5  # between two reports at least
EVERYWHERE: Final = "*"  # in place of an interface: the whole host


class FlowLog:
    """Owns the file and the records that wait for the server. ``problem`` says why the file is not written, if so."""

    def __init__(self, files: FilesDoor, clock: Clock, folder: Path, *, file: Path | None = None) -> None:
        """``file``: the operator's own, which another program rotates; without it one in ``folder``."""
        self._files = files
        self._clock = clock
        self._file = file or folder / FILE
        self._most_bytes = None if file else FILE_SIZE_BYTES
        self._unwritten = bytearray()
        self._to_write = asyncio.Event()
        self._waiting: deque[FlowRecord] = deque()
        self._untold = 0
        self.problem: str | None = None

    def note(self, records: Collection[FlowRecord]) -> None:
        """Queues records for the file and for the server."""
        self._queue(records)
        self._waiting += records
        while len(self._waiting) > _MOST_WAITING:
            self._waiting.popleft()
            self._untold += 1

    async def send(self, server: Server) -> None:
        """Sends what is queued, in bounded reports. Raises ``OperatorError``; what was not sent stays queued."""
        await self._clock.sleep(_PAUSE_S)
        while self._waiting or self._untold:
            some = tuple(self._waiting)[:MOST_RECORDS]
            untold = self._untold
            await server.flows(FlowReport(some, untold))
            self._untold -= untold
            for record in some:
                if self._waiting and self._waiting[0] is record:  # else it made room for a newer one meanwhile
                    self._waiting.popleft()

    async def write(self, disk: Worker) -> None:
        """Waits for records, and appends them to the file."""
        await self._to_write.wait()
        await disk.do(self._append, self._take())

    def flush(self) -> None:
        """Appends what still waits for the file; nobody else may be writing."""
        self._append(self._take())

    def _queue(self, records: Iterable[FlowRecord]) -> None:
        for line in map(encode_record, records):
            if len(self._unwritten) + len(line) > _MOST_UNWRITTEN_BYTES:
                self.problem = f"write {self._file}: the disk does not keep up; records are lost from the flow log"
                return
            self._unwritten += line
            self._to_write.set()

    def _take(self) -> bytes:
        self._to_write.clear()
        lines, self._unwritten = bytes(self._unwritten), bytearray()
        return lines

    def _append(self, lines: bytes) -> None:
        if not lines:
            return
        try:
            self._files.append(self._file, lines, most_bytes=self._most_bytes)
        except OperatorError as error:
            self.problem = f"{error}; the flow log is not written"
        else:
            self.problem = None


def summary(at: float, interface: str, end: Endpoint | None, verdict: str, packets: int) -> FlowRecord:
    """The record that stands for so many packets, or connections, that have no record of their own."""
    instance = end.instance if end else None
    return FlowRecord(round(at, 3), interface, instance, None, verdict, RATE_LIMIT, packets=packets)


@dataclass(frozen=True, slots=True)
class Side:
    """The interface and endpoint that judged a packet, its direction, and the time (seconds since 1970)."""

    interface: str
    end: Endpoint | None
    direction: Direction
    at: float

    @property
    def head(self) -> tuple[float, str, InstanceId | None, Direction]:
        """The first fields of its records."""
        return round(self.at, 3), self.interface, self.end.instance if self.end else None, self.direction


def make_record(
    packet: Packet, side: Side, verdict: str, reason: str, *, view: HostView, rule: RuleId | None = None
) -> FlowRecord:
    """The record of one side's verdict on a packet."""
    peer = packet.destination if side.direction is Direction.EGRESS else packet.source
    has_ports, has_types = packet.protocol in (TCP, UDP), packet.protocol in (ICMP, ICMPV6)
    return FlowRecord(
        *side.head,
        verdict,
        reason,
        protocol=packet.protocol,
        source=str(packet.source),
        destination=str(packet.destination),
        source_port=packet.source_port if has_ports else None,
        destination_port=packet.destination_port if has_ports else None,
        icmp_type=packet.icmp_type if has_types else None,
        icmp_code=packet.icmp_code if has_types else None,
        peer_groups=_groups_of(peer, side.end, view) if side.end else (),
        rule=rule,
    )


def make_frame_record(
    ends: tuple[IPv4Address, IPv4Address] | None, side: Side, verdict: str, reason: str
) -> FlowRecord:
    """The record of a verdict on a frame that is not IP; ``ends``: sender and target, if it is ARP."""
    source, destination = (None, None) if ends is None else map(str, ends)
    return FlowRecord(*side.head, verdict, reason, source=source, destination=destination)


def _groups_of(peer: Address, end: Endpoint, view: HostView) -> tuple[GroupId, ...]:
    """The groups with that address, among those that the endpoint's rules name as peers."""
    rules = (rule for group in end.groups for rule in view.rules.get(group, ()))
    named = sorted({rule.peer.group for rule in rules if isinstance(rule.peer, GroupPeer)})
    return tuple(group for group in named if group in view.peers and peer in view.peers[group])[:_MOST_GROUPS]
