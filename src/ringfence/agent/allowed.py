"""Allowed connections, as records of the flow log and as counts for the rules that allowed them.

Input: conntrack's events, and the view in force. Output: records, rate-limited for each instance, and gains of rules.
``verdict`` tells which rule it was, for it evaluates rules in the kernel's order. This takes at most half of the
agent's time: what comes faster is lost in the kernel's queue, and counted there.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ringfence.agent.counters import Gain
from ringfence.agent.doors.clock import Clock
from ringfence.agent.doors.connections import ConnectionsDoor
from ringfence.agent.flows import EVERYWHERE, FlowLog, Side, make_record, summary
from ringfence.nft.connections import Connection
from ringfence.policy.local import Lifelines
from ringfence.policy.meter import Meter
from ringfence.policy.packet import Packet
from ringfence.policy.values import Direction, InstanceId, Kind, RuleId
from ringfence.policy.verdict import Allowance, Default, SideVerdict, judge
from ringfence.policy.view import Endpoint, HostView
from ringfence.wire.flows import ALLOWED, DEFAULT_EGRESS, FlowRecord

RATE: Final = 20  # records a second for one instance
BURST: Final = 100  # and how many at once after a silence
_MOST_KNOWN: Final = 10_000  # cached answers
_PAUSE_AFTER_S: Final = 0.001  # shorter work is not worth a pause
_REASON: Final = {
    Default.EGRESS_OPEN: DEFAULT_EGRESS,
    Default.LINK: "own link",
    Default.FAILSAFE: "failsafe port",
    Default.CHANNEL: "agent channel",
}
_RULE: Final = "rule"
_UNKNOWN: Final = "unattributed"  # the rules changed since it was judged, or it touched no managed interface


@dataclass(frozen=True, slots=True)
class Allowed:
    """Why one side allowed a connection: ``rule``, or without one ``reason``."""

    end: Endpoint
    direction: Direction
    reason: str
    rule: RuleId | None = None


class Attribution:
    """Finds what allowed a connection, by the view last given to ``use``; caches answers until that changes."""

    def __init__(self) -> None:
        self.view: HostView | None = None
        self._lifelines = Lifelines()
        self._ends: dict[bytes, Endpoint] = {}
        self._known: dict[tuple[object, ...], tuple[Allowed, ...]] = {}

    def use(self, view: HostView, lifelines: Lifelines) -> None:
        if view is self.view and lifelines == self._lifelines:
            return
        self.view, self._lifelines, self._known = view, lifelines, {}
        owned = [(address.packed, end) for end in view.endpoints for address in end.own_addresses]
        instances = {(packed, end.instance) for packed, end in owned}
        times = Counter(packed for packed, _ in instances)
        self._ends = {packed: end for packed, end in owned if times[packed] == 1}  # others cannot be told apart

    def sides(self, connection: Connection) -> tuple[Allowed, ...]:
        """The managed sides of a connection; none if it is between others. O(rules) for one that is not cached."""
        one, back = connection.original, connection.reply
        found = [self._ends.get(packed) for packed in (one.source, one.destination, back.source, back.destination)]
        if self.view is None or not any(found):
            return ()
        ports = connection.protocol, one.destination_port, back.source_port, connection.icmp_type, connection.icmp_code
        key = (*ports, one.source, one.destination, back.source, back.destination)
        if key not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = tuple(self._judge(connection, found))
        return self._known[key]

    def _judge(self, connection: Connection, found: list[Endpoint | None]) -> Iterator[Allowed]:
        sender, asked, reached, sender_shown = found
        host = next((end for end in (sender, asked, sender_shown) if end and end.kind is Kind.SELF), None)
        if host is None:
            yield from self._said(connection.reached, sender, reached)
        elif (sender or sender_shown) is not None and asked is None:
            yield from self._said(connection.reached, sender or sender_shown, None, from_host=sender is not None)
        elif sender is None:
            yield from self._said(connection.asked, None, asked)

    def _said(
        self, packet: Packet, source: Endpoint | None, destination: Endpoint | None, *, from_host: bool = True
    ) -> Iterator[Allowed]:
        if self.view is None:
            return
        verdict = judge(
            self.view, packet, source=source, destination=destination, from_host=from_host, lifelines=self._lifelines
        )
        for side in (verdict.egress, verdict.ingress):
            if side is not None and (side.allowed or not side.endpoint.observe):  # else it was logged as a would-drop
                yield _allowed(side)


def _allowed(side: SideVerdict) -> Allowed:
    if isinstance(side.reason, Allowance):
        return Allowed(side.endpoint, side.direction, _RULE, side.reason.rule.id)
    reason = _REASON.get(side.reason, _UNKNOWN)
    return Allowed(side.endpoint, side.direction, reason)


class AllowedLog:
    """Records allowed connections in the flow log, and counts them for their rules."""

    def __init__(self, connections: ConnectionsDoor, flows: FlowLog, clock: Clock) -> None:
        self._connections = connections
        self._flows = flows
        self._clock = clock
        self._gains: dict[RuleId, Gain] = {}
        self._attribution = Attribution()
        self._meter = Meter(RATE, BURST)
        self._denied = Counter[InstanceId]()  # records over the rate limit
        self._lost = 0
        self._on = False

    def listen(self, *, on: bool) -> None:
        """Starts or stops listening to conntrack. Raises ``OperatorError``."""
        if on is not self._on:
            self._connections.listen(on=on)
            self._on = on

    async def follow(self, in_force: Callable[[], tuple[HostView, Lifelines]]) -> None:
        """Waits until connections begin or end, and records them by the view that is in force then."""
        await self._connections.wait()
        began = self._clock.monotonic()
        self._attribution.use(*in_force())
        self._flows.note([record for one in self._connections.take() for record in self._take(one)])
        took = self._clock.monotonic() - began
        if took > _PAUSE_AFTER_S:
            await self._clock.sleep(took)

    def take_gains(self) -> dict[RuleId, Gain]:
        """What rules gained since the last call."""
        gains, self._gains = self._gains, {}
        return gains

    def note_denied(self) -> None:
        """Records how many connections have no record since the last call: over the limit, or events were lost."""
        now, ends = self._clock.now(), {end.instance: end for end in self._endpoints}
        records = [
            summary(now, end.interface, end, ALLOWED, denied)
            for instance, denied in self._denied.items()
            if (end := ends.get(instance))
        ]
        self._denied.clear()
        lost = self._connections.lost()
        if lost != self._lost:
            records.append(summary(now, EVERYWHERE, None, ALLOWED, (lost - self._lost) & 0xFFFFFFFF))
            self._lost = lost
        self._flows.note(records)

    @property
    def _endpoints(self) -> tuple[Endpoint, ...]:
        return self._attribution.view.endpoints if self._attribution.view else ()

    def _take(self, connection: Connection) -> Iterator[FlowRecord]:
        sides, now = self._attribution.sides(connection), self._clock.now()
        for side in sides:
            if side.rule is not None:
                self._count(side.rule, connection)
            if not connection.ended and self._attribution.view and self._has_room(side.end.instance):
                packet = connection.asked if side.end.kind is Kind.SELF else connection.reached
                place = Side(str(side.end.interface), side.end, side.direction, now)
                yield make_record(packet, place, ALLOWED, side.reason, view=self._attribution.view, rule=side.rule)

    def _count(self, rule: RuleId, connection: Connection) -> None:
        gain = self._gains.setdefault(rule, Gain())
        if not connection.ended:
            gain.connections += 1
        elif connection.packets is not None and connection.octets is not None:
            gain.packets = (gain.packets or 0) + connection.packets
            gain.octets = (gain.octets or 0) + connection.octets

    def _has_room(self, instance: InstanceId) -> bool:
        if self._meter.take(instance, self._clock.monotonic()):
            self._denied[instance] += 1
            return False
        return True
