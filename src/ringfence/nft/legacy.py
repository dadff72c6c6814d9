"""The tables of iptables-legacy, which nf_tables does not show: the kernel's octets of one -> its chains.

Pure. The layout is that of ip_tables.h, ip6_tables.h and x_tables.h, in host byte order. Only whether a chain may drop
or mark is read; no match is parsed.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ringfence.nft.foreign import ForeignChain
from ringfence.policy.addresses import Family

LEGACY_TABLES: Final = ("raw", "mangle", "nat", "filter", "security")
INFO: Final = struct.Struct("@32sI5I5III")  # name, hooks, offsets of their first and last entry, entries, octets
ENTRIES: Final = struct.Struct("@32sI0Q")  # name, octets; then the entries themselves

_FAMILY: Final[dict[Family, str]] = {4: "ip", 6: "ip6"}
_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting")
_PRIORITY: Final = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_NAT_PRIORITY: Final = {"input": 100, "postrouting": 100}
_NAT_DEFAULT: Final = -100
_ADDRESS_PART: Final[dict[Family, int]] = {4: 84, 6: 136}  # octets of an entry before the part that both families share
_REST: Final = struct.Struct("@IHH")  # a cache, offset of the target, offset of the next entry
_TARGET: Final = struct.Struct("@H29sB")
_VERDICT: Final = struct.Struct("@i")
_DROP: Final = -1  # the verdict -(NF_DROP) - 1; a jump is not negative
_CHAIN_BEGINS: Final = "ERROR"  # the target before each chain but those of hooks, and after the last chain


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry (rule): its target, and the offsets of the next entry and of where it jumps to, if it does."""

    target: str
    next: int
    drops: bool = False
    leads: int | None = None


def read_legacy(family: Family, table: str, info: bytes, entries: bytes) -> tuple[ForeignChain, ...]:
    """The chains of one table that hooks lead to. ``entries`` come without their header. O(entries).

    Raises:
        struct.error: the octets are too short for this layout.
    """
    _, hooks, *rest = INFO.unpack(info)
    begins, ends = rest[:5], rest[5:10]
    return tuple(
        _chain(family, table, hook, _Walk(family, entries, begins[number], ends[number]))
        for number, hook in enumerate(_HOOKS)
        if hooks >> number & 1
    )


def _chain(family: Family, table: str, hook: str, walk: "_Walk") -> ForeignChain:
    reached = list(walk.reached())
    return ForeignChain(
        _FAMILY[family],
        f"iptables-legacy {table}",
        hook.upper(),
        hook,
        _PRIORITY.get(table, _NAT_PRIORITY.get(hook, _NAT_DEFAULT)),
        walk.policy.drops,
        any(entry.drops for entry in reached),
        any(entry.target == "CONNMARK" for entry in reached),  # or only reads it: its data is not parsed here
    )


class _Walk:
    """Walks through the entries of one hook's chain and of the chains that it jumps to."""

    def __init__(self, family: Family, entries: bytes, begin: int, end: int) -> None:
        self._family, self._entries, self._begin, self._end = family, entries, begin, end
        self.policy = self._entry(end)

    def reached(self) -> Iterator[_Entry]:
        """All entries but the chain's policy."""
        seen, ahead = set[int](), [self._begin]
        while ahead:
            at = ahead.pop()
            while at not in seen and at != self._end:
                seen.add(at)
                entry = self._entry(at)
                if entry.target == _CHAIN_BEGINS:
                    break
                yield entry
                if entry.leads is not None:
                    ahead.append(entry.leads)
                at = entry.next

    def _entry(self, at: int) -> _Entry:
        place = at + _ADDRESS_PART[self._family]
        _, target, after = _REST.unpack_from(self._entries, place)
        _, octets, _ = _TARGET.unpack_from(self._entries, at + target)
        name = octets.partition(b"\0")[0].decode("ascii", "replace")
        if name:
            return _Entry(name, at + after, drops=name == "REJECT")
        (verdict,) = _VERDICT.unpack_from(self._entries, at + target + _TARGET.size)
        return _Entry(name, at + after, drops=verdict == _DROP, leads=verdict if verdict >= 0 else None)
