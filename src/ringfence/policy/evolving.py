"""Mappings and sets that know how they differ from those they were made from: a difference costs what changed.

Each is a value: who holds one sees it as it was made, whatever came after it. Only the newest of a line holds its whole
contents; an older one holds what its successor changed, and is read through it (Baker's trick for persistent arrays).
"""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, Generic, TypeVar, cast

_K = TypeVar("_K")
_V = TypeVar("_V")
_T = TypeVar("_T")
_NOTHING: Final = object()


class Evolving(Mapping[_K, _V], Generic[_K, _V]):
    """A mapping from which others are made by small changes, in O(changes).

    A line of them belongs to one thread: to make the next one is seen by those before it.
    """

    __slots__ = ("_line", "_newer", "_size", "_undo", "_whole")

    def __init__(self, contents: Mapping[_K, _V] | None = None) -> None:
        self._begin(dict(contents or {}), object())

    def _begin(self, whole: dict[_K, _V], line: object) -> None:
        self._line = line
        self._whole: dict[_K, _V] | None = whole
        self._size = len(whole)
        self._newer: Evolving[_K, _V] | None = None
        self._undo: dict[_K, object] = {}

    def evolve(self, put: Mapping[_K, _V], gone: Iterable[_K] = ()) -> "Evolving[_K, _V]":
        """The mapping after ``gone`` went and ``put`` came; itself when that changes nothing.

        Cheap for the newest of a line; from an older one a line of its own begins, in O(size).
        """
        if self._whole is None:
            return Evolving(self._contents()).evolve(put, gone)
        undo = _apply(self._whole, put, gone)
        if not undo:
            return self
        newer: Evolving[_K, _V] = Evolving.__new__(Evolving)
        newer._begin(self._whole, self._line)
        self._whole, self._newer, self._undo = None, newer, undo
        return newer

    def __getitem__(self, key: _K) -> _V:
        at = self
        while at._whole is None and at._newer is not None:
            if key in at._undo:
                if (value := at._undo[key]) is _NOTHING:
                    raise KeyError(key)
                return cast("_V", value)
            at = at._newer
        return (at._whole or {})[key]

    def __iter__(self) -> Iterator[_K]:
        return iter(self._contents())

    def __len__(self) -> int:
        return self._size

    def items(self):  # type: ignore[no-untyped-def]  # noqa: ANN201  as Mapping's, in one step
        return self._contents().items()

    def values(self):  # type: ignore[no-untyped-def]  # noqa: ANN201  as Mapping's, in one step
        return self._contents().values()

    def _contents(self) -> dict[_K, _V]:
        """All of it, as a dict of the caller's own. O(size)."""
        older, at = [], self
        while at._whole is None and at._newer is not None:
            older.append(at)
            at = at._newer
        contents = dict(at._whole or {})
        for each in reversed(older):
            contents.update(cast("dict[_K, _V]", each._undo))
        return {key: value for key, value in contents.items() if value is not _NOTHING} if older else contents

    def touched_until(self, newer: "Evolving[_K, _V]") -> set[_K] | None:
        """The keys that may differ between this and a ``newer`` one of its line; None if it is none."""
        if self._line is not newer._line:
            return None
        keys: set[_K] = set()
        at: Evolving[_K, _V] | None = self
        while at is not None and at is not newer:
            keys.update(at._undo)
            at = at._newer
        return None if at is None else keys


class EvolvingSet(AbstractSet[_T], Generic[_T]):
    """A set from which others are made by small changes, in O(changes)."""

    __slots__ = ("members",)

    def __init__(self, members: Evolving[_T, None]) -> None:
        self.members = members

    def evolve(self, put: Iterable[_T], gone: Iterable[_T]) -> "EvolvingSet[_T]":
        """The set after ``gone`` went and ``put`` came; itself when that changes nothing."""
        members = self.members.evolve(dict.fromkeys(put), gone)
        return self if members is self.members else EvolvingSet(members)

    def __contains__(self, item: object) -> bool:
        return item in self.members

    def __iter__(self) -> Iterator[_T]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    @classmethod
    def _from_iterable(cls, items: Iterable[_T]) -> frozenset[_T]:  # type: ignore[override]  # what |, & and - give
        return frozenset(items)


def differing(old: Mapping[_K, _V], new: Mapping[_K, _V]) -> set[_K]:
    """The keys under which the two hold different things, or only one holds anything.

    O(what changed between them) for two of one line, else O(both), mostly comparisons of identity.
    """
    if old is new:
        return set()
    return {key for key in _candidates(old, new) if not _alike(old.get(key, _NOTHING), new.get(key, _NOTHING))}


def differing_members(old: AbstractSet[_T], new: AbstractSet[_T]) -> set[_T]:
    """What is in one of the two sets and not in the other; as cheap as ``differing``."""
    if isinstance(old, EvolvingSet) and isinstance(new, EvolvingSet):
        return differing(old.members, new.members)
    return set(old ^ new)


def _candidates(old: Mapping[_K, _V], new: Mapping[_K, _V]) -> Iterable[_K]:
    if isinstance(old, Evolving) and isinstance(new, Evolving):
        touched = old.touched_until(new)
        if touched is None:
            touched = new.touched_until(old)
        if touched is not None:
            return cast("set[_K]", touched)
    return {*old, *new}


def _alike(one: object, other: object) -> bool:
    return one is other or one == other


def _apply(whole: dict[_K, _V], put: Mapping[_K, _V], gone: Iterable[_K]) -> dict[_K, object]:
    """Changes ``whole``; what was there before under each key that changed."""
    undo: dict[_K, object] = {}
    for key in gone:
        if key in whole and key not in put:
            undo[key] = whole.pop(key)
    for key, value in put.items():
        old: object = whole.get(key, _NOTHING)
        if old is not value:
            undo[key] = old
            whole[key] = value
    return undo


__all__ = ["Evolving", "EvolvingSet", "differing", "differing_members"]
