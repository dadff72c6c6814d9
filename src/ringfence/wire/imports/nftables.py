"""PURE: what ``nft -j list ruleset`` prints -> what its input chains accept, as libnftables-json(5) says.

The JSON has no lines: a refusal names table, chain and handle, as ``nft -a list ruleset`` shows them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import Final

from ringfence.policy.addresses import Family
from ringfence.policy.errors import Invalid
from ringfence.policy.insight.address_axis import UNICAST, position, span_of
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.services import service_span
from ringfence.policy.packet import TCP, UDP
from ringfence.policy.values import MAX_PORT
from ringfence.wire.document import JsonValue
from ringfence.wire.imports.boxes import EVERYTHING, ICMP_OF, Space, common, opening, space_of, without
from ringfence.wire.imports.chains import Accepted, Chain, Leave, Line, Verdict, accepted_by, may_drop
from ringfence.wire.imports.protocols import ICMP_TYPES, PROTOCOLS

_VERDICTS: Final = {
    "accept": Verdict.ACCEPT,
    "drop": Verdict.DROP,
    "reject": Verdict.DROP,
    "return": Verdict.RETURN,
    "continue": Verdict.NEXT,
    "jump": Verdict.JUMP,
    "goto": Verdict.GOTO,
}
_NEXT: Final = frozenset(("counter", "log"))
_FAMILIES: Final[dict[str, Family | None]] = {"inet": None, "ip": 4, "ip6": 6}
_OWN: Final = "ringfence"  # our own table judges instances, and is made of the policy that is imported into
_ICMP: Final[dict[str, Family]] = {"icmp": 4, "icmpv6": 6}
_IP: Final[dict[str, Family]] = {"ip": 4, "ip6": 6, "ipv4": 4, "ipv6": 6}
_PORTED: Final = {"tcp": (TCP,), "udp": (UDP,), "th": (TCP, UDP)}
_HOST: Final = frozenset(("local", "host", "unicast"))
_DHCP: Final = ((67, 68), (547, 546))
Object = Mapping[str, JsonValue]


class _Unclear(Exception):
    """A condition that source and service cannot express; its text completes a sentence about the rule."""


def accepted_by_ruleset(
    value: JsonValue, name: str, leave: Leave, *, interface: str | None = None, input_only: bool = False
) -> Accepted:
    """What the input chains of all tables together let in.

    Raises:
        Invalid: no rules can express it, or, unless ``input_only``, a chain restricts what goes out.
    """
    ruleset = _Ruleset(name, interface)
    for kind, fields in _objects(value, name):
        ruleset.take(kind, fields)
    for base in ruleset.bases_at("output", "postrouting"):
        if (line := may_drop(ruleset.chains(base), base.chain)) and not input_only:
            told = "what goes out is restricted, and only input is imported; --input-only leaves it open"
            raise Invalid(f"{line.place}: {told}")
    bases = ruleset.bases_at("prerouting") + ruleset.bases_at("input")
    if not bases:
        raise Invalid(f"{name}: there is no chain that judges what comes in (hook input)")
    return accepted_by([(base.chain, ruleset.chains(base)) for base in bases], leave)


def _objects(value: JsonValue, name: str) -> Iterator[tuple[str, Object]]:
    listed = value.get("nftables") if isinstance(value, dict) else None
    if not isinstance(listed, list):
        raise Invalid(f"{name}: expected what nft -j list ruleset prints")
    for one in listed:
        for kind, fields in one.items() if isinstance(one, dict) else ():
            if isinstance(fields, dict):
                yield kind, fields


@dataclass(frozen=True, slots=True, order=True)
class _Base:
    """A chain that the kernel calls, at a hook, in the order of priorities."""

    priority: int
    family: str
    table: str
    chain: str
    hook: str
    policy: str


@dataclass(slots=True)
class _Ruleset:
    """The listing by table; in ``sets`` a set that changes by itself is None."""

    name: str
    interface: str | None
    sets: dict[tuple[str, str, str], JsonValue] = field(default_factory=dict)
    bases: list[_Base] = field(default_factory=list)
    rules: dict[tuple[str, str], dict[str, list[Object]]] = field(default_factory=dict)

    def take(self, kind: str, fields: Object) -> None:
        family, table, name = (str(fields.get(key)) for key in ("family", "table", "name"))
        if table == _OWN:
            return
        if kind in ("set", "map"):
            flags = fields.get("flags")
            changing = {"timeout", "dynamic"} & set(map(str, flags if isinstance(flags, list) else [flags]))
            self.sets[family, table, name] = None if changing else fields.get("elem", [])
        elif kind == "chain":
            self._take_chain(family, table, name, fields)
        elif kind == "rule" and family in _FAMILIES:
            self.rules[family, table][str(fields.get("chain"))].append(fields)

    def _take_chain(self, family: str, table: str, name: str, fields: Object) -> None:
        if family == "netdev":
            told = f"chain {name} of table netdev {table} judges packets before any chain that can be imported"
            raise Invalid(f"{self.name}: {told}")
        if family not in _FAMILIES:
            return
        self.rules.setdefault((family, table), {})[name] = []
        hook, priority = fields.get("hook"), fields.get("prio", 0)
        if hook is not None and isinstance(priority, int) and fields.get("type") != "nat":
            self.bases.append(_Base(priority, family, table, name, str(hook), str(fields.get("policy", "accept"))))

    def bases_at(self, *hooks: str) -> list[_Base]:
        """In the order in which a packet meets them."""
        return sorted(base for base in self.bases if base.hook in hooks)

    def chains(self, base: _Base) -> dict[str, Chain]:
        """The chains of a base chain's table, as they are called from it."""
        place = f"{self.name}: table {base.family} {base.table}"
        within = space_of(family=_FAMILIES[base.family])
        found = {
            name: Chain(tuple(line for rule in rules for line in self._lines(base, name, rule, within)))
            for name, rules in self.rules[base.family, base.table].items()
        }
        lines = found[base.chain].lines
        if base.family != "inet":
            others = without(EVERYTHING, within)
            lines = (Line(f"{place} judges {base.family} alone", others, Verdict.ACCEPT), *lines)
        policy = f"{place}, chain {base.chain}, policy {base.policy}"
        return found | {base.chain: Chain(lines, _VERDICTS[base.policy], policy)}

    def _lines(self, base: _Base, chain: str, rule: Object, within: Space) -> Iterator[Line]:
        place = f"{self.name}: table {base.family} {base.table}, chain {chain}, handle {rule.get('handle')}"
        reading = _Reading(self, (base.family, base.table), place, within, _text(rule.get("comment")))
        statements = rule.get("expr")
        for statement in statements if isinstance(statements, list) else ():
            for kind, value in statement.items() if isinstance(statement, dict) else ():
                yield from reading.take(kind, value)


@dataclass(slots=True)
class _Reading:
    """One rule while it is read, statement by statement."""

    ruleset: _Ruleset
    table: tuple[str, str]
    place: str
    match: Space
    comment: str | None
    unclear: str | None = None
    aside: str | None = None
    source_port: JsonValue = None

    def take(self, kind: str, value: JsonValue) -> Iterator[Line]:
        """The lines that the statement ends the rule with, if it does."""
        if kind == "match" and isinstance(value, dict):
            self._take_match(str(value.get("op")), value.get("left"), value.get("right"))
        elif kind == "vmap" and isinstance(value, dict):
            yield from self._take_map(value)
        elif kind in _VERDICTS:
            yield self._line(self.match, kind, value)
        elif kind not in _NEXT and not _is_mark(kind, value):
            told = f"its statement {kind} is nothing that a rule can say"
            self._doubt("it limits how often" if kind == "limit" else told)
            if kind in ("queue", "tproxy", "dnat", "redirect", "xt"):
                yield self._line(self.match, "drop", None)

    def _line(self, match: Space, verdict: str, value: JsonValue) -> Line:
        target = str(value.get("target")) if isinstance(value, dict) and verdict in ("jump", "goto") else ""
        return Line(self.place, match, _VERDICTS[verdict], target, self.comment, self.unclear, self.aside)

    def _doubt(self, why: str) -> None:
        self.unclear = self.unclear or why

    def _take_match(self, operator: str, left: JsonValue, right: JsonValue) -> None:
        try:
            self.match = common(self.match, self._found(operator, left, right))
        except _Unclear as error:
            self._doubt(str(error))

    def _take_map(self, value: Object) -> Iterator[Line]:
        try:
            for key, verdict in self._pairs(value.get("data")):
                found = common(self.match, self._found("==", value.get("key"), key))
                for kind, argument in verdict.items():
                    yield self._line(found, kind, argument)
        except _Unclear as error:
            self._doubt(str(error))
            yield self._line(self.match, "drop", None)

    def _pairs(self, data: JsonValue) -> Iterator[tuple[JsonValue, Object]]:
        for pair in self._elements(data):
            if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], dict):  # noqa: PLR2004  key and verdict
                yield pair[0], pair[1]
            else:
                raise _Unclear("its verdict map is of a kind that is not known here")

    def _elements(self, right: JsonValue) -> list[JsonValue]:
        """The values that are meant: one, or those of a set, whose elements may carry comments and counters."""
        if isinstance(right, str) and right.startswith("@"):
            right = {"set": self.ruleset.sets.get((*self.table, right[1:]))}
        if isinstance(right, dict) and "set" in right:
            right = right["set"]
            if right is None:
                raise _Unclear("it asks a set that changes by itself")
        listed = right if isinstance(right, list) else [right]
        return [_bare(one) for one in listed]

    def _found(self, operator: str, left: JsonValue, right: JsonValue) -> Space:
        """The packets for which a comparison is true."""
        if isinstance(left, dict):
            for kind, key in left.items():
                if kind == "&":
                    return self._flags(operator, key, right)
                if isinstance(key, dict) and kind in ("payload", "meta", "ct", "fib"):
                    within, found = self._part(kind, key, self._elements(right))
                    if operator not in ("==", "!=", "in"):
                        break
                    return without(within, found) if operator == "!=" else found
        raise _Unclear(f"its comparison {operator} of {_words(left)} is nothing that a rule can say")

    def _part(self, kind: str, key: Object, values: list[JsonValue]) -> tuple[Space, Space]:
        """The packets that have such a field, and those in which it has one of the values."""
        if kind == "payload":
            return self._payload(str(key.get("protocol")), str(key.get("field")), values)
        name = str(key.get("key", key.get("result")))
        words = set(map(str, values))
        if (kind, name) == ("ct", "state"):
            new = opening(EVERYTHING)
            chosen = (new if "new" in words else ()) + (without(EVERYTHING, new) if "invalid" in words else ())
            return EVERYTHING, chosen
        if kind == "meta" and name in ("iifname", "iif"):
            return EVERYTHING, EVERYTHING if self._comes_by(words) else ()
        if kind == "meta" and name in ("nfproto", "protocol") and words <= set(_IP):
            return EVERYTHING, tuple(box for word in sorted(words) for box in space_of(family=_IP[word]))
        if (kind, name) == ("meta", "l4proto"):
            return EVERYTHING, space_of(services=_protocols(values))
        if (kind, name) == ("meta", "pkttype") or (kind == "fib" and name == "type" and key.get("flags") == ["daddr"]):
            return EVERYTHING, EVERYTHING if words & _HOST else ()
        raise _Unclear(f"{kind} {name} is nothing that a rule can say")

    def _comes_by(self, names: set[str]) -> bool:
        """Whether packets from outside come in by one of these interfaces; loopback is free, and asked by nobody."""
        if names == {"lo"}:
            return False
        if self.ruleset.interface is None:
            told = f"it is about interface {', '.join(sorted(names))}"
            raise _Unclear(f"{told}, and --interface does not say which one is meant")
        return any(fnmatchcase(self.ruleset.interface, name) for name in names)

    def _payload(self, protocol: str, name: str, values: list[JsonValue]) -> tuple[Space, Space]:
        if protocol in ("ip", "ip6"):
            return self._ip(_IP[protocol], name, values)
        if protocol in _PORTED and name == "dport":
            return self._ports(protocol, values)
        if protocol in _ICMP and name in ("type", "code"):
            return _icmp(_ICMP[protocol], name, values)
        if protocol in _PORTED and name == "sport":
            self.source_port = values[0] if len(values) == 1 else None
            raise _Unclear(f"it is about source port {_words(values)}")
        raise _Unclear(f"{protocol} {name} is nothing that a rule can say")

    def _ip(self, family: Family, name: str, values: list[JsonValue]) -> tuple[Space, Space]:
        whole = space_of(family=family)
        if name == "saddr":
            if all(_is_elsewhere(_addresses(value)) for value in values):
                self.aside = f"it is about source {_words(values)}, which only the link itself has"
            return whole, space_of(Intervals.union(map(_addresses, values)), family=family)
        if name in ("protocol", "nexthdr"):
            return whole, space_of(services=_protocols(values), family=family)
        if name == "daddr" and all(_is_elsewhere(_addresses(value)) for value in values):
            self.aside = f"it is about destination {_words(values)}, and rules are about packets to the host itself"
            return whole, ()
        raise _Unclear(f"it is about {'destination ' + _words(values) if name == 'daddr' else name}")

    def _ports(self, protocol: str, values: list[JsonValue]) -> tuple[Space, Space]:
        numbers = _PORTED[protocol]
        within = space_of(services=Intervals.union(service_span(number) for number in numbers))
        if protocol == "th" and without(self.match, within):
            raise _Unclear("it is about ports of any protocol: name tcp or udp")
        if self.source_port is not None and (self.source_port, values[0]) in _DHCP:
            return within, ()  # answers to the host's own DHCP, which are let in before any rule
        spans = [_span(value) for value in values]
        return within, space_of(services=Intervals.union(service_span(n, *span) for n in numbers for span in spans))

    def _flags(self, operator: str, key: JsonValue, right: JsonValue) -> Space:
        """A flow's first TCP packet has SYN and no other flag."""
        if not (isinstance(key, list) and len(key) == 2 and _words(key[0]) == "tcp flags" and operator in ("==", "!=")):  # noqa: PLR2004  field and mask
            raise _Unclear(f"its comparison {operator} is nothing that a rule can say")
        mask, wanted = set(map(str, self._elements(key[1]))), set(map(str, self._elements(right))) - {"0"}
        within = space_of(services=Intervals.of(service_span(TCP)))
        return within if (wanted == {"syn"} & mask) == (operator == "==") else ()


def _is_mark(kind: str, value: JsonValue) -> bool:
    """Whether a statement only writes a mark or a priority."""
    key = value.get("key") if kind == "mangle" and isinstance(value, dict) else None
    return isinstance(key, dict) and set(key) <= {"meta", "ct"}


def _protocols(values: list[JsonValue]) -> Intervals:
    numbers = [value if isinstance(value, int) else PROTOCOLS.get(str(value)) for value in values]
    if None in numbers:
        raise _Unclear(f"protocol {_words(values)} is not known here: write its number")
    return Intervals.union(service_span(number) for number in numbers if number is not None)


def _icmp(family: Family, name: str, values: list[JsonValue]) -> tuple[Space, Space]:
    number = ICMP_OF[family]
    within = space_of(services=Intervals.of(service_span(number)))
    if name == "code":
        codes = [_span(value) for value in values]
        spans = [service_span(number, t << 8 | first, t << 8 | last) for t in range(256) for first, last in codes]
        return within, space_of(services=Intervals.union(spans))
    types = [ICMP_TYPES[family].get(str(value), value) for value in values]
    pairs = [_span(value) for value in types]
    spans = [service_span(number, first << 8, last << 8 | 255) for first, last in pairs]
    return within, space_of(services=Intervals.union(spans))


def _span(value: JsonValue) -> tuple[int, int]:
    """A number, or the ends of a range."""
    ends = value.get("range") if isinstance(value, dict) else [value, value]
    if isinstance(ends, list) and len(ends) == 2:  # noqa: PLR2004  both ends
        first, last = ends
        if isinstance(first, int) and isinstance(last, int) and 0 <= first <= last <= MAX_PORT:
            return first, last
    raise _Unclear(f"{_words(value)} is not known here: write its number")


def _addresses(value: JsonValue) -> tuple[int, int]:
    """An address, a range or a network as positions."""
    try:
        if isinstance(value, dict) and isinstance(ends := value.get("range"), list):
            first, last = (position(ip_address(str(one))) for one in ends)
            return first, last
        if isinstance(value, dict) and isinstance(prefix := value.get("prefix"), dict):
            return span_of(ip_network(f"{prefix['addr']}/{prefix['len']}", strict=False))
        return span_of(ip_network(str(value)))
    except ValueError as error:
        raise _Unclear(f"{_words(value)} is no address") from error


def _bare(element: JsonValue) -> JsonValue:
    """An element of a set without its comment and counter."""
    wrapped = element.get("elem") if isinstance(element, dict) else None
    return wrapped.get("val") if isinstance(wrapped, dict) else element


def _is_elsewhere(span: tuple[int, int]) -> bool:
    """Whether no packet of a flow to a host has these addresses: multicast, broadcast, loopback."""
    return not Intervals.of(span) & UNICAST


def _text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None


def _words(value: JsonValue) -> str:
    """A part of the listing, short enough for a message."""
    if isinstance(value, dict) and isinstance(payload := value.get("payload"), dict):
        return f"{payload.get('protocol')} {payload.get('field')}"
    if isinstance(value, dict) and isinstance(prefix := value.get("prefix"), dict):
        return f"{prefix.get('addr')}/{prefix.get('len')}"
    listed = ", ".join(map(_words, value)) if isinstance(value, list) else str(value)
    return ascii(listed)[1:-1][:64]
