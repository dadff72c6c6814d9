"""Netlink messages and attributes as octets, and back: the framing of nfnetlink, without a socket.

Layout: linux/netlink.h, linux/netfilter/nfnetlink.h.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

F_REQUEST: Final = 0x001
F_ACK: Final = 0x004
F_DUMP: Final = 0x300
F_EXCL: Final = 0x200
F_CREATE: Final = 0x400
F_APPEND: Final = 0x800

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
BATCH_BEGIN: Final = 0x10
BATCH_END: Final = 0x11
SUBSYSTEM_NFTABLES: Final = 10
NFPROTO_UNSPEC: Final = 0
NFPROTO_INET: Final = 1
NFPROTO_BRIDGE: Final = 7
F_DUMP_INTR: Final = 0x10

_NESTED: Final = 0x8000
_TYPE_MASK: Final = 0x3FFF
_HEADER: Final = struct.Struct("=IHHII")
_FRAME: Final = struct.Struct("=IHH")  # how it begins: length, type, flags
_GENERIC: Final = struct.Struct(">BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")
_CAPPED: Final = 0x100  # NLM_F_CAPPED: the error does not repeat the whole request
_ACK_TLVS: Final = 0x200  # NLM_F_ACK_TLVS: attributes follow the error
_ERROR_TEXT: Final = 1  # NLMSGERR_ATTR_MSG

Attributes = dict[int, bytes]


@dataclass(frozen=True, slots=True)
class Message:
    """One received message; ``payload`` begins after nfgenmsg."""

    type: int
    flags: int
    sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """The kernel's answer that a message failed: a positive errno, and its own words if it gave any."""

    sequence: int
    errno: int
    text: str


def pack_message(type_: int, flags: int, sequence: int, payload: bytes, *, family: int, resource: int = 0) -> bytes:
    """One nfnetlink message: nlmsghdr, nfgenmsg, attributes."""
    length = _HEADER.size + _GENERIC.size + len(payload)
    return _HEADER.pack(length, type_, flags, sequence, 0) + _GENERIC.pack(family, 0, resource) + payload


def pack(type_: int, value: bytes) -> bytes:
    """One attribute, padded to four octets."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), type_) + value + bytes(-len(value) % 4)


def pack_nested(type_: int, *attributes: bytes) -> bytes:
    return pack(type_ | _NESTED, b"".join(attributes))


@lru_cache(maxsize=1024)
def pack_text(type_: int, text: str) -> bytes:
    return pack(type_, text.encode("ascii") + b"\0")


@lru_cache(maxsize=1024)
def pack_number(type_: int, value: int) -> bytes:
    """An attribute with a 32-bit number in network order, as all numbers of nf_tables are."""
    return pack(type_, struct.pack(">I", value & 0xFFFFFFFF))


def fill(shape: Callable[[bytes], bytes], value: bytes) -> bytes:
    """``shape(value)``, where ``shape`` puts the value unchanged in one place between octets that depend on its length.

    Calls ``shape`` once for each length only: there are hundreds of thousands of names and addresses.
    """
    before, after = _around(shape, len(value))
    return before + value + after


@lru_cache(maxsize=1024)
def _around(shape: Callable[[bytes], bytes], size: int) -> tuple[bytes, bytes]:
    low, high = shape(bytes(size)), shape(b"\xff" * size)
    start = next((place for place, (one, other) in enumerate(zip(low, high, strict=True)) if one != other), 0)
    return low[:start], low[start + size :]


def parse(blob: bytes) -> Attributes:
    """Attributes by type; the last one of each type."""
    return dict(parse_list(blob))


def parse_list(blob: bytes) -> list[tuple[int, bytes]]:
    """Attributes in order. Raises ``ValueError`` when a length is impossible."""
    found: list[tuple[int, bytes]] = []
    head, head_size, offset, end = _ATTRIBUTE.unpack_from, _ATTRIBUTE.size, 0, len(blob)
    while offset + head_size <= end:
        length, type_ = head(blob, offset)
        if length < head_size or offset + length > end:
            raise ValueError(f"netlink attribute of {length} octets at {offset} of {end}")
        found.append((type_ & _TYPE_MASK, blob[offset + head_size : offset + length]))
        offset += (length + 3) & ~3
    return found


def text_of(value: bytes) -> str:
    return value.rstrip(b"\0").decode("ascii", "backslashreplace")


def number_of(value: bytes) -> int:
    return int.from_bytes(value, "big")


def parse_messages(blob: bytes) -> Iterator[Message]:
    """The messages of one or several received datagrams. Raises ``ValueError`` when a length is impossible."""
    offset = 0
    while offset + _HEADER.size <= len(blob):
        length, type_, flags, sequence, _port = _HEADER.unpack_from(blob, offset)
        if length < _HEADER.size or offset + length > len(blob):
            raise ValueError(f"netlink message of {length} octets at {offset} of {len(blob)}")
        start = _HEADER.size if type_ in (NLMSG_ERROR, NLMSG_DONE) else _HEADER.size + _GENERIC.size
        yield Message(type_, flags, sequence, blob[offset + start : offset + length])
        offset += (length + 3) & ~3


def scan_dump(part: bytes) -> tuple[bool, Message | None]:
    """Whether a received part of a dump says that the dump was interrupted, and the message that ends it, if here.

    Looks at no payload: a third of a microsecond for each message. Raises ``ValueError`` when a length is impossible.
    """
    frame, offset, is_interrupted = _FRAME.unpack_from, 0, False
    while offset + _HEADER.size <= len(part):
        length, type_, flags = frame(part, offset)
        if flags & F_DUMP_INTR:
            is_interrupted = True
        if type_ in (NLMSG_ERROR, NLMSG_DONE):
            return is_interrupted, next(parse_messages(part[offset:]))
        if length < _HEADER.size:
            raise ValueError(f"netlink message of {length} octets at {offset} of {len(part)}")
        offset += (length + 3) & ~3
    return is_interrupted, None


def parse_refusal(message: Message) -> Refusal | None:
    """What an NLMSG_ERROR or a failed NLMSG_DONE says; None for an acknowledgement."""
    code = -int.from_bytes(message.payload[:4], "little", signed=True) if len(message.payload) >= 4 else 0
    if code == 0:
        return None
    return Refusal(message.sequence, code, _error_text(message))


def _error_text(message: Message) -> str:
    whole = len(message.payload) >= 4 + _HEADER.size  # else it repeats no request, and nothing can follow
    if message.type != NLMSG_ERROR or not message.flags & _ACK_TLVS or not whole:
        return ""
    request_length = _HEADER.unpack_from(message.payload, 4)[0]
    skipped = 4 + (_HEADER.size if message.flags & _CAPPED else (request_length + 3) & ~3)
    return text_of(parse(message.payload[skipped:]).get(_ERROR_TEXT, b""))
