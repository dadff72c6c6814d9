"""Sets of addresses as disjoint, merged intervals, the only form that the kernel's interval sets take.

The kernel refuses overlapping intervals and cannot delete part of a merged one, so merging is done here, never by it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ringfence.policy.values import Address, Network

Family = Literal[4, 6]
FAMILIES: tuple[Family, Family] = (4, 6)


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """Addresses of one family as integers, both ends included."""

    first: int
    last: int

    def __contains__(self, address: Address) -> bool:
        return self.first <= int(address) <= self.last


def merge_networks(networks: Iterable[Network], family: Family) -> frozenset[Interval]:
    """The fewest disjoint, non-adjacent intervals that cover exactly the networks of ``family``. O(n log n)."""
    return merge_intervals(
        Interval(int(network.network_address), int(network.broadcast_address))
        for network in networks
        if network.version == family
    )


def merge_intervals(intervals: Iterable[Interval]) -> frozenset[Interval]:
    """The fewest disjoint, non-adjacent intervals that cover exactly ``intervals``, all of one family. O(n log n)."""
    merged: list[Interval] = []
    for each in sorted(intervals):
        if merged and each.first <= merged[-1].last + 1:
            merged[-1] = Interval(merged[-1].first, max(merged[-1].last, each.last))
        else:
            merged.append(each)
    return frozenset(merged)
