"""The kernel's side of an abstract program, in a page: what the chains say of a packet that crosses this host.

Follows nft(8) and nothing of ringfence's own verdict: a line is read left to right, ``goto`` does not come back,
``jump`` does, a base chain that says nothing lets pass. A field that a packet lacks ends its line.
"""

from dataclasses import dataclass, field, replace
from typing import assert_never

from ringfence.policy.packet import TCP, UDP, Packet, Tracking, tracking_of
from ringfence.policy.program.model import (
    ETHERNET,
    ORIGINAL,
    REPLY,
    Accept,
    Between,
    Count,
    CountBy,
    Differs,
    Dispatch,
    Drop,
    Equal,
    Field,
    Foreign,
    Fresh,
    Goto,
    Has,
    HookName,
    InState,
    Jump,
    Lacks,
    Log,
    Masked,
    Member,
    NotOpening,
    Program,
    Seldom,
    Stamp,
    StartsWith,
    State,
    Within,
)
from ringfence.policy.program.names import TableFamily, place_of

_CONNTRACK_PRIORITY = -200
_ACTIONS = (Count, Seldom, Log, Stamp, Dispatch, Jump, Goto, Accept, Drop)
_STATES = {
    Tracking.FLOW: State.NEW,
    Tracking.STRAY: State.NEW,  # taken up in mid-stream (nf_conntrack_tcp_loose)
    Tracking.NONE: State.INVALID,
    Tracking.LINK: State.UNTRACKED,
}


@dataclass(slots=True)
class Flow:
    """A conntrack entry: its first packet, and the generation in its mark (0: never stamped)."""

    first: Packet
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Crossing:
    """A packet and its way. An empty ``came_by``: this host made it; an empty ``goes_by``: this host is meant.

    The host's own neighbour discovery is ``made_here`` although it names the port as ``came_by`` (ndisc_alloc_skb).
    """

    packet: Packet
    came_by: str
    goes_by: str
    mac: str
    state: State
    flow: Flow | None = None
    way: int = ORIGINAL
    hop_limit: int = 255
    made_here: bool = False

    @property
    def is_forwarded(self) -> bool:
        return bool(self.came_by) and not self.made_here


@dataclass(slots=True)
class Outcome:
    """Whether the packet passed every hook, and the counters it went by."""

    passed: bool = True
    counters: list[str] = field(default_factory=list)


def open_crossing(packet, *, came_by, goes_by, mac=""):
    """The first packet of a would-be flow."""
    tracking = tracking_of(packet)
    flow = Flow(packet) if tracking in (Tracking.FLOW, Tracking.STRAY) else None
    return Crossing(packet, came_by, goes_by, mac, _STATES[tracking], flow)


def again(crossing):
    """A later packet of the same flow, the same way."""
    return replace(crossing, state=State.ESTABLISHED)


def answered(crossing, *, mac=""):
    """A reply: the same flow, every end swapped."""
    first = crossing.packet
    reply = replace(
        first,
        source=first.destination,
        destination=first.source,
        source_port=first.destination_port,
        destination_port=first.source_port,
        icmp_type={8: 0, 13: 14, 15: 16, 17: 18, 128: 129, 139: 140}.get(first.icmp_type, first.icmp_type),
    )
    return replace(
        crossing,
        packet=reply,
        came_by=crossing.goes_by,
        goes_by=crossing.came_by,
        mac=mac,
        state=State.ESTABLISHED,
        way=REPLY,
    )


def hooks_of(crossing: Crossing) -> list[HookName]:
    """Where a packet is judged on its way."""
    return [
        *([HookName.PREROUTING] if crossing.is_forwarded else []),
        *([HookName.POSTROUTING] if crossing.goes_by else []),
    ]


def simulate(program: Program, crossing: Crossing, generation: int, *hooks: HookName) -> Outcome:
    """What becomes of the packet, at these hooks or at all; the flow is stamped where the program says so."""
    outcome = Outcome()
    hooked = ((name, chain.hook) for name, chain in program.chains.items() if chain.hook)
    bases = sorted((at.priority, name, at.name) for name, at in hooked if place_of(name)[0] is TableFamily.INET)
    for hook in hooks or hooks_of(crossing):
        for priority, name, at in bases:
            if at is not hook:
                continue
            run = _Run(program, crossing, hook, generation, outcome, tracked=priority > _CONNTRACK_PRIORITY)
            if run.chain(name) is False:
                outcome.passed = False
                return outcome
    return outcome


@dataclass(slots=True)
class _Run:
    """One base chain asked about one packet. Answers: True accept, False drop, None nothing said."""

    program: Program
    crossing: Crossing
    hook: HookName
    generation: int
    outcome: Outcome
    tracked: bool
    _read: dict[Field, object] = field(default_factory=dict)  # what lines asked before

    def chain(self, name, depth=0):
        assert depth < 16, f"the kernel allows 16 jumps: {name}"
        for line in self.program.chains[name].lines:
            said = self.line(line)
            match said:
                case None:
                    continue
                case Accept():
                    return True
                case Drop():
                    return False
                case Goto(target):
                    return self.chain(target, depth + 1)
                case Jump(target):
                    answer = self.chain(target, depth + 1)
                    if answer is not None:
                        return answer
        return None

    def line(self, line):
        """The verdict that the line ends in, or None when a part does not match or it has none."""
        for part in line.parts:
            if not isinstance(part, _ACTIONS):
                if not self.matches(part):
                    return None
                continue
            match part:
                case Count(counter):
                    assert counter in self.program.counters
                    self.outcome.counters.append(counter)
                case Seldom() | Log():
                    pass
                case Stamp():
                    self.crossing.flow.generation = self.generation
                case Dispatch(field=key, map=name):
                    target = self.program.maps[name].targets.get(self.value(key))
                    if target is not None:
                        return Jump(target)
                    return None
                case Jump() | Goto() | Accept() | Drop():
                    return part
                case _:
                    assert_never(part)
        return None

    def matches(self, part):
        match part:
            case Equal() | Differs() | Between() | Masked() | Within() | StartsWith():
                value = self.value(part.field)
                if part.field is Field.ETHER_SOURCE:
                    value = int(value.replace(":", "") or "0", 16)
                return value is not None and _holds(part, value)
            case Has() | Lacks():
                return isinstance(part, Lacks)  # no packet here has such a header
            case InState(states):
                return (self.crossing.state if self.tracked else State.INVALID) in states
            case Fresh():
                flow = self.crossing.flow if self.tracked else None
                return flow is not None and flow.generation == self.generation
            case NotOpening():
                return self.crossing.packet.protocol == 6 and not self.crossing.packet.opening
            case Member(fields, name) | CountBy(fields, name):
                values = tuple(self.value(each) for each in fields)
                return None not in values and self.member(values, self.program.sets[name])
            case Foreign():
                raise AssertionError(f"not ours: {part}")
            case _:
                assert_never(part)

    def member(self, values, set_):
        if set_.counted:
            found = [one.counter for one in set_.elements if all(map(_spans, one.key, values))]
            assert len(found) <= 1, "elements overlap"
            self.outcome.counters += found
            return bool(found)
        if set_.interval:
            return any(values[0] in interval for interval in set_.elements)
        return values in set_.elements

    def value(self, wanted: Field):
        if wanted not in self._read:
            self._read[wanted] = self.read(wanted)
        return self._read[wanted]

    def read(self, wanted: Field):  # noqa: C901, PLR0911, PLR0912  one arm per field
        if wanted.value.startswith("flow-") or wanted is Field.DIRECTION:
            return self.flow_value(wanted) if self.tracked and self.crossing.flow else None
        packet, before_routing = self.crossing.packet, self.hook is HookName.PREROUTING
        family = packet.family
        match wanted:
            case Field.IN_INTERFACE:
                return self.crossing.came_by
            case Field.OUT_INTERFACE:
                return "" if before_routing else self.crossing.goes_by
            case Field.IN_INDEX:
                return int(bool(self.crossing.came_by))
            case Field.OUT_INDEX:
                return int(not before_routing)
            case Field.IN_TYPE:
                return ETHERNET
            case Field.FAMILY:
                return family
            case Field.PROTOCOL:
                return packet.protocol
            case Field.HOP_LIMIT6:
                lowered = not before_routing and self.crossing.is_forwarded
                return self.crossing.hop_limit - lowered if family == 6 else None
            case Field.FIRST_OCTET:
                return 0x45 if family == 4 else 0x60
            case Field.NEXT_HEADER6:
                return packet.protocol if family == 6 else None
            case Field.ETHER_SOURCE:
                return self.crossing.mac if before_routing else None
            case Field.SOURCE4 | Field.SOURCE6:
                return packet.source if wanted.value.endswith(str(family)) else None
            case Field.DESTINATION4 | Field.DESTINATION6:
                return packet.destination if wanted.value.endswith(str(family)) else None
        return self.transport_value(wanted)

    def transport_value(self, wanted):
        packet = self.crossing.packet
        if wanted in (Field.SOURCE_PORT, Field.DESTINATION_PORT):
            if packet.protocol not in (TCP, UDP):
                return _AnyPort()
            return packet.source_port if wanted is Field.SOURCE_PORT else packet.destination_port
        kind, _, part = wanted.value.partition("-")
        assert packet.protocol == {"icmp": 1, "icmpv6": 58}[kind], "the type of something else was read"
        return {"type": packet.icmp_type, "code": packet.icmp_code}[part]

    def flow_value(self, wanted):
        first = self.crossing.flow.first
        match wanted:
            case Field.DIRECTION:
                return self.crossing.way
            case Field.FLOW_PORT:
                return first.destination_port
            case Field.FLOW_ASKED_PORT:
                has_ports = first.protocol in (TCP, UDP)
                return first.destination_port if has_ports else first.icmp_type << 8 | first.icmp_code
            case Field.FLOW_SOURCE4 | Field.FLOW_SOURCE6:
                return first.source if wanted.value.endswith(str(first.family)) else None
            case _:
                return first.destination if wanted.value.endswith(str(first.family)) else None


class _AnyPort:
    """Where another protocol has no ports stands what its sender likes: it would be whatever a line asks for."""

    def __eq__(self, _other):
        return True

    def __hash__(self):
        return 0

    def __and__(self, _mask):
        return self


def _spans(span, value):
    return value == span if isinstance(span, str) else span.first <= int(value) <= span.last


def _holds(part, value):
    match part:
        case Equal(_, wanted):
            return value == wanted
        case Differs(_, unwanted):
            return value != unwanted
        case Between(_, first, last):
            return first <= value <= last
        case Masked(_, mask, wanted):
            return value & mask == wanted
        case Within(_, network):
            return value in network
        case StartsWith(_, prefix):
            return value.startswith(prefix)
        case _:
            assert_never(part)
