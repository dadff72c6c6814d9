"""Where rules that were just added are asked for until their lines are there: sets that lead to the rules' counters.

A line makes the kernel walk through the whole table before it takes the transaction, an element does not. So the last
thing that a packet is asked before its groups refuse it is whether an element of ``names.LATE`` allows it; ``hasten``
says which elements there are. A packet that some line allows meets none of this.
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
_END: Final = {  # by what an instance is known
    Field.IN_INTERFACE: ElementType.INTERFACE,
    Field.OUT_INTERFACE: ElementType.INTERFACE,
    Field.SOURCE4: ElementType.IPV4,
    Field.DESTINATION4: ElementType.IPV4,
    Field.SOURCE6: ElementType.IPV6,
    Field.DESTINATION6: ElementType.IPV6,
}


def late_sets(sides: Observed) -> dict[str, NamedSet]:
    """Without elements; ``sides`` say by which fields instances are known before routing, and after it."""
    found = {}
    for (_, family), set_ in names.LATE.items():
        end = next(_END[field] for _, field in _ends(sides, family))
        types = (_ADDRESS[family], end, ElementType.PROTOCOL, ElementType.PORT)
        found[set_] = NamedSet(types, counted=True)
    return found


def late_chains(sides: Observed, *, by_wire: bool = False) -> Iterator[tuple[str, Chain]]:
    """One for each direction of rules, which ends without a verdict where no element allows.

    ``by_wire``: what comes in is judged by the port on the wire, as ``lines`` says.
    """
    for direction in Direction:
        port = Field.FLOW_ASKED_PORT if by_wire and direction is Direction.INGRESS else Field.FLOW_PORT
        yield names.late_chain(direction), Chain(tuple(_ask(direction, sides, port)))


def _ask(direction: Direction, sides: Observed, port: Field) -> Iterator[Line]:
    for protocol, family in product(LATE_PROTOCOLS, FAMILIES):
        for side, end in _ends(sides, family):
            fields = (FLOW_PEER[direction, family], end, Field.PROTOCOL, port)
            # The protocol by itself as well: without it nft text has no type for a port.
            is_it = Equal(Field.PROTOCOL, protocol)
            yield Line((is_it, side, CountBy(fields, names.LATE[direction, family]), Goto(names.ALLOW)))


def _ends(sides: Observed, family: Family) -> Iterator[tuple[Match, Field]]:
    for side, field, _ in sides:
        if _END[field] in (ElementType.INTERFACE, _ADDRESS[family]):
            yield side, field
