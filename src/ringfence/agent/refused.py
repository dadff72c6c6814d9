"""What the kernel tells of refused packets, as records of the flow log.

Input: the kernel's words, its tallies, and which view is in force. Output: records. Each port has its own limit in the
kernel, so that a flood at one costs no other its log; what is beyond it is counted there, and told of as a number.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from ringfence.agent.doors.clock import Clock
from ringfence.agent.doors.packets import PacketsDoor
from ringfence.agent.flows import FlowLog, Side, make_frame_record, make_record, summary
from ringfence.nft.packetlog import Told
from ringfence.policy.packet import Packet, answered_by
from ringfence.policy.program.refusal import FATE_OF, Fate, Refusal, parse_log_prefix, tally_of
from ringfence.policy.values import Direction, Kind
from ringfence.policy.view import Endpoint, HostView
from ringfence.wire.flows import DEFAULT_EGRESS, DEFAULT_INGRESS, FlowRecord

_REASON: Final = {
    Refusal.SPOOFED: "spoofed",
    Refusal.MARTIAN: "martian",
    Refusal.ROGUE: "rogue",
    Refusal.STRAY: "mid-stream",
    Refusal.LINK: "forwarded discovery",
    Refusal.CLOSED: "closed port",
    Refusal.DENIED_IN: DEFAULT_INGRESS,
    Refusal.DENIED_OUT: DEFAULT_EGRESS,
    Refusal.SPOOFED_FRAME: "spoofed",
    Refusal.ROGUE_FRAME: "rogue",
    Refusal.ALIEN_FRAME: "alien",
    Refusal.CLOSED_FRAME: "closed port",
}
_Port = tuple[str, str]  # a tally's name, and an interface
_DIRECTION: Final = {Refusal.DENIED_IN: Direction.INGRESS, Refusal.DENIED_OUT: Direction.EGRESS}


class RefusedLog:
    """Takes note of refused packets in the flow log; with ``on`` False it hears them and says nothing."""

    def __init__(self, packets: PacketsDoor, flows: FlowLog, clock: Clock) -> None:
        self._packets = packets
        self._flows = flows
        self._clock = clock
        self.on = True
        self._told: Counter[_Port] = Counter()  # and summed up
        self._counted: Counter[_Port] = Counter()  # what the tallies grew by until they were read last
        self._seen: Mapping[_Port, int] | None = None  # what they said then; None: they were not read yet

    async def follow(self, in_force: Callable[[], HostView]) -> None:
        """Wait until the kernel tells of something, and take note of it by the view that is in force then."""
        await self._packets.wait()
        told = self._packets.take()
        if self.on:
            self._flows.note(tuple(self._records(told, in_force())))

    def note_tallies(self, tallies: Mapping[_Port, int], view: HostView) -> None:
        """Take note of what was not told one by one. Called every few seconds.

        What was counted at the call before and is not told yet will never be: the kernel holds nothing back so long.
        """
        if not self.on or self._seen is None:
            self._told.clear()
            self._counted.clear()
            self._seen = tallies if self.on else None
            return
        missing = self._counted - self._told
        self._told += missing
        for port, packets in tallies.items():
            before = self._seen.get(port, 0)
            self._counted[port] += packets - before if packets >= before else packets
        self._seen = tallies
        self._flows.note(tuple(self._summaries(missing, view)))

    def _summaries(self, missing: Counter[_Port], view: HostView) -> Iterator[FlowRecord]:
        ends = {str(end.interface): end for end in view.endpoints}
        for (tally, interface), packets in sorted(missing.items()):
            yield summary(self._clock.now(), interface, ends.get(interface), FATE_OF[tally].value, packets)

    def _records(self, told: Iterable[Told], view: HostView) -> Iterator[FlowRecord]:
        ends = {str(end.interface): end for end in view.endpoints}
        for one in told:
            meaning = parse_log_prefix(one.prefix)
            if meaning is None:
                continue
            refusal, fate = meaning
            interface = self._packets.interface(one.port or 0 if refusal.is_of_frames else one.index)
            if interface is not None and (one.packet is not None or refusal.is_of_frames):
                self._told[tally_of(refusal, fate), interface] += 1
                end = ends.get(interface) or _bridged_end(one, view)
                side = Side(interface, end, _direction(refusal, one, end), self._clock.now())
                yield _record(one, side, fate, _REASON[refusal], view)


def _record(told: Told, side: Side, fate: Fate, reason: str, view: HostView) -> FlowRecord:
    if told.packet is not None:
        return make_record(_as_begun(told.packet, side), side, fate.value, reason, view=view)
    return make_frame_record(told.arp, side, fate.value, f"{reason} arp" if told.arp else reason)


def _as_begun(packet: Packet, side: Side) -> Packet:
    """What an answer answers: a flow is judged by its beginning, and nobody wants rules for callers' ports."""
    own = side.end.addresses if side.end else ()
    near, far = packet.source, packet.destination
    if side.direction is Direction.INGRESS:
        near, far = far, near
    return answered_by(packet) if far in own and near not in own else packet


def _direction(refusal: Refusal, told: Told, end: Endpoint | None) -> Direction:
    # What comes in by an uplink enters the host that is its own instance.
    leaves = told.leaves is not (end is not None and end.kind is Kind.SELF)
    return _DIRECTION.get(refusal, Direction.EGRESS if leaves else Direction.INGRESS)


def _bridged_end(told: Told, view: HostView) -> Endpoint | None:
    """Behind a bridge the interface is the bridge: whose packet it was only its address says."""
    if told.packet is None:
        return None
    address = told.packet.source if told.leaves else told.packet.destination
    return next((end for end in view.endpoints if end.kind is Kind.BRIDGED and address in end.addresses), None)
