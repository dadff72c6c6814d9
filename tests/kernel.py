"""A table in memory that carries out the steps of a delta under the kernel's rules of reference.

The kernel refuses to delete what something refers to and to refer to what is not there (EBUSY, ENOENT, EEXIST); here
that is an AssertionError that names the step.
"""

from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from types import MappingProxyType

from ringfence.policy.addresses import Interval
from ringfence.policy.program.model import (
    Chain,
    Count,
    CountBy,
    Counted,
    Dispatch,
    Fresh,
    Goto,
    Jump,
    Member,
    NamedSet,
    Program,
    Seldom,
    VerdictMap,
)
from ringfence.policy.program.names import FRESH, place_of
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
)


@dataclass
class Table:
    """What is in the table; ``made`` whether it is there at all."""

    made: bool = False
    counters: set = field(default_factory=set)
    sets: dict = field(default_factory=dict)  # name -> (shape, set of elements)
    maps: dict = field(default_factory=dict)
    keys: dict = field(default_factory=dict)  # of a map: the type of what is looked up
    hooks: dict = field(default_factory=dict)
    lines: dict = field(default_factory=dict)
    has_generation: bool = True  # whether the set of the generation has its element

    @classmethod
    def holding(cls, program):
        table = cls(made=bool(program.chains or program.sets))
        table.counters = set(program.counters)
        table.sets = {name: (_shape(s), set(s.elements)) for name, s in program.sets.items()}
        table.maps = {name: dict(map_.targets) for name, map_ in program.maps.items()}
        table.keys = {name: map_.type for name, map_ in program.maps.items()}
        table.hooks = {name: chain.hook for name, chain in program.chains.items()}
        table.lines = {name: list(chain.lines) for name, chain in program.chains.items()}
        return table

    @property
    def program(self):
        sets = {n: replace(shape, elements=frozenset(e)) for n, (shape, e) in self.sets.items()}
        if FRESH in sets and not self.has_generation:
            sets[FRESH] = NamedSet(())
        return Program(
            frozenset(self.counters),
            MappingProxyType(sets),
            MappingProxyType({n: VerdictMap(MappingProxyType(dict(t)), self.keys[n]) for n, t in self.maps.items()}),
            MappingProxyType({n: Chain(tuple(self.lines[n]), hook) for n, hook in self.hooks.items()}),
        )

    def carry_out(self, steps):
        """One transaction. Returns what was both made in it and used by what was there before.

        That are interval sets which a line of an older chain, or of a base chain, asks, and chains that a map leads to.
        """
        born, used, older = set(), set(), set(self.lines)
        for step in steps:
            try:
                self._carry_out(step)
            except AssertionError as error:
                raise AssertionError(f"the kernel would refuse {step}: {error}") from error
            if isinstance(step, AddSet) and step.shape.interval:
                born.add(step.set)
            if isinstance(step, AddChain):
                born.add(step.chain)
            if isinstance(step, AddTargets) and older:  # nothing is under way through a table that was not there
                used |= {chain for _, chain in step.targets}
            if isinstance(step, AddLine) and (step.chain in older or self.hooks[step.chain]):
                used |= {part.set for part in step.line.parts if isinstance(part, Member)}
        return born & used

    def _carry_out(self, step):
        assert self.made or isinstance(step, AddTable), "there is no table"
        match step:
            case AddTable():
                self.made = True
            case DeleteTable(family):
                self._delete_table(family)
            case AddCounter(name):
                assert name not in self.counters
                self.counters.add(name)
            case DeleteCounter(name):
                assert not self._lines_with(Count(name))
                assert all(name != one.counter for one in self._counted())
                self.counters.remove(name)
            case AddSet() | DeleteSet() | AddElements() | DeleteElements():
                self._change_set(step)
            case SetGeneration():
                assert FRESH in self.sets
                self.has_generation = True
            case AddMap() | DeleteMap() | AddTargets() | DeleteTargets():
                self._change_map(step)
            case AddChain() | FlushChain() | DeleteChain() | AddLine() | DeleteLine():
                self._change_chain(step)
            case _:
                raise TypeError(step)

    def _delete_table(self, family):
        self.counters = {name for name in self.counters if place_of(name)[0] is not family}
        for things in (self.sets, self.maps, self.hooks, self.lines):
            for name in [name for name in things if place_of(name)[0] is family]:
                del things[name]

    def _change_set(self, step):
        match step:
            case AddSet(name, shape):
                assert name not in self.sets
                assert not shape.elements
                self.sets[name] = (shape, set())
            case DeleteSet(name):
                assert not any(
                    (isinstance(p, Member | CountBy) and p.set == name)
                    or (isinstance(p, Seldom) and p.tally == name)
                    or (isinstance(p, Fresh) and name == FRESH)
                    for p in self._parts()
                )
                del self.sets[name]
                self.has_generation &= name != FRESH
            case AddElements(name, shape, elements):
                known, present = self.sets[name]
                assert known == shape
                assert not shape.tally, "only packets make its elements"
                assert present.isdisjoint(elements)
                assert all(one.counter in self.counters for one in elements if isinstance(one, Counted))
                present.update(elements)
                assert not (shape.interval or shape.counted) or _disjoint(present), "intervals overlap"
            case DeleteElements(name, shape, elements):
                known, present = self.sets[name]
                assert known == shape
                assert present.issuperset(elements)
                present.difference_update(elements)

    def _change_map(self, step):
        match step:
            case AddMap(name, type_):
                assert name not in self.maps
                self.maps[name], self.keys[name] = {}, type_
            case DeleteMap(name):
                assert not any(isinstance(p, Dispatch) and p.map == name for p in self._parts())
                del self.maps[name]
            case AddTargets(name, targets):
                for interface, chain in targets:
                    assert interface not in self.maps[name]
                    assert chain in self.lines
                    self.maps[name][interface] = chain
            case DeleteTargets(name, targets):
                for interface, chain in targets:
                    assert self.maps[name].pop(interface) == chain

    def _change_chain(self, step):
        match step:
            case AddChain(name, hook):
                assert name not in self.lines
                self.hooks[name], self.lines[name] = hook, []
            case FlushChain(name):
                self.lines[name].clear()
            case DeleteChain(name):
                assert not self.lines[name], "the chain still has lines"
                assert not self._lines_with(Jump(name), Goto(name)), "a line goes there"
                assert all(name not in targets.values() for targets in self.maps.values()), "a map goes there"
                del self.hooks[name], self.lines[name]
            case DeleteLine(name, line):
                self.lines[name].remove(line)
            case AddLine(name, line):
                for part in line.parts:
                    self._check_reference(part)
                self.lines[name].append(line)

    def _check_reference(self, part):
        match part:
            case Count(name):
                assert name in self.counters, f"no counter {name}"
            case Member(_, name) | CountBy(_, name):
                assert name in self.sets, f"no set {name}"
            case Fresh():
                assert FRESH in self.sets
            case Seldom(_, name):
                assert self.sets[name][0].tally, f"no tally {name}"
            case Dispatch(_, name):
                assert name in self.maps, f"no map {name}"
            case Jump(name) | Goto(name):
                assert name in self.lines, f"no chain {name}"

    def _parts(self):
        return (part for lines in self.lines.values() for line in lines for part in line.parts)

    def _counted(self):
        return (one for _, elements in self.sets.values() for one in elements if isinstance(one, Counted))

    def _lines_with(self, *wanted):
        return any(part in wanted for part in self._parts())


def _shape(set_):
    return replace(set_, elements=frozenset())


def _disjoint(elements):
    spans = sorted(element for element in elements if isinstance(element, Interval))
    keys = [element.key for element in elements if isinstance(element, Counted)]
    return all(one.last < other.first for one, other in pairwise(spans)) and not any(
        all(map(_meet, one, other)) for one, other in combinations(keys, 2)
    )


def _meet(one, other):
    return one == other if isinstance(one, str) else one.first <= other.last and other.first <= one.last
