"""The way from the actual to the desired program in several legs, where a packet under way would see both mixed.

A packet is judged by the lines that were in force when it reached the hook, but finds sets and maps as they are at each
look-up (that is how nf_tables works). With old lines and new elements it may be refused though both programs allow it,
as when a member leaves one allowed group for another; or allowed though both refuse it, as when a group gains a member
and loses a rule. A change that only gives (allows more) or only takes (allows less) can do no such harm. One that does
both goes in legs, with a grace period between them:

- Elements that give come together with the lines; elements that take go once no packet is judged by old lines.
- Where no order is right, sets and chains are made under temporary names beside the old ones, and then renamed back.

That is about one hook. A packet passes several, and which ports it may come from is asked before its rules (``gates``).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, pairwise
from typing import Final

from ringfence.policy.addresses import Interval, merge_intervals
from ringfence.policy.evolving import change_members, differing
from ringfence.policy.program import names
from ringfence.policy.program.base_chains import STAMP
from ringfence.policy.program.delta import Delta, can_only_allow, diff_programs, differing_parts, only_widens
from ringfence.policy.program.gates import find_stops
from ringfence.policy.program.model import (
    Chain,
    Count,
    Counted,
    Element,
    Foreign,
    Goto,
    Jump,
    Line,
    Member,
    NamedSet,
    Part,
    Program,
)
from ringfence.policy.program.names import is_of_policy
from ringfence.policy.program.steps import AddElements, AddLine, AddTargets, Step

_NO_CHAIN: Final = Chain(())
_NO_ELEMENTS: Final[frozenset[Element]] = frozenset()


@dataclass(frozen=True, slots=True)
class Leg:
    """One change of the kernel, and the program that the kernel holds after it."""

    delta: Delta
    program: Program


def find_way(actual: Program, desired: Program) -> tuple[Leg, ...]:
    """The legs from ``actual`` to ``desired``, which is the last leg's program; usually a single one.

    Before each further leg no packet may still be judged by what the previous leg replaced.
    O(what differs), and O(both) where there is more than one leg.
    """
    stops = (actual, *find_stops(actual, desired), desired)
    return tuple(leg for before, after in pairwise(stops) for leg in _legs(before, after))


def _legs(actual: Program, desired: Program) -> tuple[Leg, ...]:
    delta = diff_programs(actual, desired)
    if not (delta.narrows and any(_can_give(step) for step in (*delta.prepare, *delta.flip))):
        return (Leg(delta, desired),)
    change = _Change(actual, desired)
    if not change.mixes or not (change.gives and change.takes):
        return (Leg(delta, desired),)
    way = (actual, *_waypoints(change))
    return tuple(Leg(diff_programs(before, after), after) for before, after in pairwise(way))


def _can_give(step: Step) -> bool:
    return isinstance(step, AddElements | AddTargets) or (isinstance(step, AddLine) and step.chain != STAMP)


def _waypoints(change: "_Change") -> Iterator[Program]:
    apart = _set_apart(change)
    changes = [change] if apart is None else [_Change(change.actual, apart), _Change(apart, change.desired)]
    for each in changes:
        yield from _steps(each)


def _steps(change: "_Change") -> Iterator[Program]:
    """The programs after each step: first all that gives, then all that takes."""
    widest = {
        name: replace(change.actual.sets[name], elements=shift.widest)
        for name, shift in change.shifts.items()
        if shift.takes
    }
    if widest:
        desired = change.desired
        counters = change_members(desired.counters, _led_to(widest), ())
        yield replace(desired, counters=counters, sets={**desired.sets, **widest})
    yield change.desired


def _led_to(sets: Mapping[str, NamedSet]) -> set[str]:
    """The counters of the elements of those sets, which the kernel keeps as long as the elements exist."""
    late = [set_ for name, set_ in sets.items() if name in names.LATE.values()]
    return {element.counter for set_ in late for element in set_.elements if isinstance(element, Counted)}


@dataclass(frozen=True, slots=True)
class _Shift:
    """How the elements of a group's set change; ``widest`` has both the old and the new ones."""

    before: frozenset[Element]
    widest: frozenset[Element]
    after: frozenset[Element]

    @property
    def gives(self) -> bool:
        return self.widest != self.before

    @property
    def takes(self) -> bool:
        return self.widest != self.after


class _Change:
    """What differs between two programs, as far as it decides the way from one to the other."""

    def __init__(self, actual: Program, desired: Program) -> None:
        self.actual, self.desired = actual, desired
        old, new = differing_parts(actual, desired)
        self.chains = {*old.chains, *new.chains}
        self.shifts = {
            name: _shift(set_, new.sets.get(name)) for name, set_ in old.sets.items() if names.is_of_rules(name)
        }
        self.moves = set(_moves(old, new))  # (old, new) chain of each key of a map whose target changes

    @property
    def mixes(self) -> bool:
        """Whether a packet judged by the old lines may find elements of the new program."""
        return bool(self.shifts or self.moves)

    @property
    def gives(self) -> bool:
        return (
            any(shift.gives for shift in self.shifts.values())
            or any(not only_widens(new, old) for old, new in self._rewritten())
            or any(not _asked(new) <= _asked(old) for old, new in self._moved())
        )

    @property
    def takes(self) -> bool:
        return (
            any(shift.takes for shift in self.shifts.values())
            or any(not only_widens(old, new) for old, new in self._rewritten())
            or any(not _asked(old) <= _asked(new) for old, new in self._moved())
        )

    def lost_lines(self) -> Iterator[Line]:
        """Lines that are gone, or that no longer apply to an instance whose profile changes."""
        yield from _lines_without(self.actual, self.desired, self.chains)
        for old, new in self.moves:
            for name in _reach(self.actual, old) - _reach(self.desired, new):
                yield from self.actual.chains[name].lines

    def gained_lines(self) -> Iterator[Line]:
        """Lines that are new, or that newly apply to an instance whose profile changes."""
        yield from _lines_without(self.desired, self.actual, self.chains)
        for old, new in self.moves:
            for name in _reach(self.desired, new) - _reach(self.actual, old):
                yield from self.desired.chains[name].lines

    def _rewritten(self) -> Iterator[tuple[Chain, Chain]]:
        both = self.actual.chains.keys() & self.chains & self.desired.chains.keys()
        return ((self.actual.chains[name], self.desired.chains[name]) for name in both)

    def _moved(self) -> Iterator[tuple[Chain, Chain]]:
        for old, new in self.moves:
            yield self.actual.chains.get(old or "", _NO_CHAIN), self.desired.chains.get(new or "", _NO_CHAIN)


def _shift(old: NamedSet, new: NamedSet | None) -> _Shift:
    before, after = frozenset(old.elements), frozenset(new.elements) if new else _NO_ELEMENTS
    lost, gained = before - after, after - before
    if old.interval and lost and gained:  # intervals of one set must not overlap
        spans = [element for element in lost | gained if isinstance(element, Interval)]
        return _Shift(before, (before & after) | merge_intervals(spans), after)
    return _Shift(before, before | after, after)


def _moves(old: Program, new: Program) -> Iterator[tuple[str | None, str | None]]:
    for name in old.maps.keys() & new.maps.keys():
        before, after = old.maps[name].targets, new.maps[name].targets
        for key in differing(before, after):
            yield before.get(key), after.get(key)


def _asked(profile: Chain) -> frozenset[Line]:
    """The lines by which a profile can allow, without their counters."""
    return frozenset(_uncounted(line) for line in profile.lines if can_only_allow(line))


def _uncounted(line: Line) -> Line:
    return Line(tuple(part for part in line.parts if not isinstance(part, Count)))


def _lines_without(program: Program, other: Program, chains: Iterable[str]) -> Iterator[Line]:
    for name in chains:
        kept = set(other.chains.get(name, _NO_CHAIN).lines)
        yield from (line for line in program.chains.get(name, _NO_CHAIN).lines if line not in kept)


def _reach(program: Program, chain: str | None) -> set[str]:
    """``chain`` and all chains of profiles and groups that it leads to."""
    found: set[str] = set()
    ahead = [chain] if chain in program.chains else []
    while ahead:
        name = ahead.pop()
        if name is not None and name not in found and is_of_policy(name):
            found.add(name)
            ahead += [part.chain for part in _leads(program.chains[name].lines)]
    return found


def _leads(lines: Iterable[Line]) -> Iterator[Jump | Goto]:
    return (part for line in lines for part in line.parts if isinstance(part, Jump | Goto))


def _sets_of(lines: Iterable[Line]) -> set[str]:
    return {part.set for line in lines for part in line.parts if isinstance(part, Member)}


def _set_apart(change: _Change) -> Program | None:
    """The desired program with temporary names for what old lines must not see; None if there is nothing of the kind.

    A set that gains elements must not be seen by a line that goes, nor one that loses some by a line that comes. And a
    packet that reaches another profile from old lines must find it complete.
    """
    lost, gained = _sets_of(change.lost_lines()), _sets_of(change.gained_lines())
    sets = [
        name
        for name, shift in change.shifts.items()
        if name in change.desired.sets and ((shift.gives and name in lost) or (shift.takes and name in gained))
    ]
    renaming = _Renaming(change, sets)
    for _, new in change.moves:
        if new is not None:
            renaming.visit(new)
    return renaming.apply() if renaming.sets or renaming.chains else None


class _Renaming:
    """Gives objects of the desired program temporary names, so that they are made beside the existing ones."""

    def __init__(self, change: _Change, sets: Iterable[str]) -> None:
        self._actual, self._desired = change.actual, change.desired
        self.sets = {name: self._free(name, names.aside_set, change.actual.sets) for name in sets}
        self.chains: dict[str, str] = {}
        self._seen: set[str] = set()

    def visit(self, name: str) -> None:
        """Renames the chain, and all that it leads to, where the existing chain of that name has other lines."""
        if name in self._seen or not is_of_policy(name):
            return
        self._seen.add(name)
        chain = self._desired.chains[name]
        for part in _leads(chain.lines):
            self.visit(part.chain)
        present = self._actual.chains.get(name)
        if present is not None and present.lines != self._lines(chain):
            self.chains[name] = self._free(name, names.aside_chain, self._actual.chains)

    def apply(self) -> Program:
        desired = self._desired
        chains = {
            self.chains.get(name, name): replace(chain, lines=self._lines(chain)) if is_of_policy(name) else chain
            for name, chain in desired.chains.items()
        }
        maps = {
            name: replace(map_, targets={key: self.chains.get(to, to) for key, to in map_.targets.items()})
            for name, map_ in desired.maps.items()
        }
        sets = {self.sets.get(name, name): set_ for name, set_ in desired.sets.items()}
        return Program(desired.counters, sets, maps, chains)

    def _lines(self, chain: Chain) -> tuple[Line, ...]:
        return tuple(map(self._line, chain.lines))

    def _line(self, line: Line) -> Line:
        parts = tuple(map(self._part, line.parts))
        return line if parts == line.parts else Line(parts)

    def _part(self, part: Part | Foreign) -> Part | Foreign:
        match part:
            case Member(set=name) if name in self.sets:
                return replace(part, set=self.sets[name])
            case Jump(name) | Goto(name) if name in self.chains:
                return replace(part, chain=self.chains[name])
            case _:
                return part

    def _free(self, name: str, aside: Callable[[str, int], str], taken: Mapping[str, object]) -> str:
        """The first temporary name that is not taken; a crash may have left some behind."""
        wanted = self._desired.sets.keys() | self._desired.chains.keys()
        return next(free for n in count() if (free := aside(name, n)) not in taken and free not in wanted)
