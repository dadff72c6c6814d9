"""What the counters of a table have counted, read so quickly that it can be done every few seconds for ten thousand.

Pure: the octets of the kernel's answer in, numbers out. Messages of one length have one layout, because nothing in them
but the name varies in length: it is found once for each length, and after that every number is where it was.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ringfence.nft.batch import NEW_OBJECT, TABLE
from ringfence.nft.netlink import SUBSYSTEM_NFTABLES, pack_text, text_of

_FRAME: Final = struct.Struct("=IH")  # of nlmsghdr: length and type
_HEAD_BYTES: Final = 16  # of nlmsghdr
_BODY: Final = 20  # where attributes begin: after nlmsghdr and nfgenmsg
_ATTRIBUTE: Final = struct.Struct("=HH")
_TYPE_MASK: Final = 0x3FFF
_OURS: Final = pack_text(1, TABLE)  # how every message about something in a table of our name begins
_WANTED: Final = SUBSYSTEM_NFTABLES << 8 | NEW_OBJECT
_NAME, _DATA = 2, 4
_OCTETS, _PACKETS = 1, 2


@dataclass(frozen=True, slots=True)
class Hits:
    """What a counter has counted; rule counters count flows as they are judged, not every packet of a flow."""

    packets: int
    octets: int


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where in a message the name and the numbers lie; ``head`` precedes the numbers, and tells another layout."""

    name: int
    name_end: int
    data: int
    head: bytes
    packets: int
    octets: int


def parse_counters(answer: bytes) -> dict[str, Hits]:
    """The counters of our table by their names in the kernel. O(counters), a microsecond or two each.

    Raises ``ValueError`` when a length is impossible, ``KeyError`` when something is missing.
    """
    found: dict[str, Hits] = {}
    layouts: dict[int, _Layout] = {}
    offset = 0
    while offset + _HEAD_BYTES <= len(answer):
        length, type_ = _FRAME.unpack_from(answer, offset)
        if length < _HEAD_BYTES or offset + length > len(answer):
            raise ValueError(f"netlink message of {length} octets at {offset} of {len(answer)}")
        if type_ == _WANTED and answer.startswith(_OURS, offset + _BODY):
            known = layouts.get(length)
            if known is None or not answer.startswith(known.head, offset + known.data):
                known = layouts[length] = _layout(answer[offset : offset + length])
            name = text_of(answer[offset + known.name : offset + known.name_end])
            packets, octets = offset + known.packets, offset + known.octets
            found[name] = Hits(
                int.from_bytes(answer[packets : packets + 8], "big"), int.from_bytes(answer[octets : octets + 8], "big")
            )
        offset += (length + 3) & ~3
    return found


def _layout(message: bytes) -> _Layout:
    attributes = {type_: (start, end) for type_, start, end in _attributes(message, _BODY, len(message))}
    name, data = attributes[_NAME], attributes[_DATA]
    numbers = {type_: start for type_, start, _ in _attributes(message, *data)}
    first = min(numbers[_PACKETS], numbers[_OCTETS])
    head = data[0] - _ATTRIBUTE.size
    padded = (name[1] + 3) & ~3
    return _Layout(name[0], padded, head, message[head:first], numbers[_PACKETS], numbers[_OCTETS])


def _attributes(message: bytes, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, and where the value begins and ends."""
    while offset + _ATTRIBUTE.size <= end:
        length, type_ = _ATTRIBUTE.unpack_from(message, offset)
        if length < _ATTRIBUTE.size or offset + length > end:
            raise ValueError(f"netlink attribute of {length} octets at {offset} of {end}")
        yield type_ & _TYPE_MASK, offset + _ATTRIBUTE.size, offset + length
        offset += (length + 3) & ~3
