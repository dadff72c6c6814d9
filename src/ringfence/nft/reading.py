"""What the kernel holds of our table, read back into a program: a conversation of dump requests and their answers.

Sans-I/O: ``read_table`` yields a request and is sent the raw octets of its answer, so that the same code serves a
socket and a recording. The kernel's generation is asked before and after, and the reading begun anew if it moved.
"""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import Final

from ringfence.nft.batch import (
    ABOUT,
    DATA_VERDICT,
    ELEMENT_INTERVAL_END,
    HOOK_NUMBER,
    NEW_ELEMENTS,
    NEW_RULE,
    NEW_TABLE,
    PROTOCOL_FAMILY,
    SET_COUNTED,
    SET_INTERVAL,
    SET_MAP,
    SET_TALLY,
    TABLE,
    TALLY_LIFE_MS,
    TALLY_SIZE,
    TYPE_SIZE,
    About,
    key_type,
    parse_about,
)
from ringfence.nft.counting import parse_counters
from ringfence.nft.decoding import decode_line
from ringfence.nft.expressions import OBJECT_COUNTER, VERDICT_JUMP
from ringfence.nft.fields import HOST_ORDER
from ringfence.nft.generation import DEFAULT_MASK, Generation, generation_of, mark_of
from ringfence.nft.members import FAMILY_OF, WORDS, member_set_of
from ringfence.nft.netlink import (
    F_ACK,
    F_DUMP,
    F_REQUEST,
    NFPROTO_INET,
    SUBSYSTEM_NFTABLES,
    Attributes,
    number_of,
    pack_message,
    pack_number,
    pack_text,
    parse,
    parse_list,
    parse_messages,
    text_of,
)
from ringfence.nft.notices import Touched
from ringfence.policy.addresses import Interval
from ringfence.policy.program.model import (
    Chain,
    Counted,
    Element,
    ElementType,
    Hook,
    Line,
    NamedSet,
    Program,
    Scalar,
    VerdictMap,
)
from ringfence.policy.program.names import FRESH, TableFamily, place_of, placed_name
from ringfence.policy.program.steps import DeleteLine

_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENTS, _GET_GENERATION, _GET_OBJECT = 1, 4, 7, 10, 13, 16, 19
_NEW_CHAIN, _NEW_SET, _NEW_GENERATION, _NEW_OBJECT = 3, 9, 15, 18
_ATTEMPTS: Final = 5
_POLICY_DROP: Final = 0
_DORMANT: Final = 1
_COMMENT: Final = 0
_ELEMENT_EXPRESSIONS: Final = 11

# The shapes we make; a set of another shape in our table is kept with no types, and so never equals a desired one.
_SHAPES: Final = {
    key_type(types): types
    for types in (
        (ElementType.INTERFACE,),
        (ElementType.IPV4,),
        (ElementType.IPV6,),
        (ElementType.NUMBER,),
        (ElementType.INTERFACE, ElementType.IPV4),
        (ElementType.INTERFACE, ElementType.IPV6),
        (ElementType.INTERFACE, ElementType.ETHER),
        (ElementType.INTERFACE, ElementType.ETHER, ElementType.IPV4),
        (ElementType.INTERFACE, ElementType.ETHER, ElementType.IPV6),
        (ElementType.NUMBER, ElementType.NUMBER, ElementType.IPV4),
        (ElementType.NUMBER, ElementType.NUMBER, ElementType.IPV6),
        (ElementType.IPV4, ElementType.INTERFACE, ElementType.PROTOCOL, ElementType.PORT),
        (ElementType.IPV6, ElementType.INTERFACE, ElementType.PROTOCOL, ElementType.PORT),
        (ElementType.IPV4, ElementType.IPV4, ElementType.PROTOCOL, ElementType.PORT),
        (ElementType.IPV6, ElementType.IPV6, ElementType.PROTOCOL, ElementType.PORT),
    )
}
_KEYS: Final = {key_type((type_,)): type_ for type_ in (ElementType.INTERFACE, ElementType.IPV4, ElementType.IPV6)}


@dataclass(frozen=True, slots=True)
class Reading:
    """``program`` is None without any table of ours, ``generation`` when lines disagree about it or lack it.

    ``dormant``: a table is there and no packet reaches it, because somebody switched it off.
    """

    program: Program | None
    generation: Generation | None = None
    about: About | None = None
    hits: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    kernel_generation: int = 0  # counts every transaction of the whole network namespace
    dormant: bool = False


Conversation = Generator[bytes, bytes, Reading]


def read_table(mask: int = DEFAULT_MASK) -> Conversation:
    """Ask for everything in our table. O(table): for start, repair and tests, never for a change.

    Raises ``TimeoutError`` when the ruleset never stood still for a whole reading.
    """
    for _ in range(_ATTEMPTS):
        before = yield from _read_generation()
        reading = yield from _read_once(mask, before)
        after = yield from _read_generation()
        if before == after:
            return reading
    raise TimeoutError(f"the kernel's ruleset changed during each of {_ATTEMPTS} readings")


def read_counters() -> Generator[bytes, bytes, dict[str, int]]:
    """Only the counters and what they have counted, of both tables."""
    found: dict[str, int] = {}
    for table in TableFamily:
        found |= yield from _read_counters(table)
    return found


def _read_counters(table: TableFamily) -> Generator[bytes, bytes, dict[str, int]]:
    answer = yield request_counters(table)
    return hits_in(answer, table)


def request_counters(table: TableFamily) -> bytes:
    """What asks for every counter of our table, and what it has counted."""
    return _dump(_GET_OBJECT, table, pack_text(1, TABLE) + pack_number(3, OBJECT_COUNTER))


def hits_in(answer: bytes, table: TableFamily) -> dict[str, int]:
    """The counters in the answer, or in a part of it, of whole messages."""
    return {placed_name(table, name): hits for name, hits in parse_counters(answer).items()}


def read_tallies(names: Iterable[str]) -> Generator[bytes, bytes, dict[tuple[str, str], int]]:
    """How many packets the tallies have counted, by tally and interface. O(interfaces)."""
    found: dict[tuple[str, str], int] = {}
    for name in names:
        table, bare = place_of(name)
        elements = yield _dump(_GET_ELEMENTS, table, pack_text(1, TABLE) + pack_text(2, bare))
        found |= {(name, text_of(key)): _counted(attributes) for key, attributes in _elements(elements)}
    return found


def _counted(element: Attributes) -> int:
    """What the counter of an element says, which stands there beside its limit."""
    expressions = (parse(one) for _, one in parse_list(element.get(_ELEMENT_EXPRESSIONS, b"")))
    return next((number_of(parse(one[2])[2]) for one in expressions if text_of(one[1]) == "counter"), 0)


def read_about() -> Generator[bytes, bytes, About | None]:
    """Only the note of what revision the table holds: proof that a transaction was carried out whole."""
    answer = yield _dump(_GET_RULE, TableFamily.INET, pack_text(1, TABLE) + pack_text(2, ABOUT))
    return next((about for attributes in _answers(answer, NEW_RULE) if (about := _about(attributes))), None)


def find_lines(
    doomed: Iterable[DeleteLine], mask: int = DEFAULT_MASK
) -> Generator[bytes, bytes, dict[DeleteLine, int]]:
    """The kernel's numbers of lines that are to go, without those that it does not hold. O(lines of their chains)."""
    wanted, found = frozenset(doomed), dict[DeleteLine, int]()
    for chain in sorted({step.chain for step in wanted}):
        table, bare = place_of(chain)
        rules = yield _dump(_GET_RULE, table, pack_text(1, TABLE) + pack_text(2, bare))
        for attributes in _answers(rules, NEW_RULE):
            line, _ = decode_line(attributes.get(4, b""), mask, table=table)
            if (step := DeleteLine(chain, line)) in wanted:
                found[step] = int.from_bytes(attributes[3], "big")
    return found


def read_touched(touched: Touched, mask: int = DEFAULT_MASK) -> Conversation:
    """Only the objects that ``touched`` names, and the note. O(their lines and elements), whatever else there is.

    What is named and not found is not there; ``generation`` is that of the chains among them.
    """
    chains: dict[str, Chain] = {}
    generations: set[Generation] = set()
    for table, bare in map(place_of, sorted(touched.chains - {ABOUT})):
        hooks = _hooks((yield _get(_GET_CHAIN, table, pack_text(3, bare))))
        rules = yield _dump(_GET_RULE, table, pack_text(1, TABLE) + pack_text(2, bare))
        lines, stamped, _ = _lines(rules, table, mask)
        chains |= _chains(table, hooks, lines)
        generations |= stamped
    sets: dict[str, NamedSet] = {}
    maps: dict[str, VerdictMap] = {}
    for table, bare in map(place_of, sorted(touched.sets)):
        listing = yield _get(_GET_SET, table, pack_text(2, bare))
        yield from _read_sets(table, listing, sets, maps)
    generations |= _take_generation(sets, mask)
    hits: dict[str, int] = {}
    for table, bare in map(place_of, sorted(touched.counters)):
        answer = yield _get(_GET_OBJECT, table, pack_text(2, bare) + pack_number(3, OBJECT_COUNTER))
        hits |= {placed_name(table, name): counted for name, counted in parse_counters(answer).items()}
    about = yield from read_about()
    return Reading(_program(hits, sets, maps, chains), _only(generations), about, MappingProxyType(hits))


def _read_generation() -> Generator[bytes, bytes, int]:
    type_ = SUBSYSTEM_NFTABLES << 8 | _GET_GENERATION
    answer = yield pack_message(type_, F_REQUEST | F_ACK, 1, b"", family=NFPROTO_INET)
    return next((number_of(attributes[1]) for attributes in _answers(answer, _NEW_GENERATION)), 0)


def _read_once(mask: int, kernel_generation: int) -> Conversation:
    found = _Found()
    for table in TableFamily:
        yield from _read_family(table, mask, found)
    if not found.tables:
        return Reading(None, kernel_generation=kernel_generation)
    found.generations |= _take_generation(found.sets, mask)
    program = _program(found.hits, found.sets, found.maps, found.chains)
    hits = MappingProxyType(found.hits)
    return Reading(program, _only(found.generations), found.about, hits, kernel_generation, found.dormant)


@dataclass(slots=True)
class _Found:
    """What was read so far, of one table after the other."""

    tables: set[TableFamily] = field(default_factory=set)
    chains: dict[str, Chain] = field(default_factory=dict)
    sets: dict[str, NamedSet] = field(default_factory=dict)
    maps: dict[str, VerdictMap] = field(default_factory=dict)
    hits: dict[str, int] = field(default_factory=dict)
    generations: set[Generation] = field(default_factory=set)
    about: About | None = None
    dormant: bool = False


def _read_family(table: TableFamily, mask: int, found: _Found) -> Generator[bytes, bytes, None]:
    tables = yield _dump(_GET_TABLE, table)
    ours = next((attributes for attributes in _answers(tables, NEW_TABLE) if text_of(attributes[1]) == TABLE), None)
    if ours is None:
        return
    found.tables.add(table)
    found.dormant |= bool(number_of(ours.get(2, b"")) & _DORMANT)
    hooks = _hooks((yield _dump(_GET_CHAIN, table)))
    for bare, hook in hooks.items():  # of all at once the kernel would count its way from the first for every page
        rules = yield _dump(_GET_RULE, table, pack_text(1, TABLE) + pack_text(2, bare))
        lines, generations, about = _lines(rules, table, mask)
        found.chains |= _chains(table, {bare: hook}, lines)
        found.generations |= generations
        found.about = found.about or about
    listing = yield _dump(_GET_SET, table, pack_text(1, TABLE))
    yield from _read_sets(table, listing, found.sets, found.maps)
    found.hits |= yield from _read_counters(table)


def _read_sets(
    table: TableFamily, listing: bytes, sets: dict[str, NamedSet], maps: dict[str, VerdictMap]
) -> Generator[bytes, bytes, None]:
    """Puts the sets and maps that the listing describes, with their elements, into ``sets`` and ``maps``."""
    for attributes in _answers(listing, _NEW_SET):
        bare = text_of(attributes[2])
        elements = yield _dump(_GET_ELEMENTS, table, pack_text(1, TABLE) + pack_text(2, bare))
        if number_of(attributes.get(6, b"")) == DATA_VERDICT:
            maps[placed_name(table, bare)] = _map(attributes, elements, table)
        else:
            sets |= _shared(placed_name(table, bare), _set(attributes, elements))


def _take_generation(sets: dict[str, NamedSet], mask: int) -> set[Generation]:
    """The generation in its set, which is no part of a program; a set with another content is none of ours."""
    set_ = sets.get(FRESH)
    if set_ is None:
        return set()
    marks = [element[0] for element in set_.elements if isinstance(element, tuple)]
    found = {generation_of(mark, mask) for mark in marks if isinstance(mark, int)}
    is_ours = len(found) == 1 and marks == [mark_of(generation, mask) for generation in found]
    sets[FRESH] = NamedSet(set_.types if is_ours else ())
    return found


def _chains(table: TableFamily, hooks: Mapping[str, Hook | None], lines: Mapping[str, list[Line]]) -> dict[str, Chain]:
    named = {placed_name(table, bare): Chain(tuple(lines.get(bare, ())), hook) for bare, hook in hooks.items()}
    named.pop(ABOUT, None)
    return named


def _program(
    hits: Mapping[str, int],
    sets: Mapping[str, NamedSet],
    maps: Mapping[str, VerdictMap],
    chains: Mapping[str, Chain],
) -> Program:
    return Program(frozenset(hits), MappingProxyType(sets), MappingProxyType(maps), MappingProxyType(chains))


def _only(generations: set[Generation]) -> Generation | None:
    return next(iter(generations)) if len(generations) == 1 else None


def _dump(type_: int, table: TableFamily, payload: bytes = b"") -> bytes:
    family = PROTOCOL_FAMILY[table]
    return pack_message(SUBSYSTEM_NFTABLES << 8 | type_, F_REQUEST | F_DUMP, 1, payload, family=family)


def _get(type_: int, table: TableFamily, payload: bytes) -> bytes:
    """One object of our table by its name."""
    whole, family = pack_text(1, TABLE) + payload, PROTOCOL_FAMILY[table]
    return pack_message(SUBSYSTEM_NFTABLES << 8 | type_, F_REQUEST | F_ACK, 1, whole, family=family)


def _answers(blob: bytes, type_: int) -> list[Attributes]:
    wanted = SUBSYSTEM_NFTABLES << 8 | type_
    return [parse(message.payload) for message in parse_messages(blob) if message.type == wanted]


def _hooks(chains: bytes) -> dict[str, Hook | None]:
    return {text_of(a[3]): _hook(a) for a in _answers(chains, _NEW_CHAIN) if text_of(a[1]) == TABLE}


def _hook(attributes: Attributes) -> Hook | None:
    if 4 not in attributes:
        return None
    place = parse(attributes[4])
    name = next((name for name, number in HOOK_NUMBER.items() if number == number_of(place[1])), None)
    priority = int.from_bytes(place[2], "big", signed=True)
    if name is None or number_of(attributes[5]) == _POLICY_DROP:
        return Hook(next(iter(HOOK_NUMBER)), 1 << 31)  # a place we never use: differs from every desired one
    return Hook(name, priority)


def _lines(rules: bytes, table: TableFamily, mask: int) -> tuple[dict[str, list[Line]], set[Generation], About | None]:
    lines: dict[str, list[Line]] = {}
    generations: set[Generation] = set()
    about: About | None = None
    for attributes in _answers(rules, NEW_RULE):
        if text_of(attributes[1]) != TABLE:
            continue
        chain = text_of(attributes[2])
        if placed_name(table, chain) == ABOUT:
            about = _about(attributes) or about
            continue
        line, generation = decode_line(attributes.get(4, b""), mask, table=table)
        lines.setdefault(chain, []).append(line)
        if generation is not None:
            generations.add(generation)
    return lines, generations, about


def _about(attributes: Attributes) -> About | None:
    note = attributes.get(7, b"")
    if len(note) < 2 or note[0] != _COMMENT:
        return None
    return parse_about(text_of(note[2 : 2 + note[1]]))


def _map(attributes: Attributes, elements: bytes, table: TableFamily) -> VerdictMap:
    type_ = _KEYS.get(number_of(attributes[4]))
    if type_ is None or number_of(attributes.get(3, b"")) != SET_MAP:
        return VerdictMap(type=None)
    targets: dict[Scalar, str] = {}
    for key, element in _elements(elements):
        verdict = parse(parse(element[2])[2])
        jumps = number_of(verdict[1]) == VERDICT_JUMP & 0xFFFFFFFF
        targets[_scalar(key, type_)] = placed_name(table, text_of(verdict[2])) if jumps else ""
    return VerdictMap(MappingProxyType(targets), type_)


def _set(attributes: Attributes, elements: bytes) -> NamedSet:
    types = _SHAPES.get(number_of(attributes[4]), ())
    flags = number_of(attributes.get(3, b""))
    if flags == SET_TALLY:
        return _tally(attributes, types)
    if flags == SET_COUNTED and number_of(attributes.get(15, b"")) == OBJECT_COUNTER:
        counted = frozenset(_counted_element(element, types) for _, element in _elements(elements))
        return NamedSet(types, counted, counted=True)
    interval = bool(flags & SET_INTERVAL)
    if flags & ~SET_INTERVAL or not types or (interval and len(types) > 1):
        return NamedSet(())
    if interval:
        return NamedSet(types, _intervals(elements, TYPE_SIZE[types[0]]), interval=True)
    return NamedSet(types, frozenset(_element(key, types) for key, _ in _elements(elements)))


def _shared(name: str, set_: NamedSet) -> dict[str, NamedSet]:
    """The sets of the program whose elements lie in one of the kernel's; all but the members' are one of both."""
    if name not in FAMILY_OF or len(set_.types) <= WORDS:
        return {name: set_}
    found: dict[str, set[Element]] = {}
    for element in set_.elements:
        if isinstance(element, tuple):
            words = tuple(word for word in element[:WORDS] if isinstance(word, int))
            found.setdefault(member_set_of(words, FAMILY_OF[name]), set()).add(element[WORDS:])
    types = set_.types[WORDS:]
    members = {member: NamedSet(types, frozenset(elements)) for member, elements in found.items()}
    return {name: NamedSet(set_.types), **members}


def _tally(attributes: Attributes, types: tuple[ElementType, ...]) -> NamedSet:
    size, life_ms = parse(attributes.get(9, b"")).get(1, b""), attributes.get(11, b"")
    ours = (number_of(size), number_of(life_ms)) == (TALLY_SIZE, TALLY_LIFE_MS)
    return NamedSet(types if ours else (), tally=True)


def _elements(blob: bytes) -> list[tuple[bytes, Attributes]]:
    found = []
    for message in _answers(blob, NEW_ELEMENTS):
        for _, element in parse_list(message.get(3, b"")):
            attributes = parse(element)
            found.append((parse(attributes[1])[1], attributes))
    return found


def _intervals(blob: bytes, size: int) -> frozenset[Element]:
    """Starts and ends in order of address; a start with no end reaches to the last address of the family."""
    marks = sorted(
        (int.from_bytes(key, "big"), not number_of(a.get(3, b"")) & ELEMENT_INTERVAL_END) for key, a in _elements(blob)
    )
    found: set[Element] = set()
    first: int | None = None
    for address, is_start in marks:
        if first is not None:
            found.add(Interval(first, address - 1))
        first = address if is_start else None
    if first is not None:
        found.add(Interval(first, (1 << 8 * size) - 1))
    return frozenset(found)


def _element(key: bytes, types: tuple[ElementType, ...]) -> tuple[Scalar, ...]:
    scalars: list[Scalar] = []
    offset = 0
    for type_ in types:
        scalars.append(_scalar(key[offset : offset + TYPE_SIZE[type_]], type_))
        offset += (TYPE_SIZE[type_] + 3) & ~3
    return tuple(scalars)


def _counted_element(attributes: Attributes, types: tuple[ElementType, ...]) -> Counted:
    first = parse(attributes[1])[1]
    last = parse(attributes[10])[1] if 10 in attributes else first
    key: list[Interval | str] = []
    offset = 0
    for type_ in types:
        until = offset + TYPE_SIZE[type_]
        key.append(_span(first[offset:until], last[offset:until], type_))
        offset += (TYPE_SIZE[type_] + 3) & ~3
    return Counted(tuple(key), text_of(attributes[9]))


def _span(first: bytes, last: bytes, type_: ElementType) -> Interval | str:
    if type_ is not ElementType.INTERFACE:
        return Interval(int.from_bytes(first, "big"), int.from_bytes(last, "big"))
    return text_of(first) if first == last else f"{text_of(first)}-{text_of(last)}"


def _scalar(octets: bytes, type_: ElementType) -> Scalar:
    match type_:
        case ElementType.INTERFACE:
            return text_of(octets)
        case ElementType.IPV4:
            return IPv4Address(octets)
        case ElementType.IPV6:
            return IPv6Address(octets)
        case ElementType.ETHER:
            return octets.hex(":")
        case ElementType.NUMBER:
            return int.from_bytes(octets, HOST_ORDER)
        case ElementType.PROTOCOL | ElementType.PORT:
            return int.from_bytes(octets, "big")


__all__ = [
    "Conversation",
    "Reading",
    "find_lines",
    "hits_in",
    "read_about",
    "read_counters",
    "read_table",
    "read_tallies",
    "read_touched",
    "request_counters",
]
