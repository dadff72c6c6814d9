"""Other programs' base chains that may drop what ringfence allows: a conversation of dump requests and answers.

Pure, as ``reading``. An accept in one table ends nothing in another: a packet passes when no chain at any hook drops
it. Serves ``doctor`` and ``explain``; nothing is ever changed in those tables.
"""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ringfence.nft.expressions import VERDICT_DROP, VERDICT_GOTO, VERDICT_JUMP
from ringfence.nft.messages import (
    GET_CHAIN,
    GET_RULE,
    NEW_CHAIN,
    NEW_RULE,
    PROTOCOL_FAMILY,
    TABLE,
    answers_in,
    expressions_in,
    request_dump,
)
from ringfence.nft.netlink import Attributes, number_of, pack_text, parse, text_of
from ringfence.policy.values import Direction, Kind

_HOOK: Final = 4
_POLICY_DROP: Final = 0
_CT_KEY, _CT_SOURCE = 2, 4  # attributes of expression "ct"; one with a source register sets
_CT_MARK: Final = 3
_INGRESS_FAMILY: Final = 5
_FAMILIES: Final = {1: "inet", 2: "ip", 3: "arp", _INGRESS_FAMILY: "netdev", 7: "bridge", 10: "ip6"}
_HOOKS: Final = {0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting", 5: "ingress"}
_DEVICE_HOOKS: Final = {0: "ingress", 1: "egress"}
_NAMELESS: Final = "?"
_MISSED_BY_PORTS: Final = {Direction.INGRESS: "input", Direction.EGRESS: "output"}


@dataclass(frozen=True, slots=True)
class ForeignChain:
    """A base chain outside our table. ``drops``: a line that it leads to may drop or reject a packet.

    ``marks``: a line that it leads to may set the connection mark, of which ringfence uses some bits.
    """

    family: str
    table: str
    chain: str
    hook: str
    priority: int
    policy_drops: bool
    drops: bool
    marks: bool = False

    @property
    def place(self) -> str:
        """For people, e.g. "table ip filter, chain FORWARD (forward, priority 0)"."""
        return f"table {self.family} {self.table}, chain {self.chain} ({self.hook}, priority {self.priority})"

    @property
    def may_drop(self) -> bool:
        return self.policy_drops or self.drops

    @property
    def text(self) -> str:
        """For people, e.g. "table ip filter, chain FORWARD (forward, priority 0): its policy is drop"."""
        why = "it holds lines that drop" if self.drops else "it drops nothing"
        why = "its policy is drop" if self.policy_drops else why
        return f"{self.place}: {why}"


def meets(chain: ForeignChain, side: Direction, *, version: int, kind: Kind) -> bool:
    """Whether a packet of an IP version that one side of an instance judges may also traverse the chain.

    In doubt yes: whether the other end is the host itself, a container or the network does not matter.
    """
    families = {"inet", "netdev", "ip" if version == 4 else "ip6"}
    families |= {"bridge"} if kind is Kind.BRIDGED else set()
    missed = {Direction.INGRESS: "output", Direction.EGRESS: "input"} if kind is Kind.SELF else _MISSED_BY_PORTS
    return chain.family in families and chain.hook != missed[side]


@dataclass(slots=True)
class _Lines:
    """What the lines of one chain may do."""

    drops: bool
    marks: bool
    targets: set[str]


def read_foreign() -> Generator[bytes, bytes, tuple[ForeignChain, ...]]:
    """Every base chain that is not in our table, sorted by hook and priority. O(lines outside our table)."""
    found: list[ForeignChain] = []
    for family in _FAMILIES:
        answer = yield request_dump(GET_CHAIN, family)
        ours = TABLE if family in PROTOCOL_FAMILY.values() else None
        bases = [base for base in answers_in(answer, NEW_CHAIN) if _HOOK in base and text_of(base[1]) != ours]
        for table in sorted({text_of(base[1]) for base in bases}):
            lines = _lines((yield request_dump(GET_RULE, family, pack_text(1, table))))
            found += [_chain(family, base, lines) for base in bases if text_of(base[1]) == table]
    return tuple(sorted(found, key=lambda one: (one.hook, one.priority, one.family, one.table, one.chain)))


def _chain(family: int, attributes: Attributes, lines: Mapping[str, _Lines]) -> ForeignChain:
    chain = text_of(attributes[3])
    place = parse(attributes[_HOOK])
    hooks = _DEVICE_HOOKS if family == _INGRESS_FAMILY else _HOOKS
    return ForeignChain(
        _FAMILIES[family],
        text_of(attributes[1]),
        chain,
        hooks.get(number_of(place[1]), _NAMELESS),
        int.from_bytes(place[2], "big", signed=True),
        number_of(attributes.get(5, b"\1")) == _POLICY_DROP,
        any(one.drops for one in _reached(chain, lines)),
        any(one.marks for one in _reached(chain, lines)),
    )


def _reached(chain: str, lines: Mapping[str, _Lines]) -> Iterator[_Lines]:
    """The lines of the chain, and of all chains that it leads to."""
    seen, ahead = set[str](), [chain]
    while ahead:
        name = ahead.pop()
        if name in seen or name not in lines:
            continue
        yield lines[name]
        seen.add(name)
        ahead += lines[name].targets


def _lines(rules: bytes) -> dict[str, _Lines]:
    found: dict[str, _Lines] = {}
    for attributes in answers_in(rules, NEW_RULE):
        known = found.setdefault(text_of(attributes[2]), _Lines(drops=False, marks=False, targets=set()))
        for name, details in expressions_in(attributes.get(4, b"")):
            _judge(known, name, details)
    return found


def _judge(known: _Lines, name: str, details: Attributes) -> None:
    if name == "reject" or (name == "target" and text_of(details.get(1, b"")) in ("DROP", "REJECT")):
        known.drops = True
    elif name == "ct" and _CT_SOURCE in details and number_of(details.get(_CT_KEY, b"")) == _CT_MARK:
        known.marks = True
    elif name == "target" and text_of(details.get(1, b"")) == "CONNMARK":
        known.marks = True  # or only reads it: its data is not parsed here
    elif name == "lookup" and number_of(details.get(3, b"\1")) == 0:
        known.drops = True  # a verdict map, which may hold any verdict
    elif name == "immediate" and 2 in (value := parse(details.get(2, b""))):
        verdict = parse(value[2])
        code = int.from_bytes(verdict[1], "big", signed=True)
        known.drops |= code == VERDICT_DROP
        if code in (VERDICT_JUMP, VERDICT_GOTO):
            known.targets.add(text_of(verdict.get(2, b"")))
