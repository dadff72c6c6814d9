"""nf_tables expressions -> one line of the program: the inverse of ``expressions``.

What ringfence would not have written becomes a ``Foreign`` part, so that a tampered chain never equals a desired one.
"""

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network
from typing import Final

from ringfence.nft.expressions import (
    EQUAL,
    EXTHDR_PRESENT,
    GREATER_EQUAL,
    HOLDS_EXPRESSIONS,
    LESS_EQUAL,
    LOG_GROUP,
    LOG_SNAPLEN,
    NOT_EQUAL,
    UPDATE_ELEMENT,
    VERDICT_ACCEPT,
    VERDICT_DROP,
    VERDICT_GOTO,
    VERDICT_JUMP,
    asks_ethernet,
    needs_of,
    register_at,
    registers_of,
)
from ringfence.nft.fields import (
    CT_MARK,
    CT_STATE,
    IS_ETHERNET,
    LOADS,
    MARK,
    PRESENCES,
    TCP_FLAG_MASK,
    TCP_FLAGS,
    TCP_SYN,
    Load,
    Source,
    field_of,
    loads_of,
    value_of,
)
from ringfence.nft.generation import DEFAULT_MASK, Generation, generation_of
from ringfence.nft.members import FAMILY_OF, WORDS, member_set_of
from ringfence.nft.messages import expressions_in
from ringfence.nft.netlink import Attributes, number_of, parse, text_of
from ringfence.policy.program.model import (
    LOG_BURST,
    LOG_RATE,
    Accept,
    Between,
    Count,
    CountBy,
    Differs,
    Dispatch,
    Drop,
    Equal,
    Field,
    Foreign,
    Fresh,
    Goto,
    Has,
    Header,
    InState,
    Jump,
    Lacks,
    Line,
    Log,
    Masked,
    Member,
    NotOpening,
    Part,
    Seldom,
    Stamp,
    StartsWith,
    State,
    Within,
)
from ringfence.policy.program.names import FRESH, TableFamily, placed_name

_SPECIAL: Final = (CT_STATE, CT_MARK, TCP_FLAGS, MARK)
_PORTS: Final = {LOADS[Field.SOURCE_PORT], LOADS[Field.DESTINATION_PORT]}
_TRANSPORT_OF: Final = {  # the fields of the transport header, by the protocol that was compared before
    6: {TCP_FLAGS, *_PORTS},
    1: {LOADS[Field.ICMP_TYPE], LOADS[Field.ICMP_CODE]},
    58: {
        LOADS[field]
        for field in (
            Field.ICMPV6_TYPE,
            Field.ICMPV6_CODE,
            Field.ND_TARGET6,
            Field.ND_OPTION,
            Field.ND_OPTION_ETHER,
            Field.RS_OPTION,
            Field.RS_OPTION_ETHER,
        )
    },
    17: _PORTS,
}


class _Unknown(Exception):
    """An expression, or a use of one, that ringfence never writes."""


@dataclass(slots=True)
class _Register:
    """What a register holds while a line is read."""

    load: Load
    size: int
    mask: bytes | None = None
    xor: bytes = b""


class _Reader:
    """Reads the expressions of one rule in order; owns the registers and the parts found so far."""

    def __init__(self, mask: int, table: TableFamily) -> None:
        self.parts: list[Part | Foreign] = []
        self.generation: Generation | None = None
        self._mask = mask
        self._table = table
        self._loads = loads_of(table)
        self._registers: dict[int, _Register] = {}
        self._headers: dict[int, Header] = {}  # registers that hold whether a packet has a header
        self._from: tuple[Field, int] | None = None  # lower end of a range whose upper end must come next

    def read(self, name: str, attributes: Attributes) -> None:
        match name:
            case "meta" | "ct" | "payload" if 1 in attributes:
                self._headers.pop(number_of(attributes[1]), None)
                self._registers[number_of(attributes[1])] = self._loaded(name, attributes)
            case "ct":
                self._store_mark(attributes)
            case "exthdr":
                self._headers[number_of(attributes[1])] = _header_of(attributes)
            case "bitwise":
                register = self._register(attributes[1])
                if number_of(attributes.get(6, b"")):
                    raise _Unknown("a shift")
                register.mask, register.xor = _value(attributes[4]), _value(attributes[5])
            case "cmp":
                octets = _value(attributes[3])
                if number_of(attributes[1]) in self._headers:
                    self._append(_present(self._headers[number_of(attributes[1])], number_of(attributes[2]), octets))
                    return
                self._append(self._compared(self._register(attributes[1]), number_of(attributes[2]), octets))
            case "lookup":
                self._append(self._looked_up(attributes))
            case _:
                self._append(self._acted(name, attributes))

    def _acted(self, name: str, attributes: Attributes) -> Part:
        match name:
            case "objref" if 3 in attributes:
                return CountBy(self._joined_from(attributes[3]), self._named(attributes[4]))
            case "objref":
                return Count(self._named(attributes[2]))
            case "dynset":
                return self._tallied(attributes)
            case "log":
                return _logged(attributes)
            case "immediate":
                return self._verdict(parse(parse(attributes[2])[2]))
            case _:
                raise _Unknown(name)

    def _append(self, part: Part | Foreign | None) -> None:
        if part is None:
            return
        self.check_whole()
        if self.parts and isinstance(self.parts[-1], Equal):  # all that ``_needs`` returns are such
            for needed in _needs(part, self._table):
                if self.parts and self.parts[-1] == needed:
                    self.parts.pop()
        self.parts.append(part if isinstance(part, Count) else _shared(part))  # counters are different in each line

    def check_whole(self) -> None:
        """Raises when a range has only its lower end: dropping it would make the line look wider than it is."""
        if self._from is not None:
            raise _Unknown("half a range")

    def _register(self, number: bytes) -> _Register:
        if number_of(number) not in self._registers:
            raise _Unknown("a register that nothing was loaded into")
        return self._registers[number_of(number)]

    def _loaded(self, name: str, attributes: Attributes) -> _Register:
        if name == "payload":
            base, offset, size = (number_of(attributes[index]) for index in (2, 3, 4))
            return _Register(self._payload(base, offset, size), size)
        way = attributes[3][0] if name == "ct" and 3 in attributes else None
        key = number_of(attributes[2])
        load = _load_of(Source(name), key, way, self._table)
        if load is None:
            raise _Unknown(f"{name} key {key}")
        return _Register(load, load.size)

    def _payload(self, base: int, offset: int, size: int) -> Load:
        protocols = [part.value for part in self.parts if isinstance(part, Equal) and part.field is Field.PROTOCOL]
        established = [*self.parts, *(needed for part in self.parts for needed in _needs(part, self._table))]
        for load in (*self._loads.values(), TCP_FLAGS):
            shortened = _is_address(load) and size < load.size
            if load.source.value != base or load.key != offset or not (size == load.size or shortened):
                continue
            if load in _PORTS:
                return load
            if load.source is Source.TRANSPORT:
                if protocols and load in _TRANSPORT_OF.get(int(protocols[-1]), set()):
                    return load
            elif load.needs is None or load.needs in established:
                return load
        raise _Unknown(f"payload {base} + {offset}")

    def _verdict(self, attributes: Attributes) -> Part:
        code = int.from_bytes(attributes[1], "big", signed=True)
        match code:
            case c if c == VERDICT_ACCEPT:
                return Accept()
            case c if c == VERDICT_DROP:
                return Drop()
            case c if c == VERDICT_JUMP:
                return Jump(self._named(attributes[2]))
            case c if c == VERDICT_GOTO:
                return Goto(self._named(attributes[2]))
            case _:
                raise _Unknown(f"verdict {code}")

    def _named(self, name: bytes) -> str:
        return placed_name(self._table, text_of(name))

    def _store_mark(self, attributes: Attributes) -> None:
        register = self._register(attributes[4])
        kept = (~self._mask & 0xFFFFFFFF).to_bytes(4, CT_MARK.order)
        if number_of(attributes[2]) != CT_MARK.key or register.load != CT_MARK or register.mask != kept:
            raise _Unknown("ct set")
        self.generation = generation_of(int.from_bytes(register.xor, CT_MARK.order), self._mask)
        self._append(Stamp())

    def _compared(self, register: _Register, operation: int, octets: bytes) -> Part | Foreign | None:
        load = register.load
        if load in _SPECIAL:
            return self._compared_special(register, operation, octets)
        field = field_of(load)
        if _is_address(load):
            return _within(field, register, operation, octets)
        value = value_of(field, octets, self._table)
        if load.source is Source.META and len(octets) < load.size and isinstance(value, str) and operation == EQUAL:
            return StartsWith(field, octets.decode("ascii"))
        if register.mask is None:
            return self._compared_value(field, operation, value)
        if operation != EQUAL or any(register.xor) or not isinstance(value, int):
            raise _Unknown("a masked comparison")
        return Masked(field, int.from_bytes(register.mask, load.order), value)

    def _compared_value(self, field: Field, operation: int, value: int | str) -> Part | None:
        if operation == GREATER_EQUAL and isinstance(value, int):
            self.check_whole()
            self._from = field, value
            return None
        if operation == LESS_EQUAL and self._from is not None and isinstance(value, int):
            (begun, first), self._from = self._from, None
            if begun is not field:
                raise _Unknown("a range of two fields")
            return Between(field, first, value)
        if operation == NOT_EQUAL and isinstance(value, int):
            return Differs(field, value)
        if operation == EQUAL:
            return Equal(field, value)
        raise _Unknown(f"comparison {operation}")

    def _compared_special(self, register: _Register, operation: int, octets: bytes) -> Part | Foreign:
        load, order = register.load, register.load.order
        mask = int.from_bytes(register.mask or b"", order)
        value = int.from_bytes(octets, order)
        if load == CT_STATE and (operation, value) == (NOT_EQUAL, 0):
            return InState(frozenset(state for state in State if state.value & mask))
        if load == TCP_FLAGS and (operation, mask, value) == (NOT_EQUAL, TCP_FLAG_MASK, TCP_SYN):
            return NotOpening()
        raise _Unknown(load.text)

    def _looked_up(self, attributes: Attributes) -> Part:
        set_ = self._named(attributes[1])
        if set_ in FAMILY_OF and 3 not in attributes:
            return self._looked_up_numbered(set_)
        register = self._register(attributes[2])
        if number_of(attributes.get(5, b"")):
            raise _Unknown("an inverted look-up")
        if set_ == FRESH and 3 not in attributes:
            return self._looked_up_generation(register)
        if 3 in attributes:
            return Dispatch(self._field_in(register), set_)
        return Member(self._joined_from(attributes[2]), set_)

    def _field_in(self, register: _Register) -> Field:
        if register.mask is not None:
            raise _Unknown("a masked look-up")
        return field_of(register.load)

    def _looked_up_numbered(self, set_: str) -> Part:
        words = tuple(self._word(register_at(offset)) for offset in range(WORDS))
        last = self._registers[register_at(WORDS)]
        if last.mask is not None:
            raise _Unknown("a masked look-up")
        return Member((field_of(last.load),), member_set_of(words, FAMILY_OF[set_]))

    def _looked_up_generation(self, register: _Register) -> Part:
        kept = self._mask.to_bytes(4, CT_MARK.order)
        if (register.load, register.mask) != (CT_MARK, kept) or any(register.xor):
            raise _Unknown("a look-up of no generation")
        return Fresh()

    def _word(self, number: int) -> int:
        """The constant in a register."""
        register = self._registers[number]
        if register.load != MARK or register.mask is None or any(register.mask):
            raise _Unknown("a number that is no constant")
        return int.from_bytes(register.xor, MARK.order)

    def _tallied(self, attributes: Attributes) -> Part:
        # A flag says that the update is inverted; kernels may or may not set the one for expressions.
        inverted = number_of(attributes.get(9, b"")) & ~HOLDS_EXPRESSIONS
        inner = list(expressions_in(attributes.get(10, b"")))
        wanted = (UPDATE_ELEMENT, ["counter", "limit"])
        if inverted or (number_of(attributes[3]), [name for name, _ in inner]) != wanted:
            raise _Unknown("an update of a set")
        if tuple(number_of(inner[1][1][key]) for key in (1, 2, 3, 4, 5)) != (LOG_RATE, 1, LOG_BURST, 0, 0):
            raise _Unknown("a limit")
        return Seldom(field_of(self._register(attributes[4]).load), self._named(attributes[1]))

    def _joined_from(self, first: bytes) -> tuple[Field, ...]:
        """The fields in consecutive registers from the first on; forgets them, for a later key may be shorter."""
        fields = [self._field_in(self._register(first))]
        while True:
            *_, following = registers_of((*fields, Field.PROTOCOL))
            if following not in self._registers:
                self._registers.clear()
                return tuple(fields)
            fields.append(field_of(self._registers[following].load))


def decode_line(
    expressions: bytes, mask: int = DEFAULT_MASK, *, table: TableFamily = TableFamily.INET
) -> tuple[Line, Generation | None]:
    """The line for a list of expressions in a table of that family, and the generation that it stamps, if any."""
    reader = _Reader(mask, table)
    try:
        for name, attributes in expressions_in(expressions):
            reader.read(name, attributes)
        reader.check_whole()
    except (_Unknown, KeyError, IndexError, ValueError, StopIteration) as error:
        return Line((Foreign(f"not one of ringfence's lines: {error}"),)), None
    return Line(tuple(reader.parts)), reader.generation


@lru_cache(maxsize=4096)
def _value(nested: bytes) -> bytes:
    return parse(nested)[1]


@lru_cache(maxsize=4096)
def _shared(part: Part | Foreign) -> Part | Foreign:
    """One object for equal parts, so that a hundred thousand lines do not hold one each."""
    return part


@lru_cache(maxsize=1024)
def _load_of(source: Source, key: int, way: int | None, table: TableFamily) -> Load | None:
    for load in (*loads_of(table).values(), *_SPECIAL):
        if (load.source, load.key, load.direction) == (source, key, way):
            return load
    return None


def _present(header: Header, operation: int, octets: bytes) -> Has | Lacks:
    if operation != EQUAL or octets not in (b"\x00", b"\x01"):
        raise _Unknown("another look for a header")
    return Has(header) if any(octets) else Lacks(header)


def _logged(attributes: Attributes) -> Log:
    place = (number_of(attributes.get(1, b"")), number_of(attributes.get(3, b"")))
    if place != (LOG_GROUP, LOG_SNAPLEN) or attributes.keys() - {1, 2, 3, 4} or number_of(attributes.get(4, b"")):
        raise _Unknown("a log")
    return Log(text_of(attributes[2]))


def _within(field: Field, register: _Register, operation: int, octets: bytes) -> Within:
    if operation != EQUAL:
        raise _Unknown("an address comparison that is no equality")
    size = register.load.size
    length = len(octets) * 8
    if register.mask is not None:
        length = int.from_bytes(register.mask, "big").bit_count()
        if any(register.xor) or register.mask != _prefix_mask(length, size):
            raise _Unknown("an address mask that is no prefix")
    return Within(field, ip_network((octets.ljust(size, b"\0"), length)))


def _prefix_mask(length: int, size: int) -> bytes:
    return ((1 << 8 * size) - (1 << 8 * size - length)).to_bytes(size, "big")


def _is_address(load: Load) -> bool:
    return load.size in (4, 16) and load.source in (Source.NETWORK, Source.CT)


def _header_of(attributes: Attributes) -> Header:
    if number_of(attributes[5]) != EXTHDR_PRESENT:
        raise _Unknown("the content of a header")
    wanted = number_of(attributes[6]), number_of(attributes[2])
    return next(header for header, known in PRESENCES.items() if (known.operation, known.number) == wanted)


def _needs(part: Part | Foreign, table: TableFamily) -> list[Equal]:
    """What nft may have put before ``part`` by itself, in our batch or in a text: it is no part of the line."""
    if isinstance(part, Foreign):
        return []
    return [*([IS_ETHERNET] if asks_ethernet(part) else []), *needs_of(part, table)]
