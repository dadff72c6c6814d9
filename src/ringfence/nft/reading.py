"""Reads our table in the kernel back into a program, as a conversation of dump requests and answers.

Sans-I/O: ``read_table`` yields a request and is sent the octets of its answer, so that the same code serves a socket
and a recording. The kernel's count of transactions, anybody's, is read before and after; if it moved, the reading is
repeated, until it did not or two readings say the same.
"""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from ringfence.nft.batch import (
    ABOUT,
    CHAIN_TYPE,
    DATA_VERDICT,
    HOOK_NUMBER,
    SET_ANONYMOUS,
    SET_COUNTED,
    SET_INTERVAL,
    SET_MAP,
    SET_TALLY,
    TALLY_LIFE_MS,
    TALLY_SIZE,
    About,
    parse_about,
)
from ringfence.nft.counting import parse_counters
from ringfence.nft.decoding import decode_line
from ringfence.nft.elements import (
    decode_counted,
    decode_elements,
    decode_intervals,
    decode_scalar,
    key_type,
    keyed_elements,
)
from ringfence.nft.expressions import VERDICT_JUMP
from ringfence.nft.generation import DEFAULT_MASK, Generation, generation_of, mark_of
from ringfence.nft.members import FAMILY_OF, WORDS, member_set_of
from ringfence.nft.messages import (
    GET_CHAIN,
    GET_ELEMENTS,
    GET_OBJECT,
    GET_RULE,
    GET_SET,
    GET_TABLE,
    NEW_CHAIN,
    NEW_GENERATION,
    NEW_RULE,
    NEW_SET,
    NEW_TABLE,
    OBJECT_COUNTER,
    PROTOCOL_FAMILY,
    TABLE,
    answers_in,
    expressions_in,
    request_dump,
    request_generation,
    request_named,
    request_one,
)
from ringfence.nft.netlink import (
    Attributes,
    number_of,
    pack_number,
    pack_text,
    parse,
    text_of,
)
from ringfence.nft.notices import Touched
from ringfence.policy.program.model import (
    Chain,
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

_ATTEMPTS: Final = 5
_POLICY_DROP: Final = 0
_DORMANT: Final = 1
_COMMENT: Final = 0
_ELEMENT_EXPRESSIONS: Final = 11

# The types of all sets that ringfence makes. A set of any other type is read as one without types, and so never equals
# a desired one.
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
    """``program`` is None without any table of ours, ``generation`` when it is missing or contradictory.

    ``hits``: the packets that each counter has counted. ``dormant``: a table is switched off, so no packet reaches it.
    """

    program: Program | None
    generation: Generation | None = None
    about: About | None = None
    hits: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    kernel_generation: int = 0  # counts every transaction of the whole network namespace
    dormant: bool = False


Conversation = Generator[bytes, bytes, Reading]


def read_table(mask: int = DEFAULT_MASK) -> Conversation:
    """Reads everything in our table. O(table): for start, repair and tests, never for a change.

    Other programs may change their own tables without pause. Raises ``TimeoutError`` when ours changed all the time.
    """
    earlier: Reading | None = None
    for _ in range(_ATTEMPTS):
        before = yield from _read_generation()
        reading = yield from _read_once(mask, before)
        after = yield from _read_generation()
        if before == after:
            return reading
        if earlier is not None and _content(earlier) == _content(reading):
            return earlier  # with the earlier count: what came since may yet concern our table
        earlier = reading
    raise TimeoutError(f"our table changed during each of {_ATTEMPTS} readings")


def _content(reading: Reading) -> tuple[object, ...]:
    return reading.program, reading.generation, reading.about, reading.dormant


def read_counters() -> Generator[bytes, bytes, dict[str, int]]:
    """The packets counted by each counter of both tables."""
    found: dict[str, int] = {}
    for table in TableFamily:
        found |= yield from _read_counters(table)
    return found


def _read_counters(table: TableFamily) -> Generator[bytes, bytes, dict[str, int]]:
    answer = yield request_counters(table)
    return hits_in(answer, table)


def request_counters(table: TableFamily) -> bytes:
    """The request for every counter of our table."""
    return request_dump(GET_OBJECT, PROTOCOL_FAMILY[table], pack_text(1, TABLE) + pack_number(3, OBJECT_COUNTER))


def hits_in(answer: bytes, table: TableFamily) -> dict[str, int]:
    """The packets counted by each counter in the answer, or in a part of it that consists of whole messages."""
    return {placed_name(table, name): hits for name, hits in parse_counters(answer).items()}


def read_tallies(names: Iterable[str]) -> Generator[bytes, bytes, dict[tuple[str, str], int]]:
    """The packets counted in tallies, by tally and interface. O(interfaces)."""
    found: dict[tuple[str, str], int] = {}
    for name in names:
        table, bare = place_of(name)
        elements = yield request_named(GET_ELEMENTS, table, bare)
        found |= {(name, text_of(key)): _counted(attributes) for key, attributes in keyed_elements(elements)}
    return found


def _counted(element: Attributes) -> int:
    """The packets counted by an element's counter; 0 without one."""
    expressions = expressions_in(element.get(_ELEMENT_EXPRESSIONS, b""))
    return next((number_of(details[2]) for name, details in expressions if name == "counter"), 0)


def read_about() -> Generator[bytes, bytes, About | None]:
    """The note in the table: it proves which transaction was carried out."""
    answer = yield request_named(GET_RULE, TableFamily.INET, ABOUT)
    return next((about for attributes in answers_in(answer, NEW_RULE) if (about := _about(attributes))), None)


def find_lines(
    doomed: Iterable[DeleteLine], mask: int = DEFAULT_MASK
) -> Generator[bytes, bytes, dict[DeleteLine, int]]:
    """The kernel's handles of lines to delete, without those that it does not have. O(lines of their chains)."""
    wanted, found = frozenset(doomed), dict[DeleteLine, int]()
    for chain in sorted({step.chain for step in wanted}):
        table, bare = place_of(chain)
        rules = yield request_named(GET_RULE, table, bare)
        for attributes in answers_in(rules, NEW_RULE):
            line, _ = decode_line(attributes.get(4, b""), mask, table=table)
            if (step := DeleteLine(chain, line)) in wanted:
                found[step] = int.from_bytes(attributes[3], "big")
    return found


def read_touched(touched: Touched, mask: int = DEFAULT_MASK) -> Conversation:
    """Reads only the objects that ``touched`` names, and the note. O(their lines and elements).

    A named object that the reading lacks does not exist; ``generation`` is that of the objects read.
    """
    chains: dict[str, Chain] = {}
    generations: set[Generation] = set()
    for table, bare in map(place_of, sorted(touched.chains - {ABOUT})):
        hooks = _hooks((yield request_one(GET_CHAIN, table, pack_text(3, bare))))
        rules = yield request_named(GET_RULE, table, bare)
        lines, stamped, _ = _lines(rules, table, mask)
        chains |= _chains(table, hooks, lines)
        generations |= stamped
    sets: dict[str, NamedSet] = {}
    maps: dict[str, VerdictMap] = {}
    for table, bare in map(place_of, sorted(touched.sets)):
        listing = yield request_one(GET_SET, table, pack_text(2, bare))
        yield from _read_sets(table, listing, sets, maps)
    generations |= _take_generation(sets, mask)
    hits: dict[str, int] = {}
    for table, bare in map(place_of, sorted(touched.counters)):
        answer = yield request_one(GET_OBJECT, table, pack_text(2, bare) + pack_number(3, OBJECT_COUNTER))
        hits |= {placed_name(table, name): counted for name, counted in parse_counters(answer).items()}
    about = yield from read_about()
    return Reading(_program(hits, sets, maps, chains), _only(generations), about, MappingProxyType(hits))


def _read_generation() -> Generator[bytes, bytes, int]:
    answer = yield request_generation()
    return next((number_of(attributes[1]) for attributes in answers_in(answer, NEW_GENERATION)), 0)


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
    """What has been read so far, of one table after the other."""

    tables: set[TableFamily] = field(default_factory=set)
    chains: dict[str, Chain] = field(default_factory=dict)
    sets: dict[str, NamedSet] = field(default_factory=dict)
    maps: dict[str, VerdictMap] = field(default_factory=dict)
    hits: dict[str, int] = field(default_factory=dict)
    generations: set[Generation] = field(default_factory=set)
    about: About | None = None
    dormant: bool = False


def _read_family(table: TableFamily, mask: int, found: _Found) -> Generator[bytes, bytes, None]:
    tables = yield request_dump(GET_TABLE, PROTOCOL_FAMILY[table])
    ours = next((attributes for attributes in answers_in(tables, NEW_TABLE) if text_of(attributes[1]) == TABLE), None)
    if ours is None:
        return
    found.tables.add(table)
    found.dormant |= bool(number_of(ours.get(2, b"")) & _DORMANT)
    hooks = _hooks((yield request_dump(GET_CHAIN, PROTOCOL_FAMILY[table])))
    for bare, hook in hooks.items():  # a dump of all chains would start over from the first line for every page
        rules = yield request_named(GET_RULE, table, bare)
        lines, generations, about = _lines(rules, table, mask)
        found.chains |= _chains(table, {bare: hook}, lines)
        found.generations |= generations
        found.about = found.about or about
    listing = yield request_dump(GET_SET, PROTOCOL_FAMILY[table], pack_text(1, TABLE))
    yield from _read_sets(table, listing, found.sets, found.maps)
    found.hits |= yield from _read_counters(table)


def _read_sets(
    table: TableFamily, listing: bytes, sets: dict[str, NamedSet], maps: dict[str, VerdictMap]
) -> Generator[bytes, bytes, None]:
    """Reads the elements of the sets and maps in the listing, and adds them to ``sets`` and ``maps``."""
    for attributes in answers_in(listing, NEW_SET):
        if number_of(attributes.get(3, b"")) & SET_ANONYMOUS:
            continue  # a part of its line, which is not ours
        bare = text_of(attributes[2])
        elements = yield request_named(GET_ELEMENTS, table, bare)
        if number_of(attributes.get(6, b"")) == DATA_VERDICT:
            maps[placed_name(table, bare)] = _map(attributes, elements, table)
        else:
            sets |= _shared(placed_name(table, bare), _set(attributes, elements))


def _take_generation(sets: dict[str, NamedSet], mask: int) -> set[Generation]:
    """Takes the generation, which is no part of a program, out of its set; with other content the set is foreign."""
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


def _hooks(chains: bytes) -> dict[str, Hook | None]:
    return {text_of(a[3]): _hook(a) for a in answers_in(chains, NEW_CHAIN) if text_of(a[1]) == TABLE}


def _hook(attributes: Attributes) -> Hook | None:
    if 4 not in attributes:
        return None
    place = parse(attributes[4])
    name = next((name for name, number in HOOK_NUMBER.items() if number == number_of(place[1])), None)
    priority = int.from_bytes(place[2], "big", signed=True)
    is_filter = text_of(attributes[7]) == CHAIN_TYPE  # one of NAT sees the first packet of a flow alone
    if name is None or not is_filter or number_of(attributes[5]) == _POLICY_DROP:
        return Hook(next(iter(HOOK_NUMBER)), 1 << 31)  # ringfence never uses it: differs from every desired one
    return Hook(name, priority)


def _lines(rules: bytes, table: TableFamily, mask: int) -> tuple[dict[str, list[Line]], set[Generation], About | None]:
    lines: dict[str, list[Line]] = {}
    generations: set[Generation] = set()
    about: About | None = None
    for attributes in answers_in(rules, NEW_RULE):
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
    for key, element in keyed_elements(elements):
        verdict = parse(parse(element[2])[2])
        jumps = number_of(verdict[1]) == VERDICT_JUMP & 0xFFFFFFFF
        targets[decode_scalar(key, type_)] = placed_name(table, text_of(verdict[2])) if jumps else ""
    return VerdictMap(MappingProxyType(targets), type_)


def _set(attributes: Attributes, elements: bytes) -> NamedSet:
    types = _SHAPES.get(number_of(attributes[4]), ())
    flags = number_of(attributes.get(3, b""))
    if flags == SET_TALLY:
        return _tally(attributes, types)
    if flags == SET_COUNTED and number_of(attributes.get(15, b"")) == OBJECT_COUNTER:
        return NamedSet(types, decode_counted(elements, types), counted=True)
    interval = bool(flags & SET_INTERVAL)
    if flags & ~SET_INTERVAL or not types or (interval and len(types) > 1):
        return NamedSet(())
    if interval:
        return NamedSet(types, decode_intervals(elements, types[0]), interval=True)
    return NamedSet(types, decode_elements(elements, types))


def _shared(name: str, set_: NamedSet) -> dict[str, NamedSet]:
    """The program's sets that one set of the kernel holds: many for the set of all members, else that one alone."""
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
