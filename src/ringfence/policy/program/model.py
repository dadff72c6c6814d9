"""The abstract dataplane program: sets, verdict maps, counters and chains of lines in a small closed vocabulary.

``compile`` makes one from a view, ``delta`` compares two, ``nft`` turns one into netlink bytes or text and reads it
back. A line is read left to right: every match must hold for the next part to be reached, as in nft(8).
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType

from ringfence.policy.addresses import Interval
from ringfence.policy.program.names import TableFamily, place_of
from ringfence.policy.values import Network


class Field(Enum):
    """What of a packet, or of the flow it belongs to, can be looked at.

    FLOW_ fields come from conntrack and are the same for both directions of a flow: the source as the first packet had
    it, the destination as it is after address translation. So a rule judges replies by the flow they belong to.
    """

    IN_INTERFACE = "in-interface"
    OUT_INTERFACE = "out-interface"
    IN_INDEX = "in-index"  # 0 when this host made the packet
    OUT_INDEX = "out-index"  # 0 before routing
    FAMILY = "family"  # 4 or 6
    PROTOCOL = "protocol"  # IANA number; for IPv6 the one after extension headers, of which AH is none
    DIRECTION = "direction"  # ORIGINAL or REPLY of the flow
    ETHER_SOURCE = "ether-source"
    ETHER_DESTINATION = "ether-destination"
    ETHER_TYPE = "ether-type"  # of the frame itself: that of a tag, when it has one
    ARP_HEADER = "arp-header"  # hardware type, protocol type and both lengths
    ARP_OPERATION = "arp-operation"
    ARP_SENDER_ETHER = "arp-sender-ether"
    ARP_SENDER4 = "arp-sender4"
    ARP_TARGET4 = "arp-target4"
    SOURCE4 = "source4"
    SOURCE6 = "source6"
    DESTINATION4 = "destination4"
    DESTINATION6 = "destination6"
    LENGTH6 = "length6"  # octets after the fixed header
    NEXT_HEADER6 = "next-header6"  # of the fixed header
    HOP_LIMIT6 = "hop-limit6"
    FLOW_SOURCE4 = "flow-source4"
    FLOW_SOURCE6 = "flow-source6"
    FLOW_DESTINATION4 = "flow-destination4"
    FLOW_DESTINATION6 = "flow-destination6"
    FLOW_PORT = "flow-port"  # destination port of the flow, after translation
    FLOW_ASKED_PORT = "flow-asked-port"  # as the flow's first packet had it; for ICMP its type * 256 + code
    SOURCE_PORT = (
        "source-port"  # of tcp and udp; of other protocols any value, so that a line asks for the protocol too
    )
    DESTINATION_PORT = "destination-port"
    ICMP_TYPE = "icmp-type"
    ICMP_CODE = "icmp-code"
    ICMPV6_TYPE = "icmpv6-type"
    ICMPV6_CODE = "icmpv6-code"
    ND_TARGET6 = "nd-target6"  # of a neighbour solicitation or advertisement
    ND_OPTION = "nd-option"  # type * 256 + length / 8 of the first option of either
    ND_OPTION_ETHER = "nd-option-ether"
    RS_OPTION = "rs-option"  # the same of a router solicitation
    RS_OPTION_ETHER = "rs-option-ether"


ORIGINAL = 0
REPLY = 1


class State(Enum):
    """How conntrack sees a packet; RELATED is an error about a known flow, INVALID fits none and opens none."""

    INVALID = 1
    ESTABLISHED = 2
    RELATED = 4
    NEW = 8
    UNTRACKED = 64


@dataclass(frozen=True, slots=True)
class Equal:
    field: Field
    value: int | str


@dataclass(frozen=True, slots=True)
class Differs:
    field: Field
    value: int


@dataclass(frozen=True, slots=True)
class Between:
    """Both ends included."""

    field: Field
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Masked:
    """The field's bits in ``mask`` are ``value``: to the kernel cheaper than a range, which takes two calls."""

    field: Field
    mask: int
    value: int


@dataclass(frozen=True, slots=True)
class Within:
    """The address lies in the network; the field's family is the network's."""

    field: Field
    network: Network


@dataclass(frozen=True, slots=True)
class StartsWith:
    """An interface's name starts so."""

    field: Field
    prefix: str


@dataclass(frozen=True, slots=True)
class Member:
    """The fields, joined, are an element of the set."""

    fields: tuple[Field, ...]
    set: str


class Header(Enum):
    """A part of a packet that only some have."""

    ROUTING6 = "routing6"  # the routing extension header
    LOOSE_ROUTE4 = "loose-route4"  # the loose and strict source route options
    STRICT_ROUTE4 = "strict-route4"


@dataclass(frozen=True, slots=True)
class Has:
    header: Header


@dataclass(frozen=True, slots=True)
class InState:
    states: frozenset[State]


@dataclass(frozen=True, slots=True)
class NotOpening:
    """A TCP packet that is no plain SYN and so must not start a flow."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """The flow was judged by the present generation of rules: its mark is in the set ``names.FRESH``."""


@dataclass(frozen=True, slots=True)
class Seldom:
    """Count the packet in a tally, under the field's value; holds at most ``LOG_RATE`` times a second for each value.

    A packet that finds no room in the tally does not match.
    """

    field: Field
    tally: str


LOG_RATE = 10  # lines a second that one interface may cause, and
LOG_BURST = 20  # how many of them at once after a silence
TALLY_LIFE_S = 3600  # what a tally forgets after so long a silence

Match = Equal | Differs | Between | Masked | Within | StartsWith | Member | Has | InState | NotOpening | Fresh | Seldom


@dataclass(frozen=True, slots=True)
class Count:
    counter: str


@dataclass(frozen=True, slots=True)
class CountBy:
    """Count the packet in the counter that the set of ``Counted`` elements holds for the fields, joined; go on.

    Where it holds none, the line does not match.
    """

    fields: tuple[Field, ...]
    set: str


@dataclass(frozen=True, slots=True)
class Log:
    """Send the packet's beginning to whoever listens to our log group; go on. The text is fixed words."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Stamp:
    """Mark the flow as judged by the present generation."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Jump to the chain that the map holds for the field; go on here when it holds none, or when that chain ends."""

    field: Field
    map: str


@dataclass(frozen=True, slots=True)
class Jump:
    chain: str


@dataclass(frozen=True, slots=True)
class Goto:
    chain: str


@dataclass(frozen=True, slots=True)
class Accept:
    """Done for this hook; the other hooks still judge."""


@dataclass(frozen=True, slots=True)
class Drop:
    pass


Action = Count | CountBy | Log | Stamp | Dispatch | Jump | Goto | Accept | Drop
Part = Match | Action


@dataclass(frozen=True, slots=True)
class Foreign:
    """A line in our table that we would never write; it makes its chain differ from any desired one."""

    text: str


@dataclass(frozen=True, slots=True)
class Line:
    parts: tuple[Part | Foreign, ...]


class HookName(Enum):
    """Where a base chain sits. Prerouting is where a packet leaves an instance, postrouting where it enters one.

    Input is used at a bridge only, for the frames of the link itself, which pass it without prerouting.
    """

    PREROUTING = "prerouting"
    INPUT = "input"
    POSTROUTING = "postrouting"


@dataclass(frozen=True, slots=True)
class Hook:
    name: HookName
    priority: int


RAW_PRIORITY = -300  # before conntrack (-200): a spoofed packet must not touch another's flow
FILTER_PRIORITY = 0  # after destination translation (-100), before source translation (100)


@dataclass(frozen=True, slots=True)
class Chain:
    lines: tuple[Line, ...]
    hook: Hook | None = None


class ElementType(Enum):
    INTERFACE = "interface"
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    ETHER = "ether"
    NUMBER = "number"  # 32 bits
    PROTOCOL = "protocol"
    PORT = "port"


Scalar = str | int | IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Counted:
    """An element that leads to a counter: for each joined value the interval that matches, or the interface's name."""

    key: tuple[Interval | str, ...]
    counter: str


Element = tuple[Scalar, ...] | Interval | Counted


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A set of joined values, or with ``interval`` of disjoint address intervals of its one type.

    A ``tally`` is one whose elements packets make, each with a counter and a limit: a program holds none of them.
    One that is ``counted`` holds disjoint ``Counted`` elements of its joined types.
    """

    types: tuple[ElementType, ...]
    elements: AbstractSet[Element] = frozenset()
    interval: bool = False
    tally: bool = False
    counted: bool = False


@dataclass(frozen=True, slots=True)
class VerdictMap:
    """Interface name or address -> chain to jump to. ``type`` is None for keys of a kind that we never write.

    Not to go to: a chain that should ever end without a verdict leads back to the line after the look-up, which drops.
    """

    targets: Mapping[Scalar, str] = field(default_factory=lambda: MappingProxyType({}))
    type: ElementType | None = ElementType.INTERFACE


@dataclass(frozen=True, slots=True)
class Program:
    """Everything in our tables but the mark's generation and the note of what revision it is.

    ``names.place_of`` tells from a thing's name which table it lies in.
    """

    counters: AbstractSet[str] = frozenset()
    sets: Mapping[str, NamedSet] = field(default_factory=lambda: MappingProxyType({}))
    maps: Mapping[str, VerdictMap] = field(default_factory=lambda: MappingProxyType({}))
    chains: Mapping[str, Chain] = field(default_factory=lambda: MappingProxyType({}))


def part_of(program: Program, family: TableFamily) -> Program:
    """What of the program lies in the table of that family. O(names)."""

    def here(name: str) -> bool:
        return place_of(name)[0] is family

    return Program(
        frozenset(filter(here, program.counters)),
        {name: set_ for name, set_ in program.sets.items() if here(name)},
        {name: map_ for name, map_ in program.maps.items() if here(name)},
        {name: chain for name, chain in program.chains.items() if here(name)},
    )
