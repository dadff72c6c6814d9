"""PURE: the text of ``iptables-save`` or ``ip6tables-save`` -> chains, as iptables(8) and iptables-extensions(8) say.

A condition that a source address and a service cannot express makes its line ``unclear``, never a guess.
"""

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import Final

from ringfence.policy.addresses import Family
from ringfence.policy.errors import Invalid
from ringfence.policy.insight.address_axis import UNICAST, addresses_of, position
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.services import service_span
from ringfence.policy.packet import ICMPV6, TCP, UDP
from ringfence.policy.values import MAX_PORT
from ringfence.wire.imports.boxes import EVERYTHING, ICMP_OF, Space, common, opening, space_of, without
from ringfence.wire.imports.chains import Accepted, Chain, Leave, Line, Verdict, accepted_by, may_drop
from ringfence.wire.imports.protocols import ICMP_TYPES, PROTOCOLS

_VERDICTS: Final = {
    "ACCEPT": Verdict.ACCEPT,
    "DROP": Verdict.DROP,
    "REJECT": Verdict.DROP,
    "RETURN": Verdict.RETURN,
    "QUEUE": Verdict.DROP,
}
_PASSING: Final = frozenset(  # targets after which a packet goes on, unchanged for a firewall
    ("LOG", "NFLOG", "ULOG", "TRACE", "AUDIT", "MARK", "CONNMARK", "SECMARK", "CONNSECMARK", "SET", "CLASSIFY")
) | {"TCPMSS", "CHECKSUM", "DSCP", "TOS", "TTL", "HL", "IDLETIMER", "RATEEST"}
_POLICY: Final = re.compile(r":(\S+) (ACCEPT|DROP|-)(?: \[.*\])?")
_LINE: Final = re.compile(r"(?:\[\d+:\d+\] )?-A (\S+)(?: (.*))?")
_DHCP: Final = {("67", "68"), ("547", "546")}
_DOUBTS: Final = dict.fromkeys(
    ("--limit", "--hashlimit-upto", "--hashlimit-above"), "it limits how often"
) | dict.fromkeys(("--set", "--update", "--rcheck", "--connlimit-above", "--connlimit-upto"), "it counts connections")
_HOOKS: Final = (
    ("raw", "PREROUTING"),
    ("mangle", "PREROUTING"),
    ("mangle", "INPUT"),
    ("filter", "INPUT"),
    ("security", "INPUT"),
)
Tables = dict[str, dict[str, Chain]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rules to import. ``interface``: the one that packets come in by, None if the user did not say."""

    name: str  # of the file, for messages
    family: Family
    interface: str | None = None


def accepted_by_tables(tables: Tables, wanted: Wanted, leave: Leave, *, input_only: bool) -> Accepted:
    """What the input chains let in, all tables in the order in which the kernel asks them.

    Raises:
        Invalid: no rules can express it, or, unless ``input_only``, the output chain does not let everything out.
    """
    hooks = [(name, tables[table]) for table, name in _HOOKS if name in tables.get(table, {})]
    if not hooks:
        raise Invalid(f"{wanted.name}: there is no chain INPUT")
    for table in ("mangle", "filter", "security"):
        chains = tables.get(table, {})
        if "OUTPUT" in chains and (line := may_drop(chains, "OUTPUT")) and not input_only:
            raise Invalid(
                f"{line.place}: what goes out is restricted, and only input is imported; --input-only leaves it open"
            )
    found = accepted_by(hooks, leave, within=space_of(family=wanted.family))
    forwarded = [
        f"{line.place}: {line.unclear}; what is forwarded by it is judged elsewhere"
        for chain in tables.get("nat", {}).values()
        for line in chain.lines
        if line.unclear and "DNAT" in line.unclear
    ]
    return replace(found, notes=(*found.notes, *forwarded))


def read_tables(text: str, wanted: Wanted) -> Tables:
    """Every chain of every table.

    Raises:
        Invalid: the text is not one of iptables-save; it names the line.
    """
    lines: dict[str, dict[str, list[Line]]] = {}
    policies: dict[tuple[str, str], tuple[Verdict, str]] = {}
    table = ""
    for number, raw in enumerate(text.splitlines(), start=1):
        place, line = f"{wanted.name}, line {number}", raw.strip()
        if not line or line.startswith("#") or line == "COMMIT":
            continue
        if line.startswith("*"):
            table = line[1:]
            lines.setdefault(table, {})
        elif (found := _POLICY.fullmatch(line)) and table:
            verdict = Verdict.RETURN if found[2] == "-" else _VERDICTS[found[2]]
            policies[table, found[1]] = verdict, f"{place} (policy of {found[1]})"
            lines[table].setdefault(found[1], [])
        elif (rule := _LINE.fullmatch(line)) and table:
            lines[table].setdefault(rule[1], []).append(_read_line(rule[2] or "", place, wanted))
        else:
            raise Invalid(f"{place}: expected a line of iptables-save, got {ascii(line)[:64]}")
    return {
        table: {
            name: Chain(tuple(chain), *policies.get((table, name), (Verdict.RETURN, "")))
            for name, chain in chains.items()
        }
        for table, chains in lines.items()
    }


def _read_line(text: str, place: str, wanted: Wanted) -> Line:
    reading = _Reading(wanted, place)
    try:
        rest = iter(shlex.split(text))
        for word in rest:
            reading.take(word, rest)
    except ValueError as error:
        raise Invalid(f"{place}: {error}") from error
    return reading.line()


@dataclass(slots=True)
class _Reading:
    """One line while it is read, option by option."""

    wanted: Wanted
    place: str
    match: Space = EVERYTHING
    protocol: int | None = None
    verdict: Verdict = Verdict.NEXT
    target: str = ""
    comment: str | None = None
    unclear: str | None = None
    aside: str | None = None
    sources: str = ""
    ports: str = ""
    _negated: bool = False

    def __post_init__(self) -> None:
        self.match = space_of(family=self.wanted.family)

    def take(self, word: str, rest: Iterator[str]) -> None:
        if word == "!":
            self._negated = True
            return
        if word in ("-m", "--match", "-p", "--protocol", "-j", "--jump", "-g", "--goto"):
            self._take_frame(word, next(rest, ""), rest)
        elif word in _CONDITIONS:
            _CONDITIONS[word](self, next(rest, ""))
        elif word == "--tcp-flags":
            self._take_flags(next(rest, ""), next(rest, ""))
        elif word == "--syn":
            self._keep(lambda: self.match)
        elif word.startswith("-") or self.unclear is None:
            self._doubt(_DOUBTS.get(word, f"{word} is nothing that a rule can say"))
        self._negated = False

    def line(self) -> Line:
        if self.protocol == ICMPV6:
            self.aside = None  # discovery, which is let in before any rule
        if (self.sources, self.ports) in _DHCP and self.protocol == UDP:
            self.match, self.aside = (), None  # answers to the host's own DHCP, which are let in before any rule
        elif self.sources:
            self._doubt(f"it is about source port {self.sources}")
        return Line(self.place, self.match, self.verdict, self.target, self.comment, self.unclear, self.aside)

    def _take_frame(self, word: str, value: str, rest: Iterator[str]) -> None:
        """Reads what every line has: protocol, modules, target."""
        if word in ("-p", "--protocol"):
            self._take_protocol(value)
        elif word in ("-j", "--jump"):
            self._take_target(value, rest)
        elif word in ("-g", "--goto"):
            self.verdict, self.target = Verdict.GOTO, value

    def _take_target(self, target: str, rest: Iterator[str]) -> None:
        if target in _VERDICTS:
            self.verdict = _VERDICTS[target]
        elif target in _PASSING:
            self.verdict = Verdict.NEXT
            list(rest)  # what follows is the target's own
        elif target.isupper():
            self.verdict = Verdict.DROP
            list(rest)
            self._doubt(f"target {target} is nothing that a rule can say")
        else:
            self.verdict, self.target = Verdict.JUMP, target

    def _take_protocol(self, name: str) -> None:
        if name in ("all", "0"):
            return
        number = int(name) if name.isdecimal() else PROTOCOLS.get(name)
        if number is None:
            raise Invalid(f"{self.place}: protocol {ascii(name)[:64]} is not known here: write its number")
        if not self._negated:
            self.protocol = number
        self._keep(lambda: space_of(services=Intervals.of(service_span(number))))

    def _keep(self, found: Callable[[], Space]) -> None:
        """Narrows the line to the given packets, or, negated, to all others."""
        space = found()
        self.match = without(self.match, space) if self._negated else common(self.match, space)

    def _doubt(self, why: str) -> None:
        self.unclear = self.unclear or why

    def take_source(self, text: str) -> None:
        networks = [ip_network(one, strict=False) for one in text.split(",")]
        if not addresses_of(networks) & UNICAST:
            self.aside = f"it is about source {text}, which only the link itself has"
        self._keep(lambda: space_of(addresses_of(networks)))

    def take_range(self, text: str) -> None:
        first, _, last = text.partition("-")
        span = position(ip_address(first)), position(ip_address(last or first))
        self._keep(lambda: space_of(Intervals.of(span)))

    def take_destination(self, text: str) -> None:
        network = ip_network(text, strict=False)
        if network.is_multicast or network.is_loopback or text.partition("/")[0] == "255.255.255.255":
            self._keep(lambda: ())  # no packet of a flow to the host itself has it
            if not network.is_loopback and not self._negated:
                self.aside = f"it is about destination {text}, and rules are about packets to the host itself"
        elif network.prefixlen:
            self._doubt(f"it is about destination {text}")

    def take_interface(self, name: str) -> None:
        if name == "lo":
            self._keep(lambda: ())  # loopback is free
        elif self.wanted.interface is None:
            self._doubt(f"it is about interface {name}, and --interface does not say which one is meant")
        else:
            pattern = f"{name[:-1]}*" if name.endswith("+") else name
            self._keep(lambda: self.match if fnmatchcase(self.wanted.interface or "", pattern) else ())

    def take_ports(self, text: str) -> None:
        self.ports = text
        spans = [_port_span(one, self.place) for one in text.split(",")]
        numbers = (TCP, UDP) if self.protocol is None else (self.protocol,)
        if self.protocol not in (TCP, UDP):
            self._doubt("it is about ports of a protocol whose ports no rule can name")
            return
        self._keep(
            lambda: space_of(services=Intervals.union(service_span(n, *span) for n in numbers for span in spans))
        )

    def take_source_ports(self, text: str) -> None:
        self.sources = text

    def take_icmp(self, text: str) -> None:
        if text in ("any", "255"):
            return
        name, _, code = text.partition("/")
        types = ICMP_TYPES[self.wanted.family]
        number = int(name) if name.isdecimal() else types.get(name)
        if number is None:
            self._doubt(f"ICMP type {text} is not known here: write its number")
            return
        first, last = (int(code), int(code)) if code else (0, 255)
        span = service_span(ICMP_OF[self.wanted.family], number << 8 | first, number << 8 | last)
        self._keep(lambda: space_of(services=Intervals.of(span)))

    def take_state(self, text: str) -> None:
        states = set(text.split(","))
        if unknown := states - {"NEW", "INVALID", "ESTABLISHED", "RELATED", "UNTRACKED"}:
            self._doubt(f"it is about connections of state {', '.join(sorted(unknown))}")
            return
        new = opening(EVERYTHING)
        found = (new if "NEW" in states else ()) + (without(EVERYTHING, new) if "INVALID" in states else ())
        self._keep(lambda: found)

    def _take_flags(self, mask: str, flags: str) -> None:
        """A flow's first TCP packet has SYN and none of the others."""
        asked = set(mask.split(",")) if mask != "ALL" else {"FIN", "SYN", "RST", "PSH", "ACK", "URG"}
        wanted = asked & ({"SYN"} if flags != "NONE" else set())
        matches = set(flags.split(",")) - {"NONE"} == wanted
        self._keep(lambda: self.match if matches else ())

    def take_kind(self, text: str) -> None:
        """Of addresses: those of the host itself are LOCAL and UNICAST."""
        kinds = set(text.upper().split(","))
        self._keep(lambda: self.match if kinds & {"LOCAL", "UNICAST", "HOST"} else ())

    def take_route_type(self, text: str) -> None:
        """Of routing headers; those of type 0 the kernel drops itself (RFC 5095)."""
        if text == "0":
            self._keep(lambda: ())
        else:
            self._doubt("it is about routing headers")

    def take_comment(self, text: str) -> None:
        self.comment = text


_CONDITIONS: Final[dict[str, Callable[[_Reading, str], None]]] = {
    "-s": _Reading.take_source,
    "--source": _Reading.take_source,
    "--src-range": _Reading.take_range,
    "-d": _Reading.take_destination,
    "--destination": _Reading.take_destination,
    "-i": _Reading.take_interface,
    "--in-interface": _Reading.take_interface,
    "--dport": _Reading.take_ports,
    "--destination-port": _Reading.take_ports,
    "--dports": _Reading.take_ports,
    "--sport": _Reading.take_source_ports,
    "--source-port": _Reading.take_source_ports,
    "--sports": _Reading.take_source_ports,
    "--icmp-type": _Reading.take_icmp,
    "--icmpv6-type": _Reading.take_icmp,
    "--state": _Reading.take_state,
    "--ctstate": _Reading.take_state,
    "--dst-type": _Reading.take_kind,
    "--pkt-type": _Reading.take_kind,
    "--rt-type": _Reading.take_route_type,
    "--comment": _Reading.take_comment,
    "--reject-with": lambda _, __: None,
}


def _port_span(text: str, place: str) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    try:
        span = int(first or 0), int(last or (MAX_PORT if colon else first))
    except ValueError as error:
        raise Invalid(f"{place}: expected port numbers, got {ascii(text)[:64]}") from error
    return span
