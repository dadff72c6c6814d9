"""A program as nft text: for people, for golden files, and for tests that load it with ``nft -f`` to compare."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final, assert_never

from ringfence.nft.batch import ABOUT, FRESH_SIZE, TALLY_SIZE, About
from ringfence.nft.expressions import LOG_GROUP, LOG_SNAPLEN
from ringfence.nft.fields import LOADS, MARK, PRESENCES
from ringfence.nft.generation import DEFAULT_MASK, Generation, mark_of
from ringfence.nft.members import kernel_set
from ringfence.nft.messages import TABLE
from ringfence.policy.addresses import Interval
from ringfence.policy.program.model import (
    LOG_BURST,
    LOG_RATE,
    TALLY_LIFE_S,
    Accept,
    Action,
    Between,
    Chain,
    Count,
    CountBy,
    Counted,
    Differs,
    Dispatch,
    Drop,
    Element,
    ElementType,
    Equal,
    Field,
    Foreign,
    Fresh,
    Goto,
    Has,
    InState,
    Jump,
    Lacks,
    Line,
    Log,
    Masked,
    Member,
    NamedSet,
    NotOpening,
    Part,
    Program,
    Scalar,
    Seldom,
    Stamp,
    StartsWith,
    VerdictMap,
    Within,
    part_of,
)
from ringfence.policy.program.names import FRESH, TableFamily, bare_name

_TYPE_TEXT = {
    ElementType.INTERFACE: "ifname",
    ElementType.IPV4: "ipv4_addr",
    ElementType.IPV6: "ipv6_addr",
    ElementType.ETHER: "ether_addr",
    ElementType.NUMBER: "mark",
    ElementType.PROTOCOL: "inet_proto",
    ElementType.PORT: "inet_service",
}
_ADDRESS: Final[dict[ElementType, Callable[[int], object]]] = {
    ElementType.IPV4: IPv4Address,
    ElementType.IPV6: IPv6Address,
}
_FAMILY_TEXT = {4: "ipv4", 6: "ipv6"}
_WAY_TEXT = {0: "original", 1: "reply"}


def render_text(program: Program, generation: Generation, about: About | None, mask: int = DEFAULT_MASK) -> str:
    """A file for ``nft -f`` that makes the same tables as the program's batch. Equal programs give equal text.

    Lines that match options of neighbour discovery (bridged ports) need nft 1.0.8 or newer.
    """
    lines: list[str] = []
    for family in TableFamily:
        part = part_of(program, family)
        if family is TableFamily.INET or part.chains:
            lines += _table(part, family, generation, about if family is TableFamily.INET else None, mask)
    return "\n".join(lines) + "\n"


def _table(
    program: Program, family: TableFamily, generation: Generation, about: About | None, mask: int
) -> Iterator[str]:
    yield f"table {family.value} {TABLE} {{"
    for counter in sorted(program.counters):
        yield f"\tcounter {bare_name(counter)} {{ }}"
    for name, set_ in sorted(_kernel_sets(program, mark_of(generation, mask)).items()):
        yield from _set(bare_name(name), set_)
    for name, map_ in sorted(program.maps.items()):
        yield f"\tmap {bare_name(name)} {{ type {_TYPE_TEXT[map_.type or ElementType.INTERFACE]} : verdict; }}"
    if about is not None:
        yield f'\tchain {ABOUT} {{\n\t\tcounter comment "{about.text}"\n\t}}'
    for name in _callees_first(program):
        yield from _chain(name, program.chains[name], generation, mask)
    yield "}"
    for name, map_ in sorted(program.maps.items()):
        yield from _targets(family, bare_name(name), map_)


def _callees_first(program: Program) -> list[str]:
    """The chains by name, except that each comes before those that jump to it, as nft demands."""
    ordered: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in ordered:
            return
        for line in program.chains[name].lines:
            for part in line.parts:
                if isinstance(part, Jump | Goto):
                    visit(part.chain)
        ordered[name] = None

    for name in sorted(program.chains):
        visit(name)
    return list(ordered)


def _kernel_sets(program: Program, mark: int) -> dict[str, NamedSet]:
    """The sets as the kernel has them: all members in one set, with their groups' numbers, and the generation."""
    sets = {name: set_ for name, set_ in program.sets.items() if not kernel_set(name)[1]}
    if FRESH in sets:
        sets[FRESH] = replace(sets[FRESH], elements=frozenset({(mark,)}))
    together: dict[str, set[Element]] = {}
    for name, set_ in program.sets.items():
        kept, words = kernel_set(name)
        if words:
            numbered = ((*words, *element) for element in set_.elements if isinstance(element, tuple))
            together.setdefault(kept, set()).update(numbered)
    return sets | {name: replace(sets[name], elements=frozenset(elements)) for name, elements in together.items()}


def _set(name: str, set_: NamedSet) -> Iterator[str]:
    flags = " flags interval;" if set_.interval or set_.counted else ""
    if set_.tally:
        flags = f" size {TALLY_SIZE}; flags dynamic,timeout; timeout {TALLY_LIFE_S}s;"
    if name == FRESH:
        flags = f" size {FRESH_SIZE};"
    types = " . ".join(_TYPE_TEXT[type_] for type_ in set_.types)
    elements = ", ".join(sorted(_element(element, set_) for element in set_.elements))
    filled = f" elements = {{ {elements} }};" if elements else ""
    kind, leads = ("map", " : counter") if set_.counted else ("set", "")
    yield f"\t{kind} {name} {{ type {types}{leads};{flags}{filled} }}"


def _element(element: Element, set_: NamedSet) -> str:
    if isinstance(element, Interval):
        return _span(element, set_.types[0])
    if isinstance(element, Counted):
        key = " . ".join(_span(span, type_) for type_, span in zip(set_.types, element.key, strict=True))
        return f'{key} : "{bare_name(element.counter)}"'
    return " . ".join(_scalar(scalar, type_) for type_, scalar in zip(set_.types, element, strict=True))


def _span(span: Interval | str, type_: ElementType) -> str:
    if isinstance(span, str):
        return f'"{span}"'
    make = _ADDRESS.get(type_, str)
    first, last = make(span.first), make(span.last)
    return str(first) if first == last else f"{first}-{last}"


def _scalar(scalar: Scalar, type_: ElementType) -> str:
    if isinstance(scalar, int):
        return f"{scalar:#010x}"
    return f'"{scalar}"' if type_ is ElementType.INTERFACE else str(scalar)


def _targets(family: TableFamily, name: str, map_: VerdictMap) -> Iterator[str]:
    if map_.targets:
        keys = ((f'"{key}"' if isinstance(key, str) else str(key), chain) for key, chain in map_.targets.items())
        elements = ", ".join(f"{key} : jump {bare_name(chain)}" for key, chain in sorted(keys))
        yield f"add element {family.value} {TABLE} {name} {{ {elements} }}"


def _chain(name: str, chain: Chain, generation: Generation, mask: int) -> Iterator[str]:
    yield f"\tchain {bare_name(name)} {{"
    if chain.hook is not None:
        yield f"\t\ttype filter hook {chain.hook.name.value} priority {chain.hook.priority}; policy accept;"
    for line in chain.lines:
        yield f"\t\t{render_line(line, generation, mask)}"
    yield "\t}"


def render_line(line: Line, generation: Generation, mask: int = DEFAULT_MASK) -> str:
    """A line as nft text; a foreign one as a comment."""
    return " ".join(_part(part, generation, mask) for part in line.parts)


def _part(part: Part | Foreign, generation: Generation, mask: int) -> str:
    match part:
        case Equal(field, value) | Differs(field, value):
            return f"{LOADS[field].text} {'!= ' if isinstance(part, Differs) else ''}{_value(field, value)}"
        case Between(field, first, last):
            return f"{LOADS[field].text} {_value(field, first)}-{_value(field, last)}"
        case Masked(field, bits, value):
            return f"{LOADS[field].text} & {bits:#x} == {value:#x}"
        case Within(field, network):
            whole = network.prefixlen == network.max_prefixlen
            return f"{LOADS[field].text} {network.network_address if whole else network}"
        case StartsWith(field, prefix):
            return f'{LOADS[field].text} "{prefix}*"'
        case Member(fields, set_):
            kept, words = kernel_set(set_)
            constants = [f"({MARK.text} & 0x0 | {word:#010x})" for word in words]
            return " . ".join([*constants, *(LOADS[field].text for field in fields)]) + f" @{bare_name(kept)}"
        case Has(header) | Lacks(header):
            return f"{PRESENCES[header].text} {'exists' if isinstance(part, Has) else 'missing'}"
        case InState(states):
            return "ct state " + ",".join(state.name.lower() for state in sorted(states, key=lambda s: s.value))
        case NotOpening():
            return "tcp flags & (fin | syn | rst | ack) != syn"
        case Fresh():
            return f"ct mark & {mask:#010x} @{FRESH}"
        case Foreign(text):
            return f"# {text}"
        case _:
            return _action(part, generation, mask)


def _action(part: Action | Seldom, generation: Generation, mask: int) -> str:
    match part:
        case Count(counter):
            return f"counter name {bare_name(counter)}"
        case CountBy(fields, set_):
            return f"counter name {' . '.join(LOADS[field].text for field in fields)} map @{bare_name(set_)}"
        case Seldom(field, tally):
            limit = f"limit rate {LOG_RATE}/second burst {LOG_BURST} packets"
            return f"update @{bare_name(tally)} {{ {LOADS[field].text} counter {limit} }}"
        case Log(prefix):
            return f'log prefix "{prefix}" group {LOG_GROUP} snaplen {LOG_SNAPLEN}'
        case Stamp():
            return f"ct mark set ct mark and {~mask & 0xFFFFFFFF:#010x} or {mark_of(generation, mask):#010x}"
        case Dispatch(field, map_):
            return f"{LOADS[field].text} vmap @{bare_name(map_)}"
        case Jump(chain):
            return f"jump {bare_name(chain)}"
        case Goto(chain):
            return f"goto {bare_name(chain)}"
        case Accept():
            return "accept"
        case Drop():
            return "drop"
        case _:
            assert_never(part)


def _value(field: Field, value: int | str) -> str:
    match field, value:
        case Field.FAMILY, int():
            return _FAMILY_TEXT[value]
        case Field.DIRECTION, int():
            return _WAY_TEXT[value]
        case Field.ETHER_SOURCE | Field.ETHER_DESTINATION, int():
            return value.to_bytes(6, "big").hex(":")
        case Field.FIRST_OCTET | Field.ETHER_TYPE | Field.ARP_HEADER | Field.ND_OPTION | Field.RS_OPTION, int():
            return hex(value)
        case _, str():
            return f'"{value}"'
        case _:
            return str(value)
