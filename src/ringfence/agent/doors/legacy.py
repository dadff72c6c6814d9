"""Reads the tables of iptables-legacy, which exist beside nf_tables; never creates or changes one.

Asking the kernel for a table that does not exist would create it, so its list of tables is read first.
"""

import ctypes
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ringfence.agent.doors.netlink import explain_refusal
from ringfence.nft.foreign import ForeignChain
from ringfence.nft.legacy import ENTRIES, INFO, LEGACY_TABLES, read_legacy
from ringfence.policy.addresses import FAMILIES, Family
from ringfence.policy.errors import OperatorError

_NAMES: Final = Path("/proc/thread-self/net")
_PREFIX: Final[dict[Family, str]] = {4: "ip", 6: "ip6"}
_SOCKET_FAMILY: Final[dict[Family, int]] = {4: socket.AF_INET, 6: socket.AF_INET6}
_LEVEL: Final[dict[Family, int]] = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
_GET_INFO, _GET_ENTRIES = 64, 65
_STEP: Final = "read the tables of iptables-legacy"

_libc = ctypes.CDLL(None, use_errno=True)


def read_legacy_tables() -> Iterator[ForeignChain]:
    """The chains that hooks lead to, in the network namespace of the caller; none where the kernel has no such tables.

    O(entries). Raises ``OperatorError``.
    """
    for family in FAMILIES:
        if tables := _tables(family):
            with socket.socket(_SOCKET_FAMILY[family], socket.SOCK_DGRAM) as channel:
                for table in tables:
                    yield from _read(channel, family, table)


def _tables(family: Family) -> list[str]:
    try:
        names = (_NAMES / f"{_PREFIX[family]}_tables_names").read_text(encoding="ascii")
    except OSError:  # the kernel has none, or this is not root
        return []
    return [table for table in LEGACY_TABLES if table in names.split()]


def _read(channel: socket.socket, family: Family, table: str) -> tuple[ForeignChain, ...]:
    info = _ask(channel, family, _GET_INFO, INFO.pack(table.encode(), *(0,) * 13))
    size = INFO.unpack(info)[-1]
    entries = _ask(channel, family, _GET_ENTRIES, ENTRIES.pack(table.encode(), size) + bytes(size))
    try:
        return read_legacy(family, table, info, entries[ENTRIES.size :])
    except struct.error as error:
        raise OperatorError(_STEP, f"not understood: {error}") from error


def _ask(channel: socket.socket, family: Family, option: int, asked: bytes) -> bytes:
    """A getsockopt(2) whose buffer carries the question; the standard library's cannot pass one."""
    answer = ctypes.create_string_buffer(asked, len(asked))
    size = ctypes.c_uint(len(asked))
    if _libc.getsockopt(channel.fileno(), _LEVEL[family], option, answer, ctypes.byref(size)) != 0:
        raise OperatorError(_STEP, explain_refusal(ctypes.get_errno()))
    return answer.raw
