"""Persistent mappings and sets: a new version costs what changes, and so does comparing two versions.

Each version is an immutable value. Versions made from each other form a line, and share one dict: one version holds it,
every other one holds only how it differs from a neighbour, and is read through that neighbour. Before a new version is
made of one, the dict moves there (Baker's trick for persistent arrays).
"""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from itertools import takewhile
from operator import is_
from typing import Final, Generic, TypeVar, cast, overload

_K = TypeVar("_K")
_V = TypeVar("_V")
_T = TypeVar("_T")
_NOTHING: Final = object()
COPIED: Final = 256  # a set of so many members is copied in some microseconds
_MANY: Final = 1000  # a change of no more keys never pays for a new whole dict


class Evolving(Mapping[_K, _V], Generic[_K, _V]):
    """A persistent mapping: ``evolve`` makes the next version in O(changes).

    Only one thread may make the versions of a line; any thread may read any version meanwhile.
    """

    __slots__ = ("__weakref__", "_line", "_size", "_state")

    def __init__(self, contents: Mapping[_K, _V] | None = None) -> None:
        self._begin(dict(contents or {}), object())

    def _begin(self, whole: dict[_K, _V], line: object) -> None:
        self._line = line
        self._size = len(whole)
        # (the whole dict, None), or (how this version differs from a neighbour, that neighbour). Always replaced by a
        # new tuple, so that a reader in another thread can tell by identity whether the dict moved while it looked.
        self._state: tuple[dict[_K, object], Evolving[_K, _V] | None] = (whole, None)  # type: ignore[assignment]

    def evolve(self, put: Mapping[_K, _V], gone: Iterable[_K] = ()) -> "Evolving[_K, _V]":
        """The version without ``gone`` and with ``put``; this very one when nothing changes and ``put`` is small.

        O(changes) from the newest version of the line; from an older one also O(what differs from the newest).
        """
        gone = [key for key in gone if key not in put]
        if not put and not gone:
            return self
        undo = whole = self._take()
        if len(put) > max(_MANY, len(whole) // 2):  # a new whole dict costs less than comparing key by key
            whole, put = {**whole, **put}, {}
            if len(whole) > len(undo):
                undo = undo | dict.fromkeys(whole.keys() - undo.keys(), _NOTHING)
        else:
            undo = _differences(whole, put, gone)
        if not undo:
            return self
        newer: Evolving[_K, _V] = Evolving.__new__(Evolving)
        newer._begin(whole, self._line)  # type: ignore[arg-type]
        self._state = undo, newer  # first, so that another thread finds the old values, here or in what is still whole
        for key in gone:
            whole.pop(key, None)
        whole.update(put)
        newer._size = len(whole)
        return newer

    def _take(self) -> dict[_K, object]:
        """Moves the whole dict here from the version that holds it, and returns it. O(what differs on the way)."""
        way, holder = [], self
        while (nearer := holder._state[1]) is not None:
            way.append(holder)
            holder = nearer
        for to in reversed(way):
            (whole, _), (differences, _) = holder._state, to._state
            holder._state = {key: whole.get(key, _NOTHING) for key in differences}, to
            for key, value in differences.items():
                if value is _NOTHING:
                    whole.pop(key, None)
                else:
                    whole[key] = value
            to._state = whole, None
            holder = to
        return self._state[0]

    def __getitem__(self, key: _K) -> _V:
        value = self._find(key)
        if value is _NOTHING:
            raise KeyError(key)
        return value  # type: ignore[return-value]  # here and below no cast, which is a call where so few are made

    def __contains__(self, key: object) -> bool:
        return self._find(key) is not _NOTHING  # type: ignore[arg-type]

    @overload
    def get(self, key: _K, /) -> _V | None: ...
    @overload
    def get(self, key: _K, /, default: _V | _T) -> _V | _T: ...
    def get(self, key: _K, /, default: object = None) -> object:
        """As ``Mapping.get``, without raising and catching KeyError."""
        value = self._find(key)
        return default if value is _NOTHING else value

    def _find(self, key: _K) -> object:
        at = self
        while True:
            state = at._state
            held, nearer = state
            if nearer is None:
                value: object = held.get(key, _NOTHING)
                if at._state is state:  # else the contents moved meanwhile: what was found may be of another
                    return value
            elif key in held:
                return held[key]
            else:
                at = nearer

    def __iter__(self) -> Iterator[_K]:
        return iter(self._contents())

    def __len__(self) -> int:
        return self._size

    def items(self):  # type: ignore[no-untyped-def]  # noqa: ANN201  as Mapping's, in one step
        return self._contents().items()

    def values(self):  # type: ignore[no-untyped-def]  # noqa: ANN201  as Mapping's, in one step
        return self._contents().values()

    def some(self, keys: Iterable[_K]) -> dict[_K, _V]:
        """The items whose keys are in ``keys``. O(keys)."""
        wanted, state = keys if isinstance(keys, set) else set(keys), self._state
        held, nearer = state
        if nearer is None:
            found = _cut(held, wanted)
            if self._state is state:  # as in _find
                return cast("dict[_K, _V]", found)
        return {key: cast("_V", value) for key in wanted if (value := self._find(key)) is not _NOTHING}

    def _contents(self) -> dict[_K, _V]:
        """All of it, as a dict of the caller's own. O(size)."""
        differences, at = [], self
        while True:
            state = at._state
            held, nearer = state
            if nearer is not None:
                differences.append(held)
                at = nearer
                continue
            contents = dict(held)
            if at._state is state:  # as in _find
                break
        for each in reversed(differences):
            contents.update(each)
        if differences:
            contents = {key: value for key, value in contents.items() if value is not _NOTHING}
        return cast("dict[_K, _V]", contents)

    def touched_since(self, other: "Evolving[_K, _V]") -> set[_K] | None:
        """The keys that may differ between this version and ``other``; None if ``other`` is of another line."""
        if self._line is not other._line:
            return None
        while True:
            keys: set[_K] = set()
            met = {id(at): at for at in self._way_to(other, keys)}  # as values they stay alive, so that ids stay theirs
            if id(other) in met or any(id(at) in met for at in other._way_to(self, keys)):
                return keys  # else the dict moved between the two walks: both are done again

    def _way_to(self, other: "Evolving[_K, _V]", keys: set[_K]) -> "Iterator[Evolving[_K, _V]]":
        """The versions from here to the one with the dict, or to ``other``; ``keys`` gets what differs."""
        at: Evolving[_K, _V] | None = self
        while at is not None:
            yield at
            if at is other:
                return
            held, nearer = at._state
            if nearer is not None:
                keys.update(held)
            at = nearer


class Draft(Generic[_K, _V]):
    """The next version of a mapping while it is put together: reads see every change so far, ``finish`` makes it."""

    def __init__(self, origin: Evolving[_K, _V]) -> None:
        self._origin = origin
        self._put: dict[_K, _V] = {}
        self._gone: set[_K] = set()

    def __getitem__(self, key: _K) -> _V:
        if key in self._gone:
            raise KeyError(key)
        return self._put[key] if key in self._put else self._origin[key]

    def find(self, key: _K) -> _V | None:
        """The value under ``key``; None when there is none."""
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
        """Each key that was written, with its old and its new value; None for no value."""
        return [(key, self._origin.get(key), self.find(key)) for key in (*self._gone, *self._put)]

    def finish(self) -> Evolving[_K, _V]:
        return self._origin.evolve(self._put, self._gone) if self._put or self._gone else self._origin


class EvolvingSet(AbstractSet[_T], Generic[_T]):
    """A persistent set: ``evolve`` makes the next version in O(changes)."""

    __slots__ = ("members",)

    def __init__(self, members: Evolving[_T, None]) -> None:
        self.members = members

    def evolve(self, put: Iterable[_T], gone: Iterable[_T]) -> "EvolvingSet[_T]":
        """The version without ``gone`` and with ``put``; this very one when that changes nothing."""
        members = self.members.evolve(dict.fromkeys(put), gone)
        return self if members is self.members else EvolvingSet(members)

    @classmethod
    def of(cls, members: Iterable[_T] = ()) -> "EvolvingSet[_T]":
        """The first version of a new line."""
        return cls(Evolving(dict.fromkeys(members)))

    def __contains__(self, item: object) -> bool:
        return item in self.members

    def __eq__(self, other: object) -> bool:
        """Equality of sets; O(what differs) for two versions of one line."""
        if isinstance(other, EvolvingSet):
            return len(self) == len(other) and not differing(self.members, other.members)
        return isinstance(other, AbstractSet) and frozenset(self) == other

    __hash__ = None  # type: ignore[assignment]  # as every set that is no frozenset

    def __iter__(self) -> Iterator[_T]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    @classmethod
    def _from_iterable(cls, items: Iterable[_T]) -> frozenset[_T]:  # type: ignore[override]  # what |, & and - give
        return frozenset(items)


def evolving(mapping: Mapping[_K, _V]) -> Evolving[_K, _V]:
    """``mapping`` as an ``Evolving``: itself when it is one, else a copy in O(size)."""
    return mapping if isinstance(mapping, Evolving) else Evolving(mapping)


def differing(old: Mapping[_K, _V], new: Mapping[_K, _V]) -> set[_K]:
    """The keys whose values differ, or that only one of the two has.

    O(what changed between them) for two versions of one line, else O(both), mostly comparisons of identity.
    """
    if old is new:
        return set()
    return {key for key in _candidates(old, new) if not _alike(old.get(key, _NOTHING), new.get(key, _NOTHING))}


def differing_members(old: AbstractSet[_T], new: AbstractSet[_T]) -> set[_T]:
    """The members that only one of the two sets has; costs as ``differing``."""
    if isinstance(old, EvolvingSet) and isinstance(new, EvolvingSet):
        return differing(old.members, new.members)
    return set(frozenset(old) ^ frozenset(new))


def common_ends(old: tuple[_T, ...], new: tuple[_T, ...]) -> tuple[int, int]:
    """The lengths of the common prefix, and of the common suffix of the rest; objects are compared by identity alone.

    O(size), a hundred objects in a microsecond or two.
    """
    least = min(len(old), len(new))
    first = sum(takewhile(bool, map(is_, old, new)))
    last = sum(takewhile(bool, map(is_, reversed(old), reversed(new))))
    return first, min(last, least - first)


def change_members(old: AbstractSet[_T], put: Iterable[_T], gone: Iterable[_T]) -> AbstractSet[_T]:
    """The set without ``gone`` and with ``put``. Small: a copy; large: O(changes) after the first."""
    if isinstance(old, EvolvingSet):
        return old.evolve(put, gone)
    if len(old) > COPIED:
        return EvolvingSet.of(old).evolve(put, gone)
    return frozenset(old).difference(gone).union(put)


def _candidates(old: Mapping[_K, _V], new: Mapping[_K, _V]) -> Iterable[_K]:
    if isinstance(old, Evolving) and isinstance(new, Evolving):
        touched = old.touched_since(new)
        if touched is not None:
            return cast("set[_K]", touched)
    return {*old, *new}


def _alike(one: object, other: object) -> bool:
    return one is other or one == other


def _cut(held: dict[_K, object], wanted: set[_K]) -> dict[_K, object]:
    """The items of ``held`` whose keys are ``wanted``; when those are most, a copy less the others."""
    if 2 * len(wanted) < len(held):
        return {key: value for key in wanted if (value := held.get(key, _NOTHING)) is not _NOTHING}
    found = held.copy()
    for key in found.keys() - wanted:
        del found[key]
    return found


def _differences(whole: dict[_K, object], put: Mapping[_K, _V], gone: Iterable[_K]) -> dict[_K, object]:
    """The value in ``whole`` of each key that is to change; ``_NOTHING`` for a new key."""
    undo = {key: old for key, value in put.items() if (old := whole.get(key, _NOTHING)) is not value}
    for key in gone:
        if key in whole:
            undo[key] = whole[key]
    return undo


__all__ = [
    "Draft",
    "Evolving",
    "EvolvingSet",
    "change_members",
    "common_ends",
    "differing",
    "differing_members",
    "evolving",
]
