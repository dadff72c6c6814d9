"""The sets, with their chains, that stand for just added rules until the rules' own lines are in place (``hasten``).

The kernel walks through the whole table before it accepts a line, but not for an element. So before a packet is refused
by its groups, it is looked up in the sets ``names.LATE``, whose elements lead to the rules' counters. A packet that a
line allows meets none of this.
"""

from collections.abc import Iterator
from itertools import product
from typing import Final

from ringfence.policy.addresses import FAMILIES, Family
from ringfence.policy.program import names
from ringfence.policy.program.model import Chain, CountBy, ElementType, Equal, Field, Goto, Line, Match, NamedSet
from ringfence.policy.program.refusal import Observed
from ringfence.policy.values import PROTOCOL_NUMBER, Direction, Protocol

FLOW_PEER: Final[dict[tuple[Direction, Family], Field]] = {
    (Direction.INGRESS, 4): Field.FLOW_SOURCE4,
    (Direction.INGRESS, 6): Field.FLOW_SOURCE6,
    (Direction.EGRESS, 4): Field.FLOW_DESTINATION4,
    (Direction.EGRESS, 6): Field.FLOW_DESTINATION6,
}
LATE_PROTOCOLS: Final = (PROTOCOL_NUMBER[Protocol.TCP], PROTOCOL_NUMBER[Protocol.UDP])
_ADDRESS: Final[dict[Family, ElementType]] = {4: ElementType.IPV4, 6: ElementType.IPV6}
_END: Final = {  # the fields by which an instance is known, and their types
    Field.IN_INTERFACE: ElementType.INTERFACE,
    Field.OUT_INTERFACE: ElementType.INTERFACE,
    Field.SOURCE4: ElementType.IPV4,
    Field.DESTINATION4: ElementType.IPV4,
    Field.SOURCE6: ElementType.IPV6,
    Field.DESTINATION6: ElementType.IPV6,
}


def late_sets(sides: Observed) -> dict[str, NamedSet]:
    """The empty sets; ``sides`` say by which fields instances are known before and after routing."""
    found = {}
    for (_, family), set_ in names.LATE.items():
        end = next(_END[field] for _, field in _ends(sides, family))
        types = (_ADDRESS[family], end, ElementType.PROTOCOL, ElementType.PORT)
        found[set_] = NamedSet(types, counted=True)
    return found


def late_chains(sides: Observed, *, by_wire: bool = False) -> Iterator[tuple[str, Chain]]:
    """One chain for each direction of rules, which ends without a verdict where no element allows the packet.

    ``by_wire``: incoming packets are judged by the port on the wire (see ``lines.rule_lines``).
    """
    for direction in Direction:
        port = Field.FLOW_ASKED_PORT if by_wire and direction is Direction.INGRESS else Field.FLOW_PORT
        yield names.late_chain(direction), Chain(tuple(_ask(direction, sides, port)))


def _ask(direction: Direction, sides: Observed, port: Field) -> Iterator[Line]:
    for protocol, family in product(LATE_PROTOCOLS, FAMILIES):
        for side, end in _ends(sides, family):
            fields = (FLOW_PEER[direction, family], end, Field.PROTOCOL, port)
            # The protocol is matched by itself as well: without it nft text has no type for a port.
            is_it = Equal(Field.PROTOCOL, protocol)
            yield Line((is_it, side, CountBy(fields, names.LATE[direction, family]), Goto(names.ALLOW)))


def _ends(sides: Observed, family: Family) -> Iterator[tuple[Match, Field]]:
    for side, field, _ in sides:
        if _END[field] in (ElementType.INTERFACE, _ADDRESS[family]):
            yield side, field
