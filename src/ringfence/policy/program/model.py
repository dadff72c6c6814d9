"""The abstract dataplane program: sets, verdict maps, counters and chains of lines in a small closed vocabulary.

``compile`` makes one from a view, ``delta`` compares two, ``nft`` turns one into netlink bytes or text and reads it
back. A line is what nft(8) calls a rule ("rule" here always means a security group's): it is read left to right, and
every match must hold for the next part to be reached.
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
    IN_TYPE = "in-type"  # kind of the incoming interface (linux/if_arp.h)
    FAMILY = "family"  # 4 or 6
    PROTOCOL = "protocol"  # IANA number; for IPv6 the one after extension headers, of which AH is none
    DIRECTION = "direction"  # ORIGINAL or REPLY of the flow
    ETHER_SOURCE = "ether-source"
    ETHER_DESTINATION = "ether-destination"
    ETHER_TYPE = "ether-type"  # of the frame itself: that of a tag, when it has one
    FIRST_OCTET = "first-octet"  # of IPv4 and IPv6: the version, and what of a header the length is told by
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
    SOURCE_PORT = "source-port"  # arbitrary octets unless it is tcp or udp, so a line must match the protocol as well
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
ETHERNET = 1  # ARPHRD_ETHER, as IN_TYPE tells it


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
    """The field's bits under ``mask`` equal ``value``; cheaper in the kernel than a range, which is two comparisons."""

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
    """The concatenated fields are an element of the set."""

    fields: tuple[Field, ...]
    set: str


class Header(Enum):
    """A part of a packet that only some have."""

    ROUTING6 = "routing6"  # the routing extension header
    LOOSE_ROUTE4 = "loose-route4"  # the loose and strict source route options
    STRICT_ROUTE4 = "strict-route4"
    RECORD_ROUTE4 = "record-route4"
    ROUTER_ALERT4 = "router-alert4"


@dataclass(frozen=True, slots=True)
class Has:
    """Of options of IPv4 the kernel sees none where one is malformed, or a source route of which a part is used."""

    header: Header


@dataclass(frozen=True, slots=True)
class Lacks:
    """As far as the kernel sees (``Has``)."""

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

    When the tally is full, a packet with a new value does not match.
    """

    field: Field
    tally: str


LOG_RATE = 10  # log lines a second that one interface may cause
LOG_BURST = 20  # and how many at once after a silence
TALLY_LIFE_S = 3600  # a tally forgets a value that no packet had for so long

Match = (
    Equal
    | Differs
    | Between
    | Masked
    | Within
    | StartsWith
    | Member
    | Has
    | Lacks
    | InState
    | NotOpening
    | Fresh
    | Seldom
)


@dataclass(frozen=True, slots=True)
class Count:
    counter: str


@dataclass(frozen=True, slots=True)
class CountBy:
    """Count the packet in the counter that a set of ``Counted`` elements holds for the concatenated fields; go on.

    Where it holds none, the line does not match.
    """

    fields: tuple[Field, ...]
    set: str


@dataclass(frozen=True, slots=True)
class Log:
    """Send the packet's first octets to the listeners of our nflog group, with a fixed text; go on."""

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
    """A line in our table that ringfence never writes; it makes its chain differ from any desired one."""

    text: str


@dataclass(frozen=True, slots=True)
class Line:
    parts: tuple[Part | Foreign, ...]


class HookName(Enum):
    """Where a base chain sits. Prerouting is where a packet leaves an instance, postrouting where it enters one.

    Input is used at a bridge only, for frames between bridges, which reach it without prerouting.
    """

    PREROUTING = "prerouting"
    INPUT = "input"
    POSTROUTING = "postrouting"


@dataclass(frozen=True, slots=True)
class Hook:
    name: HookName
    priority: int


RAW_PRIORITY = -300  # before conntrack (-200): a spoofed packet must not touch another instance's flow
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
    """An element with a counter: for each concatenated field the interval that matches, or an interface's name."""

    key: tuple[Interval | str, ...]
    counter: str


Element = tuple[Scalar, ...] | Interval | Counted


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A set of concatenated values; with ``interval`` of disjoint address intervals of its one type.

    The names are the kernel's, but for a group's members, which it holds in one set of all (``names.MEMBERS``).
    With ``counted`` it holds disjoint ``Counted`` elements. The elements of a ``tally`` are made by packets, each with
    a counter and a rate limit, and are never part of a program.
    """

    types: tuple[ElementType, ...]
    elements: AbstractSet[Element] = frozenset()
    interval: bool = False
    tally: bool = False
    counted: bool = False


@dataclass(frozen=True, slots=True)
class VerdictMap:
    """Interface name or address -> chain to jump to. ``type`` is None when the keys are of a type ringfence never uses.

    A jump, no goto: should a chain ever end without a verdict, the packet returns to the line after the look-up, and
    that one drops it.
    """

    targets: Mapping[Scalar, str] = field(default_factory=lambda: MappingProxyType({}))
    type: ElementType | None = ElementType.INTERFACE


@dataclass(frozen=True, slots=True)
class Program:
    """Everything in our tables but the generation and the note of the revision.

    ``names.place_of`` tells from an object's name which of the tables it is in.
    """

    counters: AbstractSet[str] = frozenset()
    sets: Mapping[str, NamedSet] = field(default_factory=lambda: MappingProxyType({}))
    maps: Mapping[str, VerdictMap] = field(default_factory=lambda: MappingProxyType({}))
    chains: Mapping[str, Chain] = field(default_factory=lambda: MappingProxyType({}))


def part_of(program: Program, family: TableFamily) -> Program:
    """The part of the program that is in the table of that family. O(names)."""

    def here(name: str) -> bool:
        return place_of(name)[0] is family

    return Program(
        frozenset(filter(here, program.counters)),
        {name: set_ for name, set_ in program.sets.items() if here(name)},
        {name: map_ for name, map_ in program.maps.items() if here(name)},
        {name: chain for name, chain in program.chains.items() if here(name)},
    )
