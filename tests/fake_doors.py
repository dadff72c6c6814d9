"""The agent's doors without a kernel: state in memory, the same refusals. Contract tests hold them to the real ones."""

import asyncio
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import assert_never

from ringfence.agent.doors.files import Stamp
from ringfence.agent.doors.links import Master
from ringfence.agent.doors.machine import Room
from ringfence.agent.doors.nftables import RulesRefused
from ringfence.nft import About, Generation, Heard, Reading, Touched, kernel_set, render_text
from ringfence.policy.errors import OperatorError
from ringfence.policy.program.base_chains import FIXED_SETS
from ringfence.policy.program.model import (
    Chain,
    Count,
    Dispatch,
    ElementType,
    Fresh,
    Goto,
    Jump,
    Line,
    Member,
    NamedSet,
    Program,
    VerdictMap,
)
from ringfence.policy.program.model import (
    Stamp as StampMark,
)
from ringfence.policy.program.names import FRESH, TableFamily, place_of
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


class Refused(Exception):
    """What the kernel would answer to one step."""


@dataclass
class Table:
    """Our table as the kernel has it; each line with the generation it was encoded with."""

    counters: set[str] = field(default_factory=set)
    sets: dict[str, NamedSet] = field(default_factory=dict)
    maps: dict[str, dict[str, str]] = field(default_factory=dict)
    keys: dict[str, ElementType] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)
    generations: dict[str, set[Generation]] = field(default_factory=dict)
    about: About | None = None

    def copy(self) -> "Table":
        maps = {name: dict(targets) for name, targets in self.maps.items()}
        keys, chains = dict(self.keys), dict(self.chains)
        return Table(set(self.counters), dict(self.sets), maps, keys, chains, dict(self.generations), self.about)

    @property
    def program(self) -> Program:
        maps = {
            name: VerdictMap(MappingProxyType(dict(targets)), self.keys[name]) for name, targets in self.maps.items()
        }
        return Program(
            frozenset(self.counters),
            MappingProxyType(dict(self.sets)),
            MappingProxyType(maps),
            MappingProxyType(dict(self.chains)),
        )

    def without(self, family: TableFamily) -> "Table":
        kept = Table(about=self.about)
        kept.counters = {name for name in self.counters if place_of(name)[0] is not family}
        for kind in ("sets", "maps", "keys", "chains", "generations"):
            things = {name: thing for name, thing in getattr(self, kind).items() if place_of(name)[0] is not family}
            setattr(kept, kind, things)
        return kept

    @property
    def generation(self) -> Generation | None:
        found = set().union(*self.generations.values()) if self.generations else set()
        return found.pop() if len(found) == 1 else None


class FakeNftables:
    """nf_tables with our table in it. ``refuse`` is asked before each commit and may give the kernel's words."""

    def __init__(self) -> None:
        self.table: Table | None = None
        self.changes = 1
        self.hits = {}
        self.tallies = {}
        self.tally_reads = 0
        self.commits: list[tuple[tuple[Step, ...], Generation, About | None]] = []
        self.refuse = lambda _: None
        self.cursed: set[str] = set()  # names of objects about which every step is refused
        self.reads = 0
        self.foreign: list = []
        self.notices = FakeNotices()

    def drain(self) -> None:
        """No packet is under way here."""

    def commit_pieces(self, pieces, *, generation):
        for piece in pieces:
            self.commit(piece, generation=generation, about=None)
            yield

    def commit(self, steps, *, generation, about) -> None:
        steps = tuple(steps)
        if not steps and about is None:
            return
        if cursed := {name: f"{step}: cursed" for step in steps if (name := _name_of(step)) in self.cursed}:
            raise RulesRefused("; ".join(cursed.values()), cursed)
        if words := self.refuse(steps):
            raise OperatorError("change the kernel's rules", f"refused as a whole, nothing was changed: {words}")
        changed = None if self.table is None else self.table.copy()
        try:
            for step in steps:
                changed = _apply(changed, step, generation)
        except Refused as error:
            raise OperatorError("change the kernel's rules", f"refused as a whole: {error}") from error
        if about is not None:
            _require(changed is not None, "no table")
            changed.about = about
        self.table = changed
        self.changes += 1
        self.notices.tell(Touched(), self.changes)
        self.commits.append((steps, generation, about))

    def read(self) -> Reading:
        self.reads += 1
        if self.table is None:
            return Reading(None, kernel_generation=self.changes)
        table = self.table
        return Reading(table.program, table.generation, table.about, kernel_generation=self.changes)

    def read_about(self) -> About | None:
        return self.table.about if self.table else None

    def read_hits(self):
        return {name: self.hits.get(name, 0) for name in (self.table.counters if self.table else ())}

    def read_tallies(self, names):
        self.tally_reads += 1
        return {port: packets for port, packets in self.tallies.items() if port[0] in names}

    def count_changes(self) -> int:
        return self.changes

    def text(self) -> str:
        """Everything the kernel holds of ours, as nft text."""
        if self.table is None:
            return ""
        return render_text(self.table.program, self.table.generation or Generation(0), self.table.about)

    def read_touched(self, touched) -> Reading:
        if self.table is None:
            return Reading(Program())
        table = self.table.copy()
        table.counters &= touched.counters
        for things, names in ((table.sets, touched.sets), (table.maps, touched.sets), (table.chains, touched.chains)):
            for name in [name for name in things if kernel_set(name)[0] not in names]:
                del things[name]
        looked = touched.chains | touched.sets
        table.generations = {name: found for name, found in table.generations.items() if name in looked}
        return Reading(table.program, table.generation, table.about)

    def read_foreign(self):
        return tuple(self.foreign)

    def flush(self) -> None:
        """What another program's ``nft flush ruleset`` does."""
        self.table = None
        self.changes += 1
        self.notices.tell(Touched(table=True), self.changes)

    def intrude(self, *steps, generation=0) -> None:
        """Another program's transaction in our table."""
        self.commit(steps, generation=Generation(generation), about=None)
        self.notices.tell(_touched_by(steps), self.changes)


def _name_of(step) -> str | None:
    return next((getattr(step, kind) for kind in ("chain", "set", "map", "counter") if hasattr(step, kind)), None)


def _touched_by(steps) -> Touched:
    touched = Touched()
    for step in steps:
        match step:
            case AddTable() | DeleteTable():
                touched |= Touched(table=True)
            case AddChain() | FlushChain() | DeleteChain() | AddLine() | DeleteLine():
                touched |= Touched(chains=frozenset({step.chain}))
            case SetGeneration():
                touched |= Touched(sets=frozenset({FRESH}))
            case AddMap() | DeleteMap() | AddTargets() | DeleteTargets():
                touched |= Touched(sets=frozenset({step.map}))
            case AddCounter() | DeleteCounter():
                touched |= Touched(counters=frozenset({step.counter}))
            case _:
                touched |= Touched(sets=frozenset({kernel_set(step.set)[0]}))
    return touched


class FakeNotices:
    """What is told of transactions; ``deaf`` loses it without a word, ``lose`` says that something was lost."""

    def __init__(self) -> None:
        self.deaf = False
        self._told: list[tuple[int, Touched]] = []
        self._lost = False
        self._others = False
        self._waiting: asyncio.Future | None = None

    def tell(self, touched: Touched, changes: int) -> None:
        if not self.deaf:
            self._told.append((changes, touched))
            self._rouse()

    def hear_again(self) -> None:
        """Whoever was deaf is told that something was lost, as the kernel does (ENOBUFS)."""
        if self.deaf:
            self.deaf = False
            self.lose()

    def lose(self) -> None:
        self._lost = True
        self._rouse()

    def tell_of_others(self) -> None:
        """Another program changed its own table."""
        self._others = True
        self._rouse()

    def _rouse(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.get_loop().call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def wait(self) -> None:
        if not self._is_silent():
            return
        self._waiting = asyncio.get_running_loop().create_future()
        if self._is_silent():  # else it was told by another thread in this very moment
            await self._waiting

    def _is_silent(self) -> bool:
        return not (self._told or self._lost or self._others)

    def take(self, known_until=None) -> Heard:
        told, self._told = self._told, []
        lost, self._lost = self._lost, False
        touched = Touched()
        for changes, one in told:
            if known_until is None or changes > known_until:
                touched |= one
        authors = frozenset({"nft (pid 7)"} if touched else ())
        others, self._others = self._others, False
        return Heard(touched, authors, told[-1][0] if told else None, others=others, lost=lost)


def _require(holds: bool, words: str) -> None:  # noqa: FBT001  reads as a sentence
    if not holds:
        raise Refused(words)


def _apply(table: Table | None, step: Step, generation: Generation) -> Table:
    if isinstance(step, AddTable):
        return table or Table()
    if isinstance(step, DeleteTable):
        _require(table is not None, f"{step}: No such file or directory")
        return None if step.family is TableFamily.INET else table.without(step.family)
    _require(table is not None, f"{step}: no table")
    match step:
        case AddCounter() | DeleteCounter():
            _apply_counter(table, step)
        case AddSet() | DeleteSet() | AddElements() | DeleteElements():
            _apply_set(table, step)
        case SetGeneration():
            _require(FRESH in table.sets, f"{step}: No such file or directory")
            table.sets[FRESH] = replace(table.sets[FRESH], types=FIXED_SETS[FRESH].types)
            table.generations[FRESH] = {generation}
        case AddMap() | DeleteMap() | AddTargets() | DeleteTargets():
            _apply_map(table, step)
        case AddChain() | FlushChain() | DeleteChain() | AddLine() | DeleteLine():
            _apply_chain(table, step, generation)
        case _:
            assert_never(step)
    return table


def _parts(table: Table):
    return [part for chain in table.chains.values() for line in chain.lines for part in line.parts]


def _apply_counter(table: Table, step) -> None:
    if isinstance(step, AddCounter):
        _require(step.counter not in table.counters, f"{step}: File exists")
        table.counters.add(step.counter)
    else:
        _require(step.counter in table.counters, f"{step}: No such file or directory")
        _require(Count(step.counter) not in _parts(table), f"{step}: Device or resource busy")
        table.counters.remove(step.counter)


def _apply_set(table: Table, step) -> None:
    if isinstance(step, AddSet):
        _require(step.set not in table.sets and step.set not in table.maps, f"{step}: File exists")
        table.sets[step.set] = step.shape
        return
    _require(step.set in table.sets, f"{step}: No such file or directory")
    present = table.sets[step.set]
    if isinstance(step, DeleteSet):
        used = any(isinstance(part, Member) and part.set == step.set for part in _parts(table))
        used = used or (step.set == FRESH and Fresh() in _parts(table))
        _require(not used, f"{step}: Device or resource busy")
        del table.sets[step.set]
        table.generations.pop(step.set, None)
        return
    given = frozenset(step.elements)
    if isinstance(step, AddElements):
        table.sets[step.set] = replace(present, elements=present.elements | given)
    else:
        _require(given <= present.elements, f"{step}: No such file or directory")
        table.sets[step.set] = replace(present, elements=present.elements - given)


def _apply_map(table: Table, step) -> None:
    if isinstance(step, AddMap):
        _require(step.map not in table.maps and step.map not in table.sets, f"{step}: File exists")
        table.maps[step.map], table.keys[step.map] = {}, step.type
        return
    _require(step.map in table.maps, f"{step}: No such file or directory")
    targets = table.maps[step.map]
    if isinstance(step, DeleteMap):
        used = any(isinstance(part, Dispatch) and part.map == step.map for part in _parts(table))
        _require(not used, f"{step}: Device or resource busy")
        del table.maps[step.map]
        return
    for interface, chain in step.targets:
        if isinstance(step, AddTargets):
            _require(chain in table.chains, f"{step}: No such file or directory")
            _require(targets.get(interface, chain) == chain, f"{step}: File exists")
            targets[interface] = chain
        else:
            _require(targets.get(interface) == chain, f"{step}: No such file or directory")
            del targets[interface]


def _apply_chain(table: Table, step, generation: Generation) -> None:
    if isinstance(step, AddChain):
        _require(step.chain not in table.chains, f"{step}: File exists")
        table.chains[step.chain] = Chain((), step.hook)
        return
    _require(step.chain in table.chains, f"{step}: No such file or directory")
    chain = table.chains[step.chain]
    if isinstance(step, FlushChain):
        table.chains[step.chain] = Chain((), chain.hook)
        table.generations.pop(step.chain, None)
    elif isinstance(step, DeleteChain):
        _require(not chain.lines and not _is_target(table, step.chain), f"{step}: Device or resource busy")
        del table.chains[step.chain]
    elif isinstance(step, DeleteLine):
        _require(step.line in chain.lines, f"{step}: No such file or directory")
        table.chains[step.chain] = replace(chain, lines=tuple(line for line in chain.lines if line != step.line))
    else:
        _require_references(table, step.line, str(step))
        table.chains[step.chain] = replace(chain, lines=(*chain.lines, step.line))
        if StampMark() in step.line.parts:
            table.generations[step.chain] = table.generations.get(step.chain, set()) | {generation}


def _is_target(table: Table, name: str) -> bool:
    jumped = any(isinstance(part, Jump | Goto) and part.chain == name for part in _parts(table))
    return jumped or any(name in targets.values() for targets in table.maps.values())


def _require_references(table: Table, line: Line, words: str) -> None:
    for part in line.parts:
        match part:
            case Count(name):
                _require(name in table.counters, f"{words}: No such file or directory")
            case Fresh():
                _require(FRESH in table.sets, f"{words}: No such file or directory")
            case Member(set=name):
                _require(name in table.sets, f"{words}: No such file or directory")
            case Dispatch(map=name):
                _require(name in table.maps, f"{words}: No such file or directory")
            case Jump(name) | Goto(name):
                _require(name in table.chains, f"{words}: No such file or directory")


class FakeConntrack:
    """Flows by their marks. ``refusal`` makes every call fail with these words."""

    def __init__(self) -> None:
        self.marks: list[int] = []
        self.deletions: list[tuple[int, int]] = []
        self.refusal: str | None = None

    def delete(self, mark: int, mask: int) -> None:
        if self.refusal:
            raise OperatorError("delete flows from conntrack", self.refusal)
        if mask == 0:
            raise ValueError("a mask of 0 selects every flow")
        self.deletions.append((mark, mask))
        self.marks = [known for known in self.marks if known & mask != mark]

    def count(self, mark: int, mask: int) -> int:
        return sum(1 for known in self.marks if known & mask == mark)


class FakeBridging:
    """br_netfilter as a switch; ``refusal`` says why it cannot be switched on."""

    def __init__(self) -> None:
        self.on = True
        self.refusal: str | None = None

    def is_on(self) -> bool:
        return self.on

    def switch_on(self) -> None:
        if self.refusal:
            raise OperatorError("filter what bridges carry", self.refusal)
        self.on = True


class FakeMachine:
    """A machine whose settings and modules are these."""

    def __init__(self) -> None:
        self.settings: dict[str, str] = {}
        self.modules: set[str] = set()
        self.agent_runs = True
        self.left = Room(1 << 30, 1 << 20)

    def room(self, _folder: Path) -> Room | None:
        return self.left

    def setting(self, name: str) -> str | None:
        return self.settings.get(name)

    def has_module(self, name: str) -> bool:
        return name in self.modules

    def is_agent_running(self) -> bool:
        return self.agent_runs


class FakeLinks:
    def __init__(self, *names: str) -> None:
        self.present = {"lo", *names}
        self.masters: dict[str, Master] = {}
        self.bridges: set[str] = set()
        self.renamed: dict[str, str] = {}
        self.looked_at = 0  # how often the numbers were
        self.boots = 1
        self.notices_s = 0.0005  # how soon a change is told
        self._numbers: dict[str, int] = {}
        self._known: dict[int, str] | None = None  # at the last call of ``changed``

    def life(self) -> str | None:
        return f"boot {self.boots}"

    async def changed(self) -> None:
        while (there := self._there()) == self._known:  # noqa: ASYNC110  tests change it from anywhere
            await asyncio.sleep(self.notices_s)
        self._known = there

    def numbered(self) -> dict[int, str]:
        found = self._there()
        self.looked_at += 1  # last: a test changes names as soon as it sees this
        return found

    def _there(self) -> dict[int, str]:
        count = self._numbers.setdefault
        return {count(name, len(self._numbers) + 1): self.renamed.get(name, name) for name in sorted(self.present)}

    def is_bridge(self, interface: str) -> bool:
        return interface in self.bridges

    def names(self) -> frozenset[str]:
        return frozenset(self.present)

    def master_of(self, interface: str) -> Master | None:
        return self.masters.get(interface, Master(None)) if interface in self.present else None


class FakeNames:
    """``known``: addresses by name. A name that is not there has none."""

    def __init__(self) -> None:
        self.known: dict[str, frozenset] = {}

    def addresses(self, host):
        if host not in self.known:
            raise OperatorError(f"find the addresses of {host}", "Name or service not known")
        return self.known[host]


class FakeFiles:
    """Files in memory. A path in ``broken`` can be neither read nor written."""

    def __init__(self) -> None:
        self.contents: dict = {}
        self.broken: set = set()
        self._stamps: dict = {}
        self._count = count(1)

    def read(self, path):
        self._check(path)
        return self.contents.get(path)

    def replace(self, path, content: bytes) -> None:
        self._check(path)
        self.contents[path] = content
        self._stamps[path] = Stamp((next(self._count), 0, len(content)))

    def append(self, path, content: bytes, *, most_bytes: int | None) -> None:
        self._check(path)
        present = self.contents.get(path, b"")
        if most_bytes is not None and present and len(present) + len(content) > most_bytes:
            self.contents[path.with_name(f"{path.name}.1")] = present
            present = b""
        self.contents[path] = present + content

    def stamp(self, path):
        self._check(path)
        return self._stamps.get(path)

    def remove(self, path) -> None:
        del self.contents[path], self._stamps[path]

    def _check(self, path) -> None:
        if path in self.broken:
            raise OperatorError(f"read {path}", "Input/output error")


class Telling:
    """What the kernel tells: what ``tell`` was given."""

    def __init__(self) -> None:
        self._told: list = []
        self._came = asyncio.Event()

    def tell(self, *told) -> None:
        self._told += told
        self._came.set()

    async def wait(self) -> None:
        await self._came.wait()

    def take(self):
        found, self._told = tuple(self._told), []
        self._came.clear()
        return found


class FakePackets(Telling):
    """What the kernel tells of refused packets."""

    def __init__(self, **interfaces: int) -> None:
        super().__init__()
        self.names = {index: name for name, index in interfaces.items()}

    def interface(self, index: int) -> str | None:
        return self.names.get(index)


class FakeConnections(Telling):
    """What conntrack tells of connections while somebody listens."""

    def __init__(self) -> None:
        super().__init__()
        self.on = False
        self.dropped = 0

    def listen(self, *, on: bool) -> None:
        self.on = on

    def tell(self, *told) -> None:
        if self.on:
            super().tell(*told)

    def lost(self) -> int:
        return self.dropped


class FakeClock:
    """Time that passes only by ``advance``; whoever sleeps wakes in the order in which it is due."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._start = now
        self._passed = 0.0
        self._sleepers: list[tuple[float, asyncio.Future]] = []

    def now(self) -> float:
        return self._start + self._passed

    def monotonic(self) -> float:
        return self._passed

    async def sleep(self, seconds: float) -> None:
        wake = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._passed + seconds, wake))
        await wake

    def advance(self, seconds: float) -> None:
        self._passed += seconds
        due = [sleeper for sleeper in self._sleepers if sleeper[0] <= self._passed]
        self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[0] > self._passed]
        for _, wake in sorted(due, key=lambda sleeper: sleeper[0]):
            if not wake.done():
                wake.set_result(None)
