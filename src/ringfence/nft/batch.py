"""Steps -> one nfnetlink batch: the bytes of one atomic transaction, and what each message in it does.

Pure: values in, bytes out. The kernel runs all of a batch or none of it (nfnetlink_rcv_batch).
"""

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, assert_never

from ringfence.nft.expressions import (
    OBJECT_COUNTER,
    count_here,
    encode_line,
    jump_verdict,
)
from ringfence.nft.fields import INTERFACE_SIZE
from ringfence.nft.generation import DEFAULT_MASK, Generation, mark_of
from ringfence.nft.members import kernel_set, word_octets
from ringfence.nft.netlink import (
    BATCH_BEGIN,
    BATCH_END,
    F_ACK,
    F_APPEND,
    F_CREATE,
    F_EXCL,
    F_REQUEST,
    NFPROTO_BRIDGE,
    NFPROTO_INET,
    NFPROTO_UNSPEC,
    SUBSYSTEM_NFTABLES,
    fill,
    pack,
    pack_message,
    pack_nested,
    pack_number,
    pack_text,
)
from ringfence.policy.addresses import Interval
from ringfence.policy.program.model import TALLY_LIFE_S, Counted, Element, ElementType, HookName, NamedSet, Scalar
from ringfence.policy.program.names import FRESH, TableFamily, bare_name, place_of
from ringfence.policy.program.steps import (
    AddChain,
    AddCounter,
    AddElements,
    AddLine,
    AddMap,
    AddSet,
    AddTable,
    AddTargets,
    DeleteChain,
    DeleteCounter,
    DeleteElements,
    DeleteLine,
    DeleteMap,
    DeleteSet,
    DeleteTable,
    DeleteTargets,
    FlushChain,
    SetGeneration,
    Step,
)

TABLE: Final = "ringfence"
ABOUT: Final = "about"

NEW_TABLE, DELETE_TABLE = 0, 2
NEW_CHAIN, DELETE_CHAIN = 3, 5
NEW_RULE, DELETE_RULE = 6, 8
NEW_SET, DELETE_SET = 9, 11
NEW_ELEMENTS, DELETE_ELEMENTS = 12, 14
NEW_OBJECT, DELETE_OBJECT = 18, 20

SET_INTERVAL, SET_MAP = 0x4, 0x8
SET_COUNTED: Final = 0xC4  # of joined intervals (NFT_SET_INTERVAL, NFT_SET_CONCAT) that lead to objects
SET_TALLY: Final = 0x30  # made by packets (NFT_SET_EVAL), and forgotten after a while (NFT_SET_TIMEOUT)
TALLY_SIZE: Final = 65535  # elements
FRESH_SIZE: Final = 1  # that it is bounded makes the kernel take a hash table of fixed size, which is faster
TALLY_LIFE_MS: Final = TALLY_LIFE_S * 1000
ELEMENT_INTERVAL_END: Final = 1
DATA_VERDICT: Final = 0xFFFFFF00
# nft's own numbers for data types (datatype.h), and octets in a key, joined parts padded to four.
TYPE_NUMBER: Final = {
    ElementType.INTERFACE: 41,
    ElementType.IPV4: 7,
    ElementType.IPV6: 8,
    ElementType.ETHER: 9,
    ElementType.NUMBER: 19,  # nft's "mark", its only type of 32 bits without a meaning of its own
    ElementType.PROTOCOL: 12,
    ElementType.PORT: 13,
}
TYPE_SIZE: Final = {
    ElementType.INTERFACE: 16,
    ElementType.IPV4: 4,
    ElementType.IPV6: 16,
    ElementType.ETHER: 6,
    ElementType.NUMBER: 4,
    ElementType.PROTOCOL: 1,
    ElementType.PORT: 2,
}
_TYPE_BITS: Final = 6
HOOK_NUMBER: Final = {HookName.PREROUTING: 0, HookName.INPUT: 1, HookName.POSTROUTING: 4}  # alike in both families
PROTOCOL_FAMILY: Final = {TableFamily.INET: NFPROTO_INET, TableFamily.BRIDGE: NFPROTO_BRIDGE}
_POLICY_ACCEPT: Final = 1
_LIST_ELEMENT: Final = 1
_ELEMENTS_PER_MESSAGE: Final = 500  # far below the 64 KiB that one netlink attribute can hold
_KEY_ORDER: Final = 0  # NFTNL_UDATA_SET_KEYBYTEORDER
_HOST_ORDER, _BIG_ENDIAN = 1, 2
_IN_HOST_ORDER: Final = {TYPE_NUMBER[ElementType.INTERFACE], TYPE_NUMBER[ElementType.NUMBER]}
_COMMENT: Final = 0  # NFTNL_UDATA_RULE_COMMENT
_EPOCH: Final = re.compile(r"[0-9a-z-]{0,64}")
_ABOUT_TEXT: Final = re.compile(r"revision=(\d+) epoch=([0-9a-z-]*)")


@dataclass(frozen=True, slots=True)
class About:
    """What the table holds, written into it by the same transaction: proof of the revision for whoever reads it."""

    revision: int
    epoch: str

    def __post_init__(self) -> None:
        if not _EPOCH.fullmatch(self.epoch):
            raise ValueError("an epoch is at most 64 of 0-9, a-z and '-'")

    @property
    def text(self) -> str:
        return f"revision={self.revision} epoch={self.epoch}"


def parse_about(text: str) -> About | None:
    found = _ABOUT_TEXT.fullmatch(text)
    return About(int(found[1]), found[2]) if found else None


@dataclass(frozen=True, slots=True)
class Batch:
    """``steps[i]`` says what the message with sequence number ``i + 1`` does; the last of them asks for the answer."""

    data: bytes
    steps: tuple[str, ...]

    @property
    def last_sequence(self) -> int:
        return len(self.steps)


class _Request(NamedTuple):  # a hundred thousand are made: quicker than a frozen dataclass
    """A message before it has a sequence number."""

    type: int
    flags: int
    payload: bytes
    does: str


def encode_batch(
    steps: Sequence[Step], *, generation: Generation, about: About | None, mask: int = DEFAULT_MASK
) -> Batch:
    """One transaction that carries out ``steps`` in order and notes ``about`` in the table. O(steps)."""
    requests = [
        (table, request)
        for step in steps
        for table in (_table_of(step),)
        for request in _encode_step(step, table, generation, mask)
    ]
    if about is not None:
        requests += [(TableFamily.INET, request) for request in _note(about)]
    messages = [_frame(BATCH_BEGIN, 0)]
    for sequence, (table, request) in enumerate(requests, start=1):
        flags = F_REQUEST | request.flags | (F_ACK if sequence == len(requests) else 0)
        type_ = SUBSYSTEM_NFTABLES << 8 | request.type
        family = PROTOCOL_FAMILY[table]
        messages.append(pack_message(type_, flags, sequence, request.payload, family=family))
    messages.append(_frame(BATCH_END, len(requests) + 1))
    return Batch(b"".join(messages), tuple(request.does for _, request in requests))


def encode_removal(family: TableFamily = TableFamily.INET) -> Batch:
    """One transaction that removes our table of that family, and what it enforces: for tests and for uninstalling."""
    return encode_batch([DeleteTable(family)], generation=Generation(0), about=None)


def _frame(type_: int, sequence: int) -> bytes:
    return pack_message(type_, F_REQUEST, sequence, b"", family=NFPROTO_UNSPEC, resource=SUBSYSTEM_NFTABLES)


def _note(about: About) -> list[_Request]:
    comment = about.text.encode("ascii") + b"\0"
    # For a line with a verdict the kernel walks every path through the table before it commits: this one has none.
    expressions = pack_nested(4, pack_nested(_LIST_ELEMENT, count_here()))
    payload = _in_chain(ABOUT) + expressions + pack(7, bytes([_COMMENT, len(comment)]) + comment)
    return [
        _Request(NEW_CHAIN, F_CREATE, pack_text(1, TABLE) + pack_text(3, ABOUT), "add chain about"),
        _Request(DELETE_RULE, 0, _in_chain(ABOUT), "flush chain about"),
        _Request(NEW_RULE, F_CREATE | F_APPEND, payload, f"note {about.text}"),
    ]


def _in_chain(chain: str) -> bytes:
    return _named(_of_name, chain)


def _table_of(step: Step) -> TableFamily:
    """The table that a step changes."""
    match step:
        case AddTable(family) | DeleteTable(family):
            return family
        case AddLine(name) | DeleteLine(name) | AddChain(name) | FlushChain(name) | DeleteChain(name):
            return place_of(name)[0]
        case AddSet(name) | DeleteSet(name) | AddElements(name) | DeleteElements(name):
            return place_of(name)[0]
        case AddMap(name) | DeleteMap(name) | AddTargets(name) | DeleteTargets(name):
            return place_of(name)[0]
        case AddCounter(name) | DeleteCounter(name):
            return place_of(name)[0]
        case SetGeneration():
            return TableFamily.INET
        case _:
            assert_never(step)


def _encode_step(step: Step, table: TableFamily, generation: Generation, mask: int) -> Iterator[_Request]:
    match step:
        case AddTable():
            yield _Request(NEW_TABLE, F_CREATE, pack_text(1, TABLE), f"add table {table.value} {TABLE}")
        case DeleteTable():
            yield _Request(DELETE_TABLE, 0, pack_text(1, TABLE), f"delete table {table.value} {TABLE}")
        case AddLine(chain, line):
            payload = _in_chain(chain) + pack_nested(4, encode_line(line, generation, mask, table=table))
            yield _Request(NEW_RULE, F_CREATE | F_APPEND, payload, f"add a line to chain {chain}")
        case AddChain() | FlushChain() | DeleteChain() | DeleteLine():
            yield _chain_request(step)
        case AddSet() | AddMap() | DeleteSet() | DeleteMap():
            yield from _set_requests(step)
        case AddElements(name, shape, elements):
            encoded = _encode_elements(name, shape, elements)
            yield from _element_requests(NEW_ELEMENTS, name, encoded, "add elements to set")
        case DeleteElements(name, shape, elements):
            encoded = _encode_elements(name, shape, elements)
            yield from _element_requests(DELETE_ELEMENTS, name, encoded, "delete elements from set")
        case SetGeneration():
            present = _element(word_octets(mark_of(generation, mask)))
            yield _Request(DELETE_ELEMENTS, 0, _named(_of_name, FRESH), f"empty set {FRESH}")
            yield from _element_requests(NEW_ELEMENTS, FRESH, iter((present,)), "add the generation to set")
        case AddTargets(name, targets):
            yield from _element_requests(NEW_ELEMENTS, name, _encode_targets(targets), "add keys to map")
        case DeleteTargets(name, targets):
            yield from _element_requests(DELETE_ELEMENTS, name, _encode_targets(targets), "delete keys from map")
        case AddCounter() | DeleteCounter():
            yield _counter_request(step)
        case _:
            assert_never(step)


def _named(shape: Callable[[bytes], bytes], name: str) -> bytes:
    """A thing of ours: the table, and its name there in the attribute that its kind has for that."""
    return fill(shape, bare_name(name).encode("ascii"))


def _of_name(name: bytes) -> bytes:
    return pack_text(1, TABLE) + pack(2, name + b"\0")


def _of_chain(name: bytes) -> bytes:
    return pack_text(1, TABLE) + pack(3, name + b"\0")


def _of_counter(name: bytes) -> bytes:
    return _of_name(name) + pack_number(3, OBJECT_COUNTER)


def _counter_request(step: AddCounter | DeleteCounter) -> _Request:
    place = _named(_of_counter, step.counter)
    if isinstance(step, AddCounter):
        return _Request(NEW_OBJECT, F_CREATE | F_EXCL, place + pack_nested(4), f"add counter {step.counter}")
    return _Request(DELETE_OBJECT, 0, place, f"delete counter {step.counter}")


def _chain_request(step: AddChain | FlushChain | DeleteChain | DeleteLine) -> _Request:
    match step:
        case DeleteLine(chain, _, handle):
            payload = _in_chain(chain) + pack(3, handle.to_bytes(8, "big"))
            return _Request(DELETE_RULE, 0, payload, f"delete a line of chain {chain}")
        case FlushChain(chain):
            return _Request(DELETE_RULE, 0, _in_chain(chain), f"flush chain {chain}")
        case DeleteChain(chain):
            return _Request(DELETE_CHAIN, 0, _named(_of_chain, chain), f"delete chain {chain}")
        case AddChain(chain, hook):
            payload = _named(_of_chain, chain)
            if hook is not None:
                place = pack_number(1, HOOK_NUMBER[hook.name]) + pack_number(2, hook.priority)
                payload += pack_nested(4, place) + pack_number(5, _POLICY_ACCEPT) + pack_text(7, "filter")
            return _Request(NEW_CHAIN, F_CREATE | F_EXCL, payload, f"add chain {chain}")
        case _:
            assert_never(step)


def _set_requests(step: AddSet | AddMap | DeleteSet | DeleteMap) -> Iterator[_Request]:
    match step:
        case AddSet(name) | DeleteSet(name) if kernel_set(name)[1]:
            pass  # its elements lie in a set that is there as long as the table
        case AddSet(name, shape):
            flags = _set_flags(shape)
            payload = _set_header(name, flags, key_type(shape.types), key_size(shape.types))
            if shape.counted:
                sizes = [pack_nested(_LIST_ELEMENT, pack_number(1, TYPE_SIZE[type_])) for type_ in shape.types]
                payload += pack_number(15, OBJECT_COUNTER) + pack_nested(9, pack_nested(2, *sizes))
            if shape.tally:
                payload += pack_nested(9, pack_number(1, TALLY_SIZE)) + pack(11, TALLY_LIFE_MS.to_bytes(8, "big"))
            if name == FRESH:
                payload += pack_nested(9, pack_number(1, FRESH_SIZE))
            yield _Request(NEW_SET, F_CREATE | F_EXCL, payload, f"add set {name}")
        case AddMap(name, type_):
            payload = _set_header(name, SET_MAP, key_type((type_,)), key_size((type_,)))
            yield _Request(NEW_SET, F_CREATE | F_EXCL, payload + pack_number(6, DATA_VERDICT), f"add map {name}")
        case DeleteSet(name) | DeleteMap(name):
            yield _Request(DELETE_SET, 0, _named(_of_name, name), f"delete set {name}")
        case _:
            assert_never(step)


def _set_flags(shape: NamedSet) -> int:
    if shape.counted:
        return SET_COUNTED
    return SET_TALLY if shape.tally else SET_INTERVAL if shape.interval else 0


def _set_header(name: str, flags: int, type_: int, size: int) -> bytes:
    shape = pack_number(3, flags) + pack_number(4, type_) + pack_number(5, size)
    # nft keeps the order of a key's octets here; without it a listing shows every interface as "".
    order = struct.pack("=BBI", _KEY_ORDER, 4, _HOST_ORDER if type_ in _IN_HOST_ORDER else _BIG_ENDIAN)
    return _named(_of_name, name) + shape + pack_number(10, 1) + pack(13, order)


def key_type(types: tuple[ElementType, ...]) -> int:
    """Nft's number for a joined type: six bits each, the first highest."""
    number = 0
    for type_ in types:
        number = number << _TYPE_BITS | TYPE_NUMBER[type_]
    return number


def key_size(types: tuple[ElementType, ...]) -> int:
    """Octets of a key; parts of a joined one are padded to four."""
    if len(types) == 1:
        return TYPE_SIZE[types[0]]
    return sum((TYPE_SIZE[type_] + 3) & ~3 for type_ in types)


def _encode_elements(set_: str, shape: NamedSet, elements: Iterable[Element]) -> Iterator[bytes]:
    """One attribute string per element; an interval is its first address and, flagged, the one after its last."""
    before = b"".join(map(word_octets, kernel_set(set_)[1]))
    for element in elements:
        if isinstance(element, Interval):
            size = TYPE_SIZE[shape.types[0]]
            encoded = _element(element.first.to_bytes(size, "big"))
            if element.last + 1 < 1 << (8 * size):
                encoded += _element((element.last + 1).to_bytes(size, "big"), ELEMENT_INTERVAL_END)
            yield encoded
        elif isinstance(element, Counted):
            yield _counted_element(element, shape.types)
        else:
            scalars = b"".join([_scalar_octets(scalar, joined=len(element) > 1) for scalar in element])
            yield fill(_element, before + scalars)


def _counted_element(element: Counted, types: tuple[ElementType, ...]) -> bytes:
    spans = [_span_octets(value, TYPE_SIZE[type_]) for value, type_ in zip(element.key, types, strict=True)]
    first, last = (b"".join(octets) for octets in zip(*spans, strict=True))
    keys = pack_nested(1, pack(1, first)), pack_nested(10, pack(1, last))
    return pack_nested(_LIST_ELEMENT, *keys, pack_text(9, bare_name(element.counter)))


def _span_octets(value: Interval | str, size: int) -> list[bytes]:
    """The first and the last value that match, each as a part of a joined key."""
    if isinstance(value, str):
        return [_scalar_octets(value, joined=True)] * 2
    padding = bytes(-size % 4)
    return [end.to_bytes(size, "big") + padding for end in (value.first, value.last)]


def _scalar_octets(scalar: Scalar, *, joined: bool) -> bytes:
    if isinstance(scalar, int):
        octets = word_octets(scalar)
    elif not isinstance(scalar, str):
        octets = scalar.packed
    elif ":" in scalar:
        octets = bytes.fromhex(scalar.replace(":", ""))
    else:
        octets = scalar.encode("ascii").ljust(INTERFACE_SIZE, b"\0")
    return octets.ljust((len(octets) + 3) & ~3, b"\0") if joined else octets


def _encode_targets(targets: Iterable[tuple[Scalar, str]]) -> Iterator[bytes]:
    for scalar, chain in targets:
        key = pack_nested(1, pack(1, _scalar_octets(scalar, joined=False)))
        # Jump, not goto: to a packet that is under way when the map changes, a chain born with its element may still be
        # empty. It must then come back and be dropped by the next line; goto would end in the base chain's "accept".
        yield pack_nested(_LIST_ELEMENT, key, pack_nested(2, jump_verdict(bare_name(chain))))


def _element(key: bytes, flags: int = 0) -> bytes:
    attributes = pack_nested(1, pack(1, key)) + (pack_number(3, flags) if flags else b"")
    return pack_nested(_LIST_ELEMENT, attributes)


def _element_requests(type_: int, name: str, encoded: Iterator[bytes], does: str) -> Iterator[_Request]:
    """Messages of a bounded number of elements each, because one attribute holds at most 64 KiB."""
    elements = sorted(encoded)  # a batch depends on its steps alone, and sets have no order
    place = _named(_of_name, kernel_set(name)[0])
    flags = F_CREATE if type_ == NEW_ELEMENTS else 0
    for start in range(0, len(elements), _ELEMENTS_PER_MESSAGE):
        some = pack_nested(3, *elements[start : start + _ELEMENTS_PER_MESSAGE])
        yield _Request(type_, flags, place + some, f"{does} {name}")
