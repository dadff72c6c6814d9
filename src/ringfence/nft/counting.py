"""Parses the values of a table's counters, fast enough to do it every few seconds for ten thousand of them.

Pure: the octets of the kernel's answer in, numbers out. Messages of equal length have the same layout, because only the
counter's name varies in length: the layout is found once for each length and then reused.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ringfence.nft.messages import NEW_OBJECT, TABLE, message_type
from ringfence.nft.netlink import pack_text, text_of

_FRAME: Final = struct.Struct("=IH")  # of nlmsghdr: length and type
_HEAD_BYTES: Final = 16  # of nlmsghdr
_BODY: Final = 20  # where attributes begin: after nlmsghdr and nfgenmsg
_ATTRIBUTE: Final = struct.Struct("=HH")
_TYPE_MASK: Final = 0x3FFF
_OURS: Final = pack_text(1, TABLE)  # how every message about something in a table of our name begins
_WANTED: Final = message_type(NEW_OBJECT)
_NAME, _DATA = 2, 4
_OCTETS, _PACKETS = 1, 2


@dataclass(frozen=True, slots=True)
class _Layout:
    """``unpack`` finds in a message the name, the octets before the numbers, and the packets.

    ``head`` are the octets before the numbers in this layout; a message with others has another layout.
    """

    unpack: Callable[[bytes, int], tuple[bytes, bytes, int]]
    head: bytes


def parse_counters(answer: bytes) -> dict[str, int]:
    """The packets counted by each counter of our table, by its name in the kernel. A microsecond for each.

    A rule's counter counts the packets that were judged, and allowed by it: of a flow those until it is answered, and
    one after each new generation. Raises ``ValueError`` when a length is impossible, ``KeyError`` when something is
    missing.
    """
    found: dict[str, int] = {}
    layouts: dict[int, _Layout] = {}
    frame, offset, end = _FRAME.unpack_from, 0, len(answer)
    while offset + _HEAD_BYTES <= end:
        length, type_ = frame(answer, offset)
        if length < _HEAD_BYTES or offset + length > end:
            raise ValueError(f"netlink message of {length} octets at {offset} of {end}")
        if type_ == _WANTED and answer.startswith(_OURS, offset + _BODY):
            known = layouts.get(length) or _layout(answer[offset : offset + length])
            name, head, packets = known.unpack(answer, offset)
            if head != known.head:
                known = _layout(answer[offset : offset + length])
                name, _, packets = known.unpack(answer, offset)
            layouts[length] = known
            found[text_of(name)] = packets
        offset += (length + 3) & ~3
    return found


def _layout(message: bytes) -> _Layout:
    attributes = {type_: (start, end) for type_, start, end in _attributes(message, _BODY, len(message))}
    name, data = attributes[_NAME], attributes[_DATA]
    numbers = {type_: start for type_, start, _ in _attributes(message, *data)}
    name_end, head = (name[1] + 3) & ~3, data[0] - _ATTRIBUTE.size
    first, packets = min(numbers[_OCTETS], numbers[_PACKETS]), numbers[_PACKETS]
    places = f">{name[0]}x {name_end - name[0]}s {head - name_end}x {first - head}s {packets - first}x Q"
    return _Layout(struct.Struct(places).unpack_from, message[head:first])


def _attributes(message: bytes, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, and where the value begins and ends."""
    while offset + _ATTRIBUTE.size <= end:
        length, type_ = _ATTRIBUTE.unpack_from(message, offset)
        if length < _ATTRIBUTE.size or offset + length > end:
            raise ValueError(f"netlink attribute of {length} octets at {offset} of {end}")
        yield type_ & _TYPE_MASK, offset + _ATTRIBUTE.size, offset + length
        offset += (length + 3) & ~3
