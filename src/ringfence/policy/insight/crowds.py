"""Interned sets of classes: each set has a small number, so that the intersection of two is computed once.

Hashing a set of fifteen thousand classes takes longer than intersecting it with another; a number hashes at once.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, eq=False)
class Crowd:
    """A set of classes (one bit each), and its number among the ``Crowds`` that made it."""

    number: int
    classes: int

    def __bool__(self) -> bool:
        return bool(self.number)


_EMPTY: Final = Crowd(0, 0)


class Crowds:
    """The table of interned sets."""

    def __init__(self) -> None:
        self._known: dict[int, Crowd] = {_EMPTY.classes: _EMPTY}
        self._common: dict[tuple[int, int], Crowd] = {}

    def fork(self) -> "Crowds":
        """A copy with the same numbers, which then grows on its own."""
        fork = Crowds()
        fork._known = dict(self._known)
        return fork

    def of(self, classes: int) -> Crowd:
        """The interned set."""
        crowd = self._known.get(classes)
        if crowd is None:
            crowd = self._known[classes] = Crowd(len(self._known), classes)
        return crowd

    def common(self, one: Crowd, two: Crowd) -> Crowd:
        """The intersection."""
        key = one.number, two.number
        crowd = self._common.get(key)
        if crowd is None:
            classes = one.classes & two.classes
            crowd = one if classes == one.classes else two if classes == two.classes else self.of(classes)
            self._common[key] = crowd
        return crowd
