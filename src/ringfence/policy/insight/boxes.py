"""Boxes: sets of packets as a product of a set of sources, a set of destinations (classes) and a set of services."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Final, Protocol

from ringfence.policy.insight.intervals import EMPTY, Intervals


@dataclass(frozen=True, slots=True)
class Box:
    """All packets from one of ``sources`` to one of ``destinations`` (sets of classes) on ``services``."""

    sources: int
    destinations: int
    services: Intervals

    def __bool__(self) -> bool:
        return bool(self.sources and self.destinations and self.services)

    def __and__(self, other: "Box") -> "Box":
        sources, destinations = self.sources & other.sources, self.destinations & other.destinations
        if not (sources and destinations):
            return NOTHING
        return Box(sources, destinations, self.services & other.services)

    def without(self, part: "Box") -> Iterator["Box"]:
        """The box less ``part``, which lies within it: at most three boxes."""
        left = (
            Box(self.sources & ~part.sources, self.destinations, self.services),
            Box(part.sources, self.destinations & ~part.destinations, self.services),
            Box(part.sources, part.destinations, self.services - part.services),
        )
        return (box for box in left if box)


def left_of(box: Box, parts: Sequence[Box]) -> Iterator[Box]:
    """The box less all of ``parts``, as boxes without overlap."""
    open_ = [(box, 0)]
    while open_:
        left, first = open_.pop()
        for number in range(first, len(parts)):
            if part := left & parts[number]:
                open_ += ((piece, number + 1) for piece in left.without(part))
                break
        else:
            yield left


def meets(one: Box, two: Box) -> bool:
    """Whether two boxes have a packet in common."""
    return bool(one.sources & two.sources and one.destinations & two.destinations and one.services & two.services)


class Product(Protocol):
    """Anything with the three sides of a box."""

    @property
    def sources(self) -> int: ...
    @property
    def destinations(self) -> int: ...
    @property
    def services(self) -> Intervals: ...


def hull_of(boxes: Iterable[Product]) -> Box:
    """The smallest box that contains all of them."""
    found = [*boxes]
    return Box(
        reduce(or_, (box.sources for box in found), 0),
        reduce(or_, (box.destinations for box in found), 0),
        Intervals.joined({box.services for box in found}),
    )


NOTHING: Final = Box(0, 0, EMPTY)
