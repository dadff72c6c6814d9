"""The abstract dataplane program: sets, verdict maps, counters and chains of lines in a small closed vocabulary.

``compile`` makes one from a view, ``delta`` compares two, ``nft`` turns one into netlink bytes or text and reads it
back. A line is read left to right: every match must hold for the next part to be reached, as in nft(8).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType

from ringfence.policy.addresses import Interval
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
    SOURCE4 = "source4"
    SOURCE6 = "source6"
    DESTINATION4 = "destination4"
    DESTINATION6 = "destination6"
    HOP_LIMIT6 = "hop-limit6"
    FLOW_SOURCE4 = "flow-source4"
    FLOW_SOURCE6 = "flow-source6"
    FLOW_DESTINATION4 = "flow-destination4"
    FLOW_DESTINATION6 = "flow-destination6"
    FLOW_PORT = "flow-port"  # destination port of the flow, after translation
    FLOW_ASKED_PORT = "flow-asked-port"  # as the flow's first packet had it; for ICMP its type * 256 + code
    SOURCE_PORT = "source-port"  # of tcp and udp
    DESTINATION_PORT = "destination-port"
    ICMP_TYPE = "icmp-type"
    ICMP_CODE = "icmp-code"
    ICMPV6_TYPE = "icmpv6-type"
    ICMPV6_CODE = "icmpv6-code"


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


@dataclass(frozen=True, slots=True)
class InState:
    states: frozenset[State]


@dataclass(frozen=True, slots=True)
class NotOpening:
    """A TCP packet that is no plain SYN and so must not start a flow."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """The flow was judged by the present generation of rules."""


Match = Equal | Differs | Between | Within | StartsWith | Member | InState | NotOpening | Fresh


@dataclass(frozen=True, slots=True)
class Count:
    counter: str


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


Action = Count | Stamp | Dispatch | Jump | Goto | Accept | Drop
Part = Match | Action


@dataclass(frozen=True, slots=True)
class Foreign:
    """A line in our table that we would never write; it makes its chain differ from any desired one."""

    text: str


@dataclass(frozen=True, slots=True)
class Line:
    parts: tuple[Part | Foreign, ...]


class HookName(Enum):
    """Where a base chain sits. Prerouting is where a packet leaves an instance, postrouting where it enters one."""

    PREROUTING = "prerouting"
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


Scalar = str | int | IPv4Address | IPv6Address
Element = tuple[Scalar, ...] | Interval


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A set of joined values, or with ``interval`` of disjoint address intervals of its one type."""

    types: tuple[ElementType, ...]
    elements: frozenset[Element] = frozenset()
    interval: bool = False


@dataclass(frozen=True, slots=True)
class VerdictMap:
    """Interface name -> chain to jump to.

    Not to go to: a chain that should ever end without a verdict leads back to the line after the look-up, which drops.
    """

    targets: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Program:
    """Everything in our table but the mark's generation and the note of what revision it is."""

    counters: frozenset[str] = frozenset()
    sets: Mapping[str, NamedSet] = field(default_factory=lambda: MappingProxyType({}))
    maps: Mapping[str, VerdictMap] = field(default_factory=lambda: MappingProxyType({}))
    chains: Mapping[str, Chain] = field(default_factory=lambda: MappingProxyType({}))
