"""Elements of sets and maps as octets, and back: one table of types for both ways.

Pure. Parts of a concatenated key are padded to four octets each, as the kernel's registers are.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from ringfence.nft.expressions import jump_verdict
from ringfence.nft.fields import HOST_ORDER, INTERFACE_SIZE
from ringfence.nft.members import kernel_set, word_octets
from ringfence.nft.messages import NEW_ELEMENTS, answers_in
from ringfence.nft.netlink import (
    Attributes,
    fill,
    number_of,
    pack,
    pack_nested,
    pack_number,
    pack_text,
    parse,
    parse_list,
    text_of,
)
from ringfence.policy.addresses import Interval
from ringfence.policy.program.model import Counted, Element, ElementType, NamedSet, Scalar
from ringfence.policy.program.names import bare_name

# nft's own numbers for data types (datatype.h), and octets of a value.
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
    ElementType.INTERFACE: INTERFACE_SIZE,
    ElementType.IPV4: 4,
    ElementType.IPV6: 16,
    ElementType.ETHER: 6,
    ElementType.NUMBER: 4,
    ElementType.PROTOCOL: 1,
    ElementType.PORT: 2,
}
_TYPE_BITS: Final = 6
_LIST_ELEMENT: Final = 1
_INTERVAL_END: Final = 1  # NFT_SET_ELEM_INTERVAL_END


def key_type(types: tuple[ElementType, ...]) -> int:
    """Nft's number for a concatenated type: six bits each, the first highest."""
    number = 0
    for type_ in types:
        number = number << _TYPE_BITS | TYPE_NUMBER[type_]
    return number


def key_size(types: tuple[ElementType, ...]) -> int:
    """Octets of a key."""
    if len(types) == 1:
        return TYPE_SIZE[types[0]]
    return sum((TYPE_SIZE[type_] + 3) & ~3 for type_ in types)


def encode_elements(set_: str, shape: NamedSet, elements: Iterable[Element]) -> Iterator[bytes]:
    """One attribute string per element; an interval is its first address and, flagged, the one after its last."""
    before = b"".join(map(word_octets, kernel_set(set_)[1]))
    for element in elements:
        if isinstance(element, Interval):
            size = TYPE_SIZE[shape.types[0]]
            encoded = encode_element(element.first.to_bytes(size, "big"))
            if element.last + 1 < 1 << (8 * size):
                encoded += encode_element((element.last + 1).to_bytes(size, "big"), _INTERVAL_END)
            yield encoded
        elif isinstance(element, Counted):
            yield _counted_element(element, shape.types)
        else:
            scalars = b"".join([_scalar_octets(scalar, joined=len(element) > 1) for scalar in element])
            yield fill(encode_element, before + scalars)


def encode_element(key: bytes, flags: int = 0) -> bytes:
    """The attribute of one element with that key."""
    attributes = pack_nested(1, pack(1, key)) + (pack_number(3, flags) if flags else b"")
    return pack_nested(_LIST_ELEMENT, attributes)


def encode_targets(targets: Iterable[tuple[Scalar, str]]) -> Iterator[bytes]:
    """One attribute string per key of a map and the chain that it leads to."""
    for scalar, chain in targets:
        key = pack_nested(1, pack(1, _scalar_octets(scalar, joined=False)))
        # Jump, not goto: to a packet that is under way when the map changes, a chain made with its element may still be
        # empty. It must then come back and be dropped by the next line; goto would end in the base chain's "accept".
        yield pack_nested(_LIST_ELEMENT, key, pack_nested(2, jump_verdict(bare_name(chain))))


def _counted_element(element: Counted, types: tuple[ElementType, ...]) -> bytes:
    spans = [_span_octets(value, TYPE_SIZE[type_]) for value, type_ in zip(element.key, types, strict=True)]
    first, last = (b"".join(octets) for octets in zip(*spans, strict=True))
    keys = pack_nested(1, pack(1, first)), pack_nested(10, pack(1, last))
    return pack_nested(_LIST_ELEMENT, *keys, pack_text(9, bare_name(element.counter)))


def _span_octets(value: Interval | str, size: int) -> list[bytes]:
    """The first and the last value that match, each as a part of a concatenated key."""
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


def keyed_elements(blob: bytes) -> list[tuple[bytes, Attributes]]:
    """Key and attributes of every element in the kernel's answer."""
    found = []
    for message in answers_in(blob, NEW_ELEMENTS):
        for _, element in parse_list(message.get(3, b"")):
            attributes = parse(element)
            found.append((parse(attributes[1])[1], attributes))
    return found


def decode_elements(blob: bytes, types: tuple[ElementType, ...]) -> frozenset[Element]:
    """The elements in the kernel's answer for a set of concatenated values."""
    return frozenset(_decode_key(key, types) for key, _ in keyed_elements(blob))


def decode_counted(blob: bytes, types: tuple[ElementType, ...]) -> frozenset[Element]:
    """The elements in the kernel's answer for a set of ``Counted`` ones."""
    return frozenset(_decode_counted(element, types) for _, element in keyed_elements(blob))


def decode_intervals(blob: bytes, type_: ElementType) -> frozenset[Element]:
    """The intervals in the kernel's answer; a start without an end reaches to the last address of the family."""
    marks = sorted(
        (int.from_bytes(key, "big"), not number_of(a.get(3, b"")) & _INTERVAL_END) for key, a in keyed_elements(blob)
    )
    found: set[Element] = set()
    first: int | None = None
    for address, is_start in marks:
        if first is not None:
            found.add(Interval(first, address - 1))
        first = address if is_start else None
    if first is not None:
        found.add(Interval(first, (1 << 8 * TYPE_SIZE[type_]) - 1))
    return frozenset(found)


def decode_scalar(octets: bytes, type_: ElementType) -> Scalar:
    """One value of a key."""
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


def _decode_key(key: bytes, types: tuple[ElementType, ...]) -> tuple[Scalar, ...]:
    scalars: list[Scalar] = []
    offset = 0
    for type_ in types:
        scalars.append(decode_scalar(key[offset : offset + TYPE_SIZE[type_]], type_))
        offset += (TYPE_SIZE[type_] + 3) & ~3
    return tuple(scalars)


def _decode_counted(attributes: Attributes, types: tuple[ElementType, ...]) -> Counted:
    first = parse(attributes[1])[1]
    last = parse(attributes[10])[1] if 10 in attributes else first
    key: list[Interval | str] = []
    offset = 0
    for type_ in types:
        until = offset + TYPE_SIZE[type_]
        key.append(_decode_span(first[offset:until], last[offset:until], type_))
        offset += (TYPE_SIZE[type_] + 3) & ~3
    return Counted(tuple(key), text_of(attributes[9]))


def _decode_span(first: bytes, last: bytes, type_: ElementType) -> Interval | str:
    if type_ is not ElementType.INTERFACE:
        return Interval(int.from_bytes(first, "big"), int.from_bytes(last, "big"))
    return text_of(first) if first == last else f"{text_of(first)}-{text_of(last)}"
