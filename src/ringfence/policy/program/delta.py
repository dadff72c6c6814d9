"""Actual versus desired program -> the steps that turn one into the other, in at most two transactions.

``prepare`` makes only what nothing refers to yet, ``flip`` is the one transaction that changes verdicts. Two kinds of
objects must not be made in the transaction that starts to use them: an interval set, which in the kernel matches
nothing for a moment after it was made; and a chain that a map leads to, because a packet under way through the old
rules looks the map up as it is now, and would find the new chain still without lines. What is in the actual program and
not in the desired one is deleted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ringfence.policy.evolving import differing, differing_members
from ringfence.policy.program import names
from ringfence.policy.program.base_chains import ALLOW, STAMP
from ringfence.policy.program.model import (
    Chain,
    CountBy,
    Dispatch,
    Foreign,
    Fresh,
    Goto,
    Jump,
    Line,
    Member,
    NamedSet,
    Program,
    Scalar,
    Seldom,
    Stamp,
    VerdictMap,
    part_of,
)
from ringfence.policy.program.names import TableFamily
from ringfence.policy.program.steps import (
    AddChain,
    AddCounter,
    AddElements,
    AddLine,
    AddMap,
    AddSet,
    AddTable,
    AddTargets,
    DeleteChain,
    DeleteCounter,
    DeleteElements,
    DeleteLine,
    DeleteMap,
    DeleteSet,
    DeleteTable,
    DeleteTargets,
    FlushChain,
    SetGeneration,
    Step,
)

_NOTHING: Final = Program()
_NO_SET: Final = NamedSet(())
_PIECE: Final = 5_000  # steps of some 250 octets each, which take the kernel some 50 ms


@dataclass(frozen=True, slots=True)
class Delta:
    """The two transactions. ``narrows``: a flow may lose its permission, so the generation must move with ``flip``.

    It need not when the table is new, because no flow carries the generation that a new table begins with.
    """

    prepare: tuple[Step, ...] = ()
    flip: tuple[Step, ...] = ()
    narrows: bool = False

    def __bool__(self) -> bool:
        return bool(self.prepare or self.flip)


def in_pieces(prepare: Sequence[Step]) -> list[Sequence[Step]]:
    """``prepare`` in several smaller transactions, so that encoded ones take little memory.

    It may be cut anywhere: nothing in force refers to what its steps make, and each step needs only those before it.
    """
    return [prepare[start : start + _PIECE] for start in range(0, len(prepare), _PIECE)]


def diff_programs(actual: Program, desired: Program) -> Delta:
    """The steps from ``actual`` (what the kernel holds; ``Program()`` for no table) to ``desired``.

    Whatever the path that led to ``actual``, applying the delta yields ``desired``, and a second diff is empty.
    O(what differs) when one program evolved from the other, else O(both), mostly comparisons of identity.
    """
    made = bool(actual.chains)
    missing = (
        *(() if ALLOW in actual.chains else (AddTable(),)),
        *(() if _is_bridged(actual) or not _is_bridged(desired) else (AddTable(TableFamily.BRIDGE),)),
    )
    # The bridge table goes, with all that is in it, when a host has no bridged ports any more; the inet table never.
    gone = (DeleteTable(TableFamily.BRIDGE),) if _is_bridged(actual) and not _is_bridged(desired) else ()
    actual = part_of(actual, TableFamily.INET) if gone else actual
    old, new = differing_parts(actual, desired)
    if old == new == _NOTHING and not gone:
        return Delta()
    replaced = _replaced(old, new)
    narrows = made and (bool(replaced) or _narrows(old, new))
    if not replaced:
        actual, desired = _with_generation(old, new, actual, desired) if narrows else (old, new)
    prepared, born = _share_out(_newborn(actual, desired, replaced), replaced, made=made)
    rewritten = _rewritten_chains(actual, desired, replaced, moved=narrows)
    edits = _edits(actual, desired, rewritten - {STAMP}) if not replaced else {}
    rewritten -= edits.keys()
    moved = prepared.chains.keys() & {STAMP} if narrows else frozenset()
    moves = narrows and names.FRESH not in born.sets
    flip = (
        *missing,
        *gone,
        *(FlushChain(name) for name in sorted(moved)),
        *(step for edit in edits.values() for step in edit if isinstance(step, DeleteLine)),
        *_clear(actual, desired, rewritten, replaced),
        *_make(born),
        *_fill(actual, desired, replaced),
        *(DeleteCounter(name) for name in sorted(actual.counters - desired.counters)),  # an element may lead to one
        *((SetGeneration(),) if moves else ()),
        *(step for edit in edits.values() for step in edit if isinstance(step, AddLine)),
        *_write(desired, {*rewritten, *born.chains, *moved}),
        *_add_targets(actual, desired, replaced),
    )
    prepare = (*missing, *_make(prepared), *_write(desired, prepared.chains.keys())) if prepared != _NOTHING else ()
    return Delta(prepare, flip, narrows)


def _is_bridged(program: Program) -> bool:
    """Whether it has a table of family bridge: this set is always in one."""
    return names.FRAME_PORTS in program.sets


def hold_stamps(flip: tuple[Step, ...]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The flip without the lines that stamp flows, and a later transaction with them, once no packet is under way.

    A packet that the sender's side accepted by the old rules, and the receiver's side by the new ones, must not stamp
    its flow with the new generation: the sender's side would never judge that flow by the new rules.
    """
    held = {step.chain for step in flip if isinstance(step, AddLine) and _stamps(step.line)}
    lines = [step for step in flip if isinstance(step, AddLine) and step.chain in held]
    after: tuple[Step, ...] = (*(FlushChain(chain) for chain in sorted(held)), *lines)
    return tuple(step for step in flip if not (isinstance(step, AddLine) and _stamps(step.line))), after


def _stamps(line: Line) -> bool:
    return any(isinstance(part, Stamp) for part in line.parts)


def _newborn(actual: Program, desired: Program, replaced: frozenset[str]) -> Program:
    """What has to be made, because it is missing or has the wrong shape."""
    chains = {
        name: chain
        for name, chain in desired.chains.items()
        if name not in actual.chains or actual.chains[name].hook != chain.hook
    }
    return Program(
        frozenset(desired.counters - actual.counters),
        {name: set_ for name, set_ in desired.sets.items() if name not in actual.sets or name in replaced},
        {
            name: VerdictMap(type=map_.type)
            for name, map_ in desired.maps.items()
            if name not in actual.maps or name in replaced
        },
        chains,
    )


def _share_out(newborn: Program, replaced: frozenset[str], *, made: bool) -> tuple[Program, Program]:
    """``newborn`` in two: what ``prepare`` makes, and what ``flip`` does. All is for the flip where nothing forbids it.

    ``made``: the table exists, so packets may be under way through its rules. A set in a wrong shape, which somebody
    tampered with, can only be replaced in one transaction with all that refers to it.
    """
    chains = {name: chain for name, chain in newborn.chains.items() if chain.hook is None}
    is_needed = (made and bool(chains)) or any(set_.interval for set_ in newborn.sets.values())
    if replaced or not is_needed:
        return _NOTHING, newborn
    bases = {name: chain for name, chain in newborn.chains.items() if chain.hook is not None}
    return Program(newborn.counters, newborn.sets, newborn.maps, chains), Program(chains=bases)


def differing_parts(actual: Program, desired: Program) -> tuple[Program, Program]:
    """Both programs reduced to what differs between them."""
    counters = differing_members(actual.counters, desired.counters)
    sets = differing(actual.sets, desired.sets)
    maps = {
        name for name in {*actual.maps, *desired.maps} if _targets_differ(actual.maps.get(name), desired.maps.get(name))
    }
    chains = differing(actual.chains, desired.chains)

    def part(program: Program) -> Program:
        return Program(
            frozenset(name for name in counters if name in program.counters),
            {name: program.sets[name] for name in sets if name in program.sets},
            {name: program.maps[name] for name in maps if name in program.maps},
            {name: program.chains[name] for name in chains if name in program.chains},
        )

    return part(actual), part(desired)


def _targets_differ(old: VerdictMap | None, new: VerdictMap | None) -> bool:
    if old is None or new is None:
        return old is not new
    return old.type is not new.type or bool(differing(old.targets, new.targets))


def _with_generation(old: Program, new: Program, actual: Program, desired: Program) -> tuple[Program, Program]:
    """The differing parts with the chain that stamps the generation, which is rewritten when the generation moves."""

    def more(part: Program, whole: Program) -> Program:
        return replace(part, chains={**part.chains, STAMP: whole.chains[STAMP]}) if STAMP in whole.chains else part

    return more(old, actual), more(new, desired)


def _replaced(actual: Program, desired: Program) -> frozenset[str]:
    """Sets and maps that exist in a shape other than desired: tampered with, or of another version's layout."""
    sets, maps = actual.sets.keys() & desired.sets.keys(), actual.maps.keys() & desired.maps.keys()
    replaced = {name for name in sets if _shape(actual.sets[name]) != _shape(desired.sets[name])}
    replaced |= {name for name in maps if actual.maps[name].type is not desired.maps[name].type}
    shared = {family for family, name in names.MEMBERS.items() if name in replaced}
    if not shared:
        return frozenset(replaced)
    members = {name for name in desired.sets if (found := names.parse_numbered_set(name)) and found[1] in shared}
    return frozenset(replaced | members)


def _rewritten_chains(actual: Program, desired: Program, replaced: frozenset[str], *, moved: bool) -> frozenset[str]:
    """Existing chains to rewrite: changed ones, the stamping one if the generation moves, users of replaced sets."""
    return frozenset(
        name
        for name, chain in desired.chains.items()
        if name in actual.chains
        and not _is_gone(name, actual.chains[name], desired)
        and (actual.chains[name] != chain or (moved and name == STAMP) or _refers_to(chain, replaced))
    )


def _edits(actual: Program, desired: Program, chains: Iterable[str]) -> dict[str, tuple[AddLine | DeleteLine, ...]]:
    """The edits of the chains that only lose lines, or only get lines at the end; the others have to be rewritten.

    For every added line with a verdict the kernel walks through the whole table; deleting lines spares it that.
    """
    found = {name: _edit(name, actual.chains[name].lines, desired.chains[name].lines) for name in sorted(chains)}
    return {name: edit for name, edit in found.items() if edit}


def _edit(name: str, old: tuple[Line, ...], new: tuple[Line, ...]) -> tuple[AddLine | DeleteLine, ...]:
    """Nothing where more than that is needed, or where lines cannot be told apart."""
    wanted, present = set(new), set(old)
    if len(present) < len(old) or any(isinstance(part, Foreign) for line in old for part in line.parts):
        return ()
    if new[: len(old)] == old:
        return tuple(AddLine(name, line) for line in new[len(old) :])
    if new == tuple(line for line in old if line in wanted):
        return tuple(DeleteLine(name, line) for line in old if line not in wanted)
    return ()


def _refers_to(chain: Chain, replaced: frozenset[str]) -> bool:
    return bool(replaced) and any(
        (isinstance(part, Member) and part.set in replaced)
        or (isinstance(part, Dispatch) and part.map in replaced)
        or (isinstance(part, Seldom) and part.tally in replaced)
        or (isinstance(part, CountBy) and part.set in replaced)
        or (isinstance(part, Fresh) and names.FRESH in replaced)
        for line in chain.lines
        for part in line.parts
    )


def _clear(actual: Program, desired: Program, rewritten: frozenset[str], replaced: frozenset[str]) -> Iterator[Step]:
    """Deletes everything but counters, in an order in which nothing is deleted while something refers to it."""
    gone = [name for name, chain in actual.chains.items() if _is_gone(name, chain, desired)]
    for name in sorted({*gone, *rewritten}):
        if actual.chains[name].lines:
            yield FlushChain(name)
    for name, map_ in sorted(actual.maps.items()):
        if name in replaced:
            continue  # goes whole
        wanted = desired.maps.get(name, VerdictMap()).targets
        if stale := _targets_of(map_, differing(map_.targets, wanted)):
            yield DeleteTargets(name, stale)
    yield from (DeleteMap(name) for name in sorted(actual.maps) if name not in desired.maps or name in replaced)
    yield from (DeleteChain(name) for name in sorted(gone))
    for name in sorted(name for name in actual.sets if name not in desired.sets or name in replaced):
        yield from _delete_set(name, actual.sets[name])


def _delete_set(name: str, set_: NamedSet) -> Iterator[Step]:
    """All member sets share one set of the kernel's (``names.MEMBERS``): deleting one means deleting its elements."""
    if set_.elements and names.parse_numbered_set(name):
        yield DeleteElements(name, _shape(set_), tuple(set_.elements))
    yield DeleteSet(name)


def _is_gone(name: str, chain: Chain, desired: Program) -> bool:
    return name not in desired.chains or desired.chains[name].hook != chain.hook


def _make(newborn: Program) -> Iterator[Step]:
    """Everything in ``newborn`` but the lines of its chains."""
    yield from (AddCounter(name) for name in sorted(newborn.counters))
    yield from (AddSet(name, _shape(set_)) for name, set_ in sorted(newborn.sets.items()))
    for name, set_ in sorted(newborn.sets.items()):
        if set_.elements:
            yield AddElements(name, _shape(set_), tuple(set_.elements))
    yield from (SetGeneration() for name in newborn.sets if name == names.FRESH)
    yield from (AddMap(name, map_.type) for name, map_ in sorted(newborn.maps.items()) if map_.type is not None)
    yield from (AddChain(name, chain.hook) for name, chain in sorted(newborn.chains.items()))


def _fill(actual: Program, desired: Program, replaced: frozenset[str]) -> Iterator[Step]:
    """Adds and deletes elements of sets that exist already."""
    for name in sorted((desired.sets.keys() & actual.sets.keys()) - replaced):
        wanted = desired.sets[name]
        moved = differing_members(actual.sets[name].elements, wanted.elements)
        if removed := tuple(element for element in moved if element not in wanted.elements):
            yield DeleteElements(name, _shape(wanted), removed)
        if len(removed) < len(moved):
            yield AddElements(name, _shape(wanted), tuple(element for element in moved if element in wanted.elements))


def _write(desired: Program, chains: Iterable[str]) -> Iterator[Step]:
    yield from (AddLine(name, line) for name in sorted(chains) for line in desired.chains[name].lines)


def _add_targets(actual: Program, desired: Program, replaced: frozenset[str]) -> Iterator[Step]:
    for name, map_ in sorted(desired.maps.items()):
        present = {} if name in replaced else actual.maps.get(name, VerdictMap()).targets
        if fresh := _targets_of(map_, differing(present, map_.targets)):
            yield AddTargets(name, fresh)


def _shape(set_: NamedSet) -> NamedSet:
    return replace(set_, elements=frozenset())


def _targets_of(map_: VerdictMap, keys: Iterable[Scalar]) -> tuple[tuple[Scalar, str], ...]:
    return tuple((key, map_.targets[key]) for key in keys if key in map_.targets)


def _narrows(old: Program, new: Program) -> bool:
    """Whether a flow that passed might not pass any more, given what differs. In doubt yes: flows are judged again."""
    return (
        bool(old.maps or new.maps)
        or not names.PORT_SETS.isdisjoint({*old.sets, *new.sets})
        or any(_loses(set_, new.sets.get(name, _NO_SET)) for name, set_ in old.sets.items())
        or any(not only_widens(chain, new.chains.get(name)) for name, chain in old.chains.items())
    )


def _loses(old: NamedSet, new: NamedSet) -> bool:
    return any(element in old.elements for element in differing_members(old.elements, new.elements))


def only_widens(old: Chain, new: Chain | None) -> bool:
    """Whether every line of the old chain is kept in order and each new one can only allow more."""
    if new is None or new.hook != old.hook:
        return False
    kept = iter(old.lines)
    awaited = next(kept, None)
    for line in new.lines:
        if line == awaited:
            awaited = next(kept, None)
        elif not can_only_allow(line):
            return False
    return awaited is None


def can_only_allow(line: Line) -> bool:
    """Whether adding the line can only allow more: it ends in ``allow``, or jumps to one more group."""
    last = line.parts[-1] if line.parts else None
    return isinstance(last, Jump) or last == Goto(ALLOW)
