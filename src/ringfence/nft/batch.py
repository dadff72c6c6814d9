"""Steps -> one nfnetlink batch: the octets of one atomic transaction, and what each message in it does.

Pure. The kernel carries out all of a batch or nothing of it (nfnetlink_rcv_batch).
"""

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, assert_never

from ringfence.nft.elements import (
    TYPE_NUMBER,
    TYPE_SIZE,
    encode_element,
    encode_elements,
    encode_targets,
    key_size,
    key_type,
)
from ringfence.nft.expressions import count_here, encode_line
from ringfence.nft.generation import DEFAULT_MASK, Generation, mark_of
from ringfence.nft.members import kernel_set, word_octets
from ringfence.nft.messages import (
    DELETE_CHAIN,
    DELETE_ELEMENTS,
    DELETE_OBJECT,
    DELETE_RULE,
    DELETE_SET,
    DELETE_TABLE,
    NEW_CHAIN,
    NEW_ELEMENTS,
    NEW_OBJECT,
    NEW_RULE,
    NEW_SET,
    NEW_TABLE,
    OBJECT_COUNTER,
    PROTOCOL_FAMILY,
    TABLE,
    message_type,
)
from ringfence.nft.netlink import (
    BATCH_BEGIN,
    BATCH_END,
    F_ACK,
    F_APPEND,
    F_CREATE,
    F_EXCL,
    F_REQUEST,
    NFPROTO_UNSPEC,
    SUBSYSTEM_NFTABLES,
    fill,
    pack,
    pack_message,
    pack_nested,
    pack_number,
    pack_text,
)
from ringfence.policy.program.model import TALLY_LIFE_S, ElementType, HookName, NamedSet
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

ABOUT: Final = "about"

CHAIN_TYPE: Final = "filter"
SET_ANONYMOUS, SET_INTERVAL, SET_MAP = 0x1, 0x4, 0x8
SET_COUNTED: Final = 0xC4  # concatenated intervals with objects (NFT_SET_INTERVAL, NFT_SET_CONCAT, NFT_SET_OBJECT)
SET_TALLY: Final = 0x30  # elements are made by packets (NFT_SET_EVAL) and expire (NFT_SET_TIMEOUT)
TALLY_SIZE: Final = 65535  # elements
FRESH_SIZE: Final = 1  # for a set of bounded size the kernel uses a hash table of fixed size, which is faster
TALLY_LIFE_MS: Final = TALLY_LIFE_S * 1000
DATA_VERDICT: Final = 0xFFFFFF00
HOOK_NUMBER: Final = {HookName.PREROUTING: 0, HookName.INPUT: 1, HookName.POSTROUTING: 4}  # alike in both families
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
    """The note in the table, written by the same transaction as the rules: it proves which revision the table holds."""

    revision: int
    epoch: str

    def __post_init__(self) -> None:
        if not _EPOCH.fullmatch(self.epoch):
            raise ValueError("an epoch is at most 64 of 0-9, a-z and '-'")

    @property
    def text(self) -> str:
        return f"revision={self.revision} epoch={self.epoch}"


def parse_about(text: str) -> About | None:
    """The inverse of ``About.text``; None for any other text."""
    found = _ABOUT_TEXT.fullmatch(text)
    return About(int(found[1]), found[2]) if found else None


@dataclass(frozen=True, slots=True)
class Batch:
    """``steps[i]`` says what the message with sequence number ``i + 1`` does; the last one asks for an answer."""

    data: bytes
    steps: tuple[str, ...]

    @property
    def last_sequence(self) -> int:
        return len(self.steps)


class _Request(NamedTuple):  # quicker to make than a frozen dataclass, and there may be a hundred thousand
    """A message before it has a sequence number."""

    type: int
    flags: int
    payload: bytes
    does: str


def encode_batch(
    steps: Sequence[Step], *, generation: Generation, about: About | None, mask: int = DEFAULT_MASK
) -> Batch:
    """The transaction that carries out ``steps`` in order, and writes ``about`` into the table. O(steps)."""
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
        type_ = message_type(request.type)
        family = PROTOCOL_FAMILY[table]
        messages.append(pack_message(type_, flags, sequence, request.payload, family=family))
    messages.append(_frame(BATCH_END, len(requests) + 1))
    return Batch(b"".join(messages), tuple(request.does for _, request in requests))


def encode_removal(family: TableFamily = TableFamily.INET) -> Batch:
    """The transaction that deletes our table of that family, and with it all that it enforces."""
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
            encoded = encode_elements(name, shape, elements)
            yield from _element_requests(NEW_ELEMENTS, name, encoded, "add elements to set")
        case DeleteElements(name, shape, elements):
            encoded = encode_elements(name, shape, elements)
            yield from _element_requests(DELETE_ELEMENTS, name, encoded, "delete elements from set")
        case SetGeneration():
            present = encode_element(word_octets(mark_of(generation, mask)))
            yield _Request(DELETE_ELEMENTS, 0, _named(_of_name, FRESH), f"empty set {FRESH}")
            yield from _element_requests(NEW_ELEMENTS, FRESH, iter((present,)), "add the generation to set")
        case AddTargets(name, targets):
            yield from _element_requests(NEW_ELEMENTS, name, encode_targets(targets), "add keys to map")
        case DeleteTargets(name, targets):
            yield from _element_requests(DELETE_ELEMENTS, name, encode_targets(targets), "delete keys from map")
        case AddCounter() | DeleteCounter():
            yield _counter_request(step)
        case _:
            assert_never(step)


def _named(shape: Callable[[bytes], bytes], name: str) -> bytes:
    """The attributes that name an object of ours: its table and, as ``shape`` puts it, its name there."""
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
                payload += pack_nested(4, place) + pack_number(5, _POLICY_ACCEPT) + pack_text(7, CHAIN_TYPE)
            return _Request(NEW_CHAIN, F_CREATE | F_EXCL, payload, f"add chain {chain}")
        case _:
            assert_never(step)


def _set_requests(step: AddSet | AddMap | DeleteSet | DeleteMap) -> Iterator[_Request]:
    match step:
        case AddSet(name) | DeleteSet(name) if kernel_set(name)[1]:
            pass  # its elements are in the set of all members, which exists as long as the table
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
    # nft notes the byte order of keys here; without it a listing shows every interface as "".
    order = struct.pack("=BBI", _KEY_ORDER, 4, _HOST_ORDER if type_ in _IN_HOST_ORDER else _BIG_ENDIAN)
    return _named(_of_name, name) + shape + pack_number(10, 1) + pack(13, order)


def _element_requests(type_: int, name: str, encoded: Iterator[bytes], does: str) -> Iterator[_Request]:
    """Messages of a bounded number of elements each, because one attribute holds at most 64 KiB."""
    elements = sorted(encoded)  # sets have no order, and a batch is to depend on its steps alone
    place = _named(_of_name, kernel_set(name)[0])
    flags = F_CREATE if type_ == NEW_ELEMENTS else 0
    for start in range(0, len(elements), _ELEMENTS_PER_MESSAGE):
        some = pack_nested(3, *elements[start : start + _ELEMENTS_PER_MESSAGE])
        yield _Request(type_, flags, place + some, f"{does} {name}")
