"""Refused packets, as records of the flow log.

Input: the packets that the kernel logs, its tallies, and the view in force. Output: records. The kernel limits the
logging of each port by itself, so that a flood at one port does not silence the others; what is over the limit is
counted in tallies, and recorded as a number.
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
    """Records refused packets in the flow log; while ``on`` is False it takes them from the kernel and drops them."""

    def __init__(self, packets: PacketsDoor, flows: FlowLog, clock: Clock) -> None:
        self._packets = packets
        self._flows = flows
        self._clock = clock
        self.on = True
        self._told: Counter[_Port] = Counter()  # packets with a record, of their own or in a sum
        self._counted: Counter[_Port] = Counter()  # what the tallies grew by when they were read last
        self._long_told: frozenset[_Port] = frozenset()  # the ports of ``_told`` at the last call
        self._seen: Mapping[_Port, int] | None = None  # the tallies then; None: not read yet

    async def follow(self, in_force: Callable[[], HostView]) -> None:
        """Waits until the kernel logs packets, and records them by the view that is in force then."""
        await self._packets.wait()
        told = self._packets.take()
        if self.on:
            self._flows.note(tuple(self._records(told, in_force())))

    def note_tallies(self, tallies: Mapping[_Port, int], view: HostView) -> None:
        """Records how many packets have no record of their own. Called every few seconds.

        A packet that was counted at the previous call and has no record by now will never have one: the kernel does
        not hold packets back for so long.
        """
        if not self.on or self._seen is None:
            self._told.clear()
            self._counted.clear()
            self._seen = tallies if self.on else None
            return
        missing = self._counted - self._told
        # What is left was told before it was counted. Of ports that are gone, which may be any number, nothing is kept.
        left = (self._told + missing - self._counted).items()
        self._told = Counter({port: n for port, n in left if port in tallies or port not in self._long_told})
        self._long_told = frozenset(self._told)
        self._counted.clear()
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
    # At a self host, what comes in by an uplink enters the instance.
    leaves = told.leaves is not (end is not None and end.kind is Kind.SELF)
    return _DIRECTION.get(refusal, Direction.EGRESS if leaves else Direction.INGRESS)


def _bridged_end(told: Told, view: HostView) -> Endpoint | None:
    """The endpoint of a packet behind a bridge: there the interface is the bridge, and only the address tells."""
    if told.packet is None:
        return None
    address = told.packet.source if told.leaves else told.packet.destination
    return next((end for end in view.endpoints if end.kind is Kind.BRIDGED and address in end.addresses), None)
