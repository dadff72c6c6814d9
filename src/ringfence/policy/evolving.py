"""Mappings and sets that know how they differ from those they were made from: a difference costs what changed.

Each is a value: who holds one sees it as it was made, whatever came after it. Only the newest of a line holds its whole
contents; an older one holds what its successor changed, and is read through it (Baker's trick for persistent arrays).
"""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, Generic, TypeVar, cast, overload

_K = TypeVar("_K")
_V = TypeVar("_V")
_T = TypeVar("_T")
_NOTHING: Final = object()


class Evolving(Mapping[_K, _V], Generic[_K, _V]):
    """A mapping from which others are made by small changes, in O(changes).

    A line of them is made by one thread; any other may read each of them meanwhile.
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
        whole, gone = self._whole, tuple(gone)
        if not put and not gone:
            return self
        if whole is None:
            return Evolving(self._contents()).evolve(put, gone)
        undo = _differences(whole, put, gone)
        if not undo:
            return self
        newer: Evolving[_K, _V] = Evolving.__new__(Evolving)
        newer._begin(whole, self._line)
        # In this order, so that another thread finds the old value: in the whole as long as this one has it, then here.
        self._undo, self._newer = undo, newer
        self._whole = None
        for key in gone:
            whole.pop(key, None)
        whole.update(put)
        newer._size = len(whole)
        return newer

    def __getitem__(self, key: _K) -> _V:
        value = self._find(key)
        if value is _NOTHING:
            raise KeyError(key)
        return cast("_V", value)

    def __contains__(self, key: object) -> bool:
        return self._find(cast("_K", key)) is not _NOTHING

    @overload
    def get(self, key: _K, /) -> _V | None: ...
    @overload
    def get(self, key: _K, /, default: _V | _T) -> _V | _T: ...
    def get(self, key: _K, /, default: object = None) -> object:
        """As Mapping's, in one step."""
        value = self._find(key)
        return default if value is _NOTHING else value

    def _find(self, key: _K) -> object:
        at = self
        while True:
            if (whole := at._whole) is not None:
                value: object = whole.get(key, _NOTHING)
                if at._whole is whole:  # else another thread made the next one meanwhile: what was found may be of it
                    return value
            if key in at._undo:
                return at._undo[key]
            at = cast("Evolving[_K, _V]", at._newer)

    def __iter__(self) -> Iterator[_K]:
        return iter(self._contents())

    def __len__(self) -> int:
        return self._size

    def items(self):  # type: ignore[no-untyped-def]  # noqa: ANN201  as Mapping's, in one step
        return self._contents().items()

    def values(self):  # type: ignore[no-untyped-def]  # noqa: ANN201  as Mapping's, in one step
        return self._contents().values()

    def some(self, keys: Iterable[_K]) -> dict[_K, _V]:
        """What it has under those of ``keys`` that there are. O(keys)."""
        wanted = list(keys)
        if (whole := self._whole) is not None:
            found = {key: whole[key] for key in wanted if key in whole}
            if self._whole is whole:  # as in _find
                return found
        return {key: cast("_V", value) for key in wanted if (value := self._find(key)) is not _NOTHING}

    def _contents(self) -> dict[_K, _V]:
        """All of it, as a dict of the caller's own. O(size)."""
        older, at = [], self
        while True:
            if (whole := at._whole) is not None:
                contents: dict[_K, object] = dict(whole)
                if at._whole is whole:
                    break
            older.append(at)
            at = cast("Evolving[_K, _V]", at._newer)
        for each in reversed(older):
            contents.update(each._undo)
        if older:
            contents = {key: value for key, value in contents.items() if value is not _NOTHING}
        return cast("dict[_K, _V]", contents)

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


class Draft(Generic[_K, _V]):
    """The next mapping while it is put together: read as if every change were made, made at once by ``finish``."""

    def __init__(self, origin: Evolving[_K, _V]) -> None:
        self._origin = origin
        self._put: dict[_K, _V] = {}
        self._gone: set[_K] = set()

    def __getitem__(self, key: _K) -> _V:
        if key in self._gone:
            raise KeyError(key)
        return self._put[key] if key in self._put else self._origin[key]

    def find(self, key: _K) -> _V | None:
        """What stands under ``key``; None when nothing does."""
        if key in self._gone:
            return None
        return self._put[key] if key in self._put else self._origin.get(key)

    def __setitem__(self, key: _K, value: _V) -> None:
        self._gone.discard(key)
        self._put[key] = value

    def __delitem__(self, key: _K) -> None:
        self._put.pop(key, None)
        self._gone.add(key)

    def changes(self) -> list[tuple[_K, _V | None, _V | None]]:
        """Each key that was written, what stood there and what stands there; None for nothing."""
        return [(key, self._origin.get(key), self.find(key)) for key in (*self._gone, *self._put)]

    def finish(self) -> Evolving[_K, _V]:
        return self._origin.evolve(self._put, self._gone)


class EvolvingSet(AbstractSet[_T], Generic[_T]):
    """A set from which others are made by small changes, in O(changes)."""

    __slots__ = ("members",)

    def __init__(self, members: Evolving[_T, None]) -> None:
        self.members = members

    def evolve(self, put: Iterable[_T], gone: Iterable[_T]) -> "EvolvingSet[_T]":
        """The set after ``gone`` went and ``put`` came; itself when that changes nothing."""
        members = self.members.evolve(dict.fromkeys(put), gone)
        return self if members is self.members else EvolvingSet(members)

    @classmethod
    def of(cls, members: Iterable[_T] = ()) -> "EvolvingSet[_T]":
        """A set that begins a line."""
        return cls(Evolving(dict.fromkeys(members)))

    def __contains__(self, item: object) -> bool:
        return item in self.members

    def __eq__(self, other: object) -> bool:
        """As a set; cheap for two of one line."""
        if isinstance(other, EvolvingSet):
            return len(self) == len(other) and not differing(self.members, other.members)
        return AbstractSet.__eq__(self, other)

    __hash__ = None  # type: ignore[assignment]  # as every set that is no frozenset

    def __iter__(self) -> Iterator[_T]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    @classmethod
    def _from_iterable(cls, items: Iterable[_T]) -> frozenset[_T]:  # type: ignore[override]  # what |, & and - give
        return frozenset(items)


def evolving(mapping: Mapping[_K, _V]) -> Evolving[_K, _V]:
    """``mapping`` as one from which others can be made; itself when it is one. O(size) if not."""
    return mapping if isinstance(mapping, Evolving) else Evolving(mapping)


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


def _differences(whole: dict[_K, _V], put: Mapping[_K, _V], gone: Iterable[_K]) -> dict[_K, object]:
    """What is in ``whole`` under each key that is to change; nothing, for one that is to come."""
    undo: dict[_K, object] = {key: whole[key] for key in gone if key in whole and key not in put}
    undo |= {key: old for key, value in put.items() if (old := whole.get(key, _NOTHING)) is not value}
    return undo


__all__ = ["Draft", "Evolving", "EvolvingSet", "differing", "differing_members", "evolving"]
