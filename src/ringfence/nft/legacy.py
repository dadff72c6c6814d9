"""Tables of iptables-legacy, which nf_tables does not show: the kernel's octets of one -> its chains, and who may drop.

Pure. The layout is that of ip_tables.h, ip6_tables.h and x_tables.h, in the machine's own order of octets. Only what a
chain may do is read; no match is understood.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ringfence.nft.foreign import ForeignChain
from ringfence.policy.addresses import Family

LEGACY_TABLES: Final = ("raw", "mangle", "nat", "filter", "security")
INFO: Final = struct.Struct("@32sI5I5III")  # name, which hooks, where their chains begin, where end, entries, octets
ENTRIES: Final = struct.Struct("@32sI0Q")  # name, octets; then the entries themselves

_FAMILY: Final[dict[Family, str]] = {4: "ip", 6: "ip6"}
_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting")
_PRIORITY: Final = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_NAT_PRIORITY: Final = {"input": 100, "postrouting": 100}
_NAT_DEFAULT: Final = -100
_ADDRESS_PART: Final[dict[Family, int]] = {4: 84, 6: 136}  # octets of an entry before what is alike in both
_REST: Final = struct.Struct("@IHH")  # a cache, where the target begins, where the next entry
_TARGET: Final = struct.Struct("@H29sB")
_VERDICT: Final = struct.Struct("@i")
_DROP: Final = -1  # a verdict that is no jump: -(NF_DROP) - 1
_CHAIN_BEGINS: Final = "ERROR"  # the target that stands before each chain but those of hooks, and after the last


@dataclass(frozen=True, slots=True)
class _Entry:
    """``leads``: where in the table a jump goes to; None for none."""

    target: str
    next: int
    drops: bool = False
    leads: int | None = None


def read_legacy(family: Family, table: str, info: bytes, entries: bytes) -> tuple[ForeignChain, ...]:
    """The chains of one table that hooks lead to. ``entries``: without the header. O(entries).

    Raises:
        struct.error: these are no such octets.
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
        any(entry.target == "CONNMARK" for entry in reached),  # or only reads it: what it does is its own to know
    )


class _Walk:
    """Through the entries of one hook's chain and of those that it jumps to."""

    def __init__(self, family: Family, entries: bytes, begin: int, end: int) -> None:
        self._family, self._entries, self._begin, self._end = family, entries, begin, end
        self.policy = self._entry(end)

    def reached(self) -> Iterator[_Entry]:
        """All of them but the policy."""
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
