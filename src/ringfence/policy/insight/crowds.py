"""Sets of classes under small numbers, equal ones under the same, so that what two have in common is worked out once.

A set of fifteen thousand classes takes longer to be hashed than to be met with another; a number takes no time at all.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, eq=False)
class Crowd:
    """``classes`` is the set, ``number`` what it is known by among the ``Crowds`` that made it."""

    number: int
    classes: int

    def __bool__(self) -> bool:
        return bool(self.number)


_EMPTY: Final = Crowd(0, 0)


class Crowds:
    """Every set that was asked for, once."""

    def __init__(self) -> None:
        self._known: dict[int, Crowd] = {_EMPTY.classes: _EMPTY}
        self._common: dict[tuple[int, int], Crowd] = {}

    def fork(self) -> "Crowds":
        """The same ones under the same numbers; what is added is not added to these."""
        fork = Crowds()
        fork._known = dict(self._known)
        return fork

    def of(self, classes: int) -> Crowd:
        """The set itself."""
        crowd = self._known.get(classes)
        if crowd is None:
            crowd = self._known[classes] = Crowd(len(self._known), classes)
        return crowd

    def common(self, one: Crowd, two: Crowd) -> Crowd:
        """Who is in both."""
        key = one.number, two.number
        crowd = self._common.get(key)
        if crowd is None:
            classes = one.classes & two.classes
            crowd = one if classes == one.classes else two if classes == two.classes else self.of(classes)
            self._common[key] = crowd
        return crowd
