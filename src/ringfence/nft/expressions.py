"""One line of the program -> nf_tables expressions as attribute octets.

The shapes follow what nft 1.0.6 emits for the same text (``nft --debug=netlink``), so that both give the same listing.
Each expression loads into register 1 (a concatenated key continues in the next ones) and is used at once.
"""

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Final, assert_never

from ringfence.nft.fields import (
    CT_MARK,
    CT_STATE,
    IS_ETHERNET,
    IS_TCP,
    LOADS,
    MARK,
    PRESENCES,
    TCP_FLAG_MASK,
    TCP_FLAGS,
    TCP_SYN,
    Load,
    Presence,
    Source,
    loads_of,
    needed_by,
    octets_of,
)
from ringfence.nft.generation import DEFAULT_MASK, Generation, mark_of
from ringfence.nft.members import WORDS, kernel_set
from ringfence.nft.messages import OBJECT_COUNTER
from ringfence.nft.netlink import fill, pack, pack_nested, pack_number, pack_text
from ringfence.policy.program.model import (
    LOG_BURST,
    LOG_RATE,
    Accept,
    Action,
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
    Within,
)
from ringfence.policy.program.names import FRESH, TableFamily, bare_name

EQUAL, NOT_EQUAL, LESS_EQUAL, GREATER_EQUAL = 0, 1, 3, 5
VERDICT_ACCEPT, VERDICT_DROP, VERDICT_JUMP, VERDICT_GOTO = 1, 0, -3, -4
REGISTER_VERDICT, REGISTER_1 = 0, 1
_REGISTER_32: Final = 8
EXTHDR_PRESENT: Final = 1
_LIST_ELEMENT: Final = 1
LOG_GROUP: Final = 5280  # of nfnetlink_log; no other program is known to use it, and a group has one listener
LOG_SNAPLEN: Final = 128  # octets of a packet that are logged: its headers
UPDATE_ELEMENT: Final = 1
HOLDS_EXPRESSIONS: Final = 2  # NFT_DYNSET_F_EXPR


def encode_line(
    line: Line, generation: Generation, mask: int = DEFAULT_MASK, *, table: TableFamily = TableFamily.INET
) -> bytes:
    """The list of expressions of one line (content of NFTA_RULE_EXPRESSIONS) in a chain of our table of that family.

    Raises ``TypeError`` for a ``Foreign`` part.
    """
    listed: list[bytes] = []
    satisfied: set[Equal] = set()
    for part in line.parts:
        if isinstance(part, (Count, Stamp, Fresh)):  # differs in each line, or by generation and mask: not cached
            listed.append(_listed(_encode_part(part, generation, mask)))
            continue
        needs, octets = _encode_lasting(part, table)
        for needed in needs:
            if needed not in satisfied:
                listed.append(_encode_needed(needed, table))
                satisfied.add(needed)
        if isinstance(part, Equal):
            satisfied.add(part)
        listed.append(octets)
    return b"".join(listed)


@lru_cache(maxsize=1024)
def _encode_lasting(part: Part | Foreign, table: TableFamily) -> tuple[list[Equal], bytes]:
    """What a part needs before it, and the part encoded; cached, for it depends on no generation and recurs."""
    if isinstance(part, Foreign):
        raise TypeError(f"a foreign line is never written: {part.text}")
    octets = _listed([*_ethernet(part, table), *_encode_part(part, Generation(0), DEFAULT_MASK)])
    return needs_of(part, table), octets


def _counting(counter: bytes) -> bytes:
    return _expression("objref", pack_number(1, OBJECT_COUNTER), pack(2, counter + b"\0"))


@lru_cache(maxsize=64)
def _encode_needed(needed: Equal, table: TableFamily) -> bytes:
    return _listed(_compare(loads_of(table)[needed.field], octets_of(needed.field, needed.value, table)))


def _listed(expressions: list[bytes]) -> bytes:
    return b"".join(pack_nested(_LIST_ELEMENT, expression) for expression in expressions)


def jump_verdict(chain: str) -> bytes:
    """NFTA_DATA_VERDICT that jumps to a chain."""
    return _verdict(VERDICT_JUMP, chain.encode("ascii"))


def _verdict(code: int, chain: bytes = b"") -> bytes:
    """NFTA_DATA_VERDICT with its code and, for jump and goto, the chain's name."""
    return pack_nested(2, pack_number(1, code), pack(2, chain + b"\0") if chain else b"")


def _immediate(code: int, chain: bytes = b"") -> bytes:
    return _expression("immediate", pack_number(1, REGISTER_VERDICT), pack_nested(2, _verdict(code, chain)))


def _jump(chain: bytes) -> bytes:
    return _immediate(VERDICT_JUMP, chain)


def _goto(chain: bytes) -> bytes:
    return _immediate(VERDICT_GOTO, chain)


def _ethernet(part: Part, table: TableFamily) -> list[bytes]:
    """The check that a packet has a MAC address, before a key that contains it; on a bridge every frame has one."""
    if table is TableFamily.BRIDGE or not asks_ethernet(part):
        return []
    return _compare(LOADS[IS_ETHERNET.field], octets_of(IS_ETHERNET.field, IS_ETHERNET.value))


def asks_ethernet(part: Part) -> bool:
    """Whether it looks at the MAC address that a packet came from; nft puts the same check before it by itself."""
    match part:
        case Member(fields):
            return Field.ETHER_SOURCE in fields
        case Between(field):
            return field is Field.ETHER_SOURCE
        case _:
            return False


def count_here() -> bytes:
    """An anonymous counter, whose value is never read."""
    return _expression("counter")


def needs_of(part: Part, table: TableFamily) -> list[Equal]:
    """What must be compared before ``part`` makes sense; nft adds the same comparisons by itself."""
    match part:
        case NotOpening():
            return [IS_TCP]
        case Equal() | Differs() | Between() | Masked() | Within() | Dispatch():
            fields: tuple[Field, ...] = (part.field,)
        case Member(fields) | CountBy(fields):
            pass
        case Has(header) | Lacks(header):
            return [needed_by(header, table)]
        case _:
            fields = ()
    return [needed for field in fields if (needed := LOADS[field].needs) is not None]


def _encode_part(part: Part, generation: Generation, mask: int) -> list[bytes]:
    match part:
        case Equal(field, value) | Differs(field, value):
            return _compare(LOADS[field], octets_of(field, value), NOT_EQUAL if isinstance(part, Differs) else EQUAL)
        case Between(field, first, last):
            return [
                _load(LOADS[field]),
                _cmp(octets_of(field, first), GREATER_EQUAL),
                _cmp(octets_of(field, last), LESS_EQUAL),
            ]
        case Masked(field, bits, value):
            return _masked(LOADS[field], bits, value, EQUAL)
        case Within():
            return _within(part)
        case StartsWith(field, prefix):
            return [_load(LOADS[field]), _cmp(prefix.encode("ascii"))]
        case Member(fields, set_):
            kept, words = kernel_set(set_)
            loads = _load_numbered(words, fields) if words else _load_all(fields)
            return [*loads, _expression("lookup", pack_text(1, bare_name(kept)), pack_number(2, REGISTER_1))]
        case Has(header) | Lacks(header):
            return _present(PRESENCES[header], is_there=isinstance(part, Has))
        case InState(states):
            bits = sum(state.value for state in states)
            return _masked(CT_STATE, bits, 0, NOT_EQUAL)
        case NotOpening():
            return _masked(TCP_FLAGS, TCP_FLAG_MASK, TCP_SYN, NOT_EQUAL)
        case Seldom(field, tally):
            return [_load(LOADS[field]), _update(tally)]
        case Fresh():
            look_up = _expression("lookup", pack_text(1, FRESH), pack_number(2, REGISTER_1))
            return [_load(CT_MARK), _bitwise(CT_MARK, mask, 0), look_up]
        case _:
            return _encode_action(part, generation, mask)


def _encode_action(part: Action, generation: Generation, mask: int) -> list[bytes]:
    match part:
        case Count(counter):
            return [fill(_counting, bare_name(counter).encode("ascii"))]
        case CountBy(fields, set_):
            count = _expression("objref", pack_number(3, REGISTER_1), pack_text(4, bare_name(set_)))
            return [*_load_all(fields), count]
        case Log(prefix):
            place = pack(1, LOG_GROUP.to_bytes(2, "big")) + pack_text(2, prefix) + pack_number(3, LOG_SNAPLEN)
            return [_expression("log", place)]
        case Stamp():
            kept = ~mask & 0xFFFFFFFF
            store = _expression("ct", pack_number(2, CT_MARK.key), pack_number(4, REGISTER_1))
            return [_load(CT_MARK), _bitwise(CT_MARK, kept, mark_of(generation, mask)), store]
        case Dispatch(field, map_):
            dispatch = (pack_text(1, bare_name(map_)), pack_number(2, REGISTER_1), pack_number(3, REGISTER_VERDICT))
            return [_load(LOADS[field]), _expression("lookup", *dispatch)]
        case Jump(chain):
            return [fill(_jump, bare_name(chain).encode("ascii"))]
        case Goto(chain):
            return [fill(_goto, bare_name(chain).encode("ascii"))]
        case Accept():
            return [_immediate(VERDICT_ACCEPT)]
        case Drop():
            return [_immediate(VERDICT_DROP)]
        case _:
            assert_never(part)


def _update(tally: str) -> bytes:
    """Adds or updates the element for the field's value, counts in it, and goes on if its limit allows."""
    inner = pack_nested(_LIST_ELEMENT, _counter()) + pack_nested(_LIST_ELEMENT, _limit())
    place = pack_text(1, bare_name(tally)) + pack_number(3, UPDATE_ELEMENT) + pack_number(4, REGISTER_1)
    return _expression("dynset", place, pack_number(9, HOLDS_EXPRESSIONS), pack_nested(10, inner))


def _counter() -> bytes:
    return _expression("counter", pack(1, bytes(8)), pack(2, bytes(8)))


def _limit() -> bytes:
    """So many packets a second, and a burst after a silence (enum nft_limit_attributes)."""
    rate, second = LOG_RATE.to_bytes(8, "big"), (1).to_bytes(8, "big")
    return _expression(
        "limit", pack(1, rate), pack(2, second), pack_number(3, LOG_BURST), pack_number(4, 0), pack_number(5, 0)
    )


def _within(part: Within) -> list[bytes]:
    """An address in a network: compares only the first octets for a prefix of whole octets, else uses a mask."""
    load, network = LOADS[part.field], part.network
    octets = network.network_address.packed
    whole, rest = divmod(network.prefixlen, 8)
    if rest:
        mask = network.netmask.packed
        return [_load(load), _bitwise_octets(mask, bytes(len(mask))), _cmp(octets)]
    if load.source is Source.CT:
        return [_load(load), _cmp(octets[:whole])]
    return [_load(load, size=whole), _cmp(octets[:whole])]


def _compare(load: Load, octets: bytes, operation: int = EQUAL) -> list[bytes]:
    return [_load(load), _cmp(octets, operation)]


def _masked(load: Load, mask: int, value: int, operation: int) -> list[bytes]:
    return [_load(load), _bitwise(load, mask, 0), _cmp(value.to_bytes(load.size, load.order), operation)]


def _bitwise(load: Load, mask: int, xor: int, *, register: int = REGISTER_1) -> bytes:
    octets = mask.to_bytes(load.size, load.order), xor.to_bytes(load.size, load.order)
    return _bitwise_octets(*octets, register=register)


def _bitwise_octets(mask: bytes, xor: bytes, *, register: int = REGISTER_1) -> bytes:
    registers = pack_number(1, register) + pack_number(2, register) + pack_number(3, len(mask))
    return _expression("bitwise", registers, pack_nested(4, pack(1, mask)), pack_nested(5, pack(1, xor)))


def registers_of(fields: tuple[Field, ...]) -> Iterator[int]:
    """The register of each part of a concatenated key: 1 to 4 are of 16 octets, 8 and up name the same by fours.

    A part that begins at a register of 16 octets uses that one's number, as nft does (enum nft_registers).
    """
    offset = 0
    for field in fields:
        yield register_at(offset)
        offset += (LOADS[field].size + 3) // 4


def register_at(offset: int) -> int:
    """The register of the part of a concatenated key that has ``offset`` units of four octets before it."""
    whole, rest = divmod(offset, 4)
    return REGISTER_1 + whole if rest == 0 else _REGISTER_32 + offset


def _load_numbered(words: tuple[int, ...], fields: tuple[Field, ...]) -> list[bytes]:
    """Loads constants into the first registers, and the field behind them."""
    constants = [
        octets
        for offset, word in enumerate(words)
        for octets in (
            _load(MARK, register=register_at(offset)),
            _bitwise(MARK, 0, word, register=register_at(offset)),
        )
    ]
    return [*constants, _load(LOADS[fields[0]], register=register_at(WORDS))]


def _load_all(fields: tuple[Field, ...]) -> list[bytes]:
    """Loads the fields of a concatenated key into consecutive registers, each padded to four octets."""
    return [
        _load(LOADS[field], register=register) for field, register in zip(fields, registers_of(fields), strict=True)
    ]


def _present(presence: Presence, *, is_there: bool) -> list[bytes]:
    """Whether the packet has a header: loads one octet, 1 or 0 (the widths of attributes are as nft_exthdr.c wants)."""
    what = (pack_number(1, REGISTER_1), pack(2, bytes([presence.number])), pack_number(3, 0), pack_number(4, 1))
    how = (pack_number(5, EXTHDR_PRESENT), pack_number(6, presence.operation))
    return [_expression("exthdr", *what, *how), _cmp(bytes([is_there]))]


@cache
def _load(load: Load, *, register: int = REGISTER_1, size: int | None = None) -> bytes:
    match load.source:
        case Source.META:
            return _expression("meta", pack_number(1, register), pack_number(2, load.key))
        case Source.CT:
            way = b"" if load.direction is None else pack(3, bytes([load.direction]))
            return _expression("ct", pack_number(1, register), pack_number(2, load.key), way)
        case Source.LINK | Source.NETWORK | Source.TRANSPORT as base:
            place = (pack_number(2, base.value), pack_number(3, load.key), pack_number(4, size or load.size))
            return _expression("payload", pack_number(1, register), *place)
        case _:
            assert_never(load.source)


def _cmp(octets: bytes, operation: int = EQUAL) -> bytes:
    return _expression("cmp", pack_number(1, REGISTER_1), pack_number(2, operation), pack_nested(3, pack(1, octets)))


def _expression(name: str, *attributes: bytes) -> bytes:
    return pack_text(1, name) + pack_nested(2, *attributes)


__all__ = ["count_here", "encode_line", "jump_verdict"]
