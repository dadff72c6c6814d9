"""The applier: from the view that is wanted to a kernel that holds it, by one atomic transaction.

Input: a view cut to the present inventory, and the ports under our care. Output: an ``Outcome``. It keeps what it knows
of the kernel (program, generation, note) and believes it only as long as nothing failed and nobody else changed the
rules. It knows no server, no file and no clock.
"""

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from ringfence.agent.doors.nftables import NftablesDoor, RulesRefused
from ringfence.agent.generations import Generations, block_number
from ringfence.agent.isolate import Blamed, Compile, compile_sound, find_blamed, leave_out
from ringfence.nft import About, Generation, Touched, kernel_set
from ringfence.policy.errors import OperatorError
from ringfence.policy.local import LocalPorts
from ringfence.policy.program.compile import Compiler, compile_program
from ringfence.policy.program.delta import diff_programs, hold_stamps, in_pieces
from ringfence.policy.program.hasten import hasten
from ringfence.policy.program.link import STAMP
from ringfence.policy.program.model import Foreign, Line, NamedSet, Program, VerdictMap
from ringfence.policy.program.names import FRAME_PORTS, FRESH, OBSERVED, PORTS, TableFamily, is_of_policy, place_of
from ringfence.policy.program.narrow import narrow_program
from ringfence.policy.program.steps import AddChain, AddCounter, AddMap, AddSet, AddTable, DeleteTable, Step
from ringfence.policy.program.waypoints import Leg, find_way
from ringfence.policy.values import Kind, Revision
from ringfence.policy.view import Endpoint, HostView

CLOSED: Final = About(0, "")  # the note of a table that no view has reached yet: every port under our care is closed
_UNKNOWN: Final = Line((Foreign("of another generation"),))
_MOST_REFUSALS: Final = 8  # transactions that are tried without ever more instances
MOST_MENDED: Final = 1000  # objects that are looked at one by one, in some tens of milliseconds


@dataclass(frozen=True, slots=True)
class Outcome:
    """``about``: what the kernel was seen to hold. ``refused``: instances left closed, each with why."""

    about: About
    changed: bool
    refused: tuple[str, ...] = ()
    repaired: str | None = None  # why the kernel had to be read back and made whole
    left_out: bool = False  # some of the refused are so by the kernel, and are to be tried again


@dataclass(frozen=True, slots=True)
class _Known:
    """What the kernel holds. ``hooked``: the tables that packets reach; if one lacks, the ports are closed first."""

    program: Program
    generation: Generation
    about: About | None
    hooked: frozenset[TableFamily]


class Enforcer:
    """Owns the table in the kernel. ``load`` comes first; one call at a time. Raises ``OperatorError``."""

    def __init__(
        self,
        nftables: NftablesDoor,
        generations: Generations,
        *,
        last_block: int | None,
        compile_: Compile | None = None,
    ) -> None:
        self._nftables = nftables
        self._generations = generations
        self._compile = compile_ or Compiler().compile
        self._last_block = last_block
        self._known: _Known | None = None
        self._blamed: Blamed = {}
        self._rest: tuple[Leg, ...] = ()  # of the way to what is in force and noted: nobody waits for it
        self.known_until: int | None = None  # the kernel's count of transactions up to which others' work is known

    @property
    def block(self) -> int | None:
        """The block of generations in use, or last used; None before any."""
        return self._last_block

    @property
    def sweep_problem(self) -> str | None:
        """Why old flows could not be forgotten; None when they could."""
        return self._generations.problem

    def load(self) -> None:
        """Read what the kernel holds. O(table)."""
        reading = self._nftables.read()
        self.known_until = reading.kernel_generation
        program = reading.program or Program()
        hooked = frozenset() if reading.dormant else _hooked_tables(program)
        generation = reading.generation
        if not hooked or generation is None:
            generation = self._generations.begin(self._last_block)
            program = _of_no_generation(program)
        self._known = _Known(program, generation, reading.about, hooked)

    def held(self) -> About | None:
        """The note in the kernel's table, read if need be; None without a table, or without a note in it."""
        return self._certain().about

    def held_ports(self) -> frozenset[str]:
        """The interfaces that the kernel's table has under our care by name, programmed or closed."""
        ports = self._certain().program.sets.get(PORTS, NamedSet(()))
        return frozenset(str(element[0]) for element in ports.elements if isinstance(element, tuple))

    def held_observed(self) -> frozenset[str]:
        """Those of them of which nothing is dropped."""
        observed = self._certain().program.sets.get(OBSERVED, NamedSet(()))
        return frozenset(str(element[0]) for element in observed.elements if isinstance(element, tuple))

    def close_ports(self, ports: LocalPorts) -> bool:
        """If no packet reaches our table: one in which every port under our care is closed, and True."""
        if self._certain().hooked >= _tables_for(ports):
            return False
        self._close_anew(ports)
        return True

    def enforce(self, view: HostView, about: About, ports: LocalPorts) -> Outcome:
        """Make the kernel enforce ``view``, noted as ``about``; nothing is sent when it does already.

        ``settle`` is to follow, and may wait until the change is reported: it alters nothing for any packet.
        An instance that cannot be compiled stays closed and is named. When the kernel refuses, it is read back and made
        whole once; when that fails too, the old rules are in force, or, if our table is gone, the ports closed.
        """
        closed = self._close_first(ports)  # compiling may take long
        desired, refused = compile_sound(view, ports, self._compile)
        try:
            changed = self._converge(desired, about, view.endpoints) or closed
        except OperatorError as error:
            if isinstance(error, RulesRefused) and not self._is_removed():
                return self._enforce_most(view, about, ports, error)
            self._rebuild(desired, about, ports)
            return Outcome(about, changed=True, refused=refused, repaired=str(error))
        self._blamed = {}
        return Outcome(about, changed, refused)

    def _enforce_most(self, view: HostView, about: About, ports: LocalPorts, error: RulesRefused) -> Outcome:
        """After a refusal: once more from what the kernel holds, then without the instances whose rules it refuses.

        Those that were left out before are so at once, for reading everything would find nothing new.
        """
        blamed = find_blamed(view, ports, error.words, compile_program)
        if not blamed or not blamed.keys() <= self._blamed.keys():
            desired, refused = compile_sound(view, ports, self._compile)
            try:
                self._rebuild(desired, about, ports)
            except RulesRefused as again:
                error, blamed = again, find_blamed(view, ports, again.words, compile_program)
            else:
                self._blamed = {}
                return Outcome(about, changed=True, refused=refused, repaired=str(error))
        return self._enforce_without(view, about, ports, (blamed, error))

    def _enforce_without(
        self, view: HostView, about: About, ports: LocalPorts, refusal: tuple[Blamed, RulesRefused]
    ) -> Outcome:
        blamed, error = refusal
        for _ in range(_MOST_REFUSALS):
            left, said = leave_out(view, blamed)
            desired, refused = compile_sound(left, ports, self._compile)
            try:
                changed = self._converge(desired, about)
            except RulesRefused as again:
                error, more = again, find_blamed(left, ports, again.words, compile_program)
                if not more:
                    break
                blamed = {**blamed, **more}
            else:
                self._blamed = blamed
                return Outcome(about, changed, (*refused, *said), left_out=True)
        raise error

    def narrow(self, declared: tuple[Endpoint, ...], ports: LocalPorts) -> Outcome:
        """Close what the kernel holds of an earlier life and the inventory does not declare; its note stays.

        For when no view is known. Nothing is opened: that only a view can.
        """
        closed = self.close_ports(ports)
        known = self._certain()
        about = known.about or CLOSED
        changed = self._converge(narrow_program(known.program, declared, ports), about)
        return Outcome(about, changed or closed)

    def mend(self, touched: Touched, ports: LocalPorts) -> bool:
        """Write anew what others changed of the objects that they touched, and the fixed chains; whether anything was.

        O(what was touched). A table that was itself touched, or of which more was than is quickly looked at, is
        replaced by a closed one: ``enforce`` makes it whole.
        """
        # Whoever empties a table takes the note with it, and the kernel tells of the table itself last of all.
        if touched.table or len(touched) > MOST_MENDED or self._nftables.read_about() is None:
            self._close_anew(ports)
            return True
        known = self._known
        if known is None:
            return True  # the next ``enforce`` reads everything
        fixed = frozenset(name for name in known.program.chains if not is_of_policy(name))
        looked = touched | Touched(chains=fixed)
        found = self._nftables.read_touched(looked)
        present, wanted = found.program or Program(), _only(known.program, looked)
        if found.generation != known.generation:
            present = _of_no_generation(present)
        about = known.about or CLOSED
        delta = diff_programs(present, wanted)
        if not delta and found.about == about:
            return False
        self._known = None
        self._known = self._go((Leg(delta, wanted),), replace(known, program=present), about)
        self._known = replace(self._known, program=known.program, hooked=known.hooked)
        return True

    def is_whole(self) -> bool:
        """Whether the kernel holds exactly what we know, by reading all of it. O(table)."""
        known = self._known
        if known is None:
            return False
        reading = self._nftables.read()
        held = (reading.program, reading.generation, reading.about, reading.dormant)
        return held == (known.program, known.generation, known.about, False)

    def is_in_force(self) -> bool:
        """Whether a table of ours is in the kernel, as far as that can be seen. Constant cost."""
        try:
            return self._nftables.read_about() is not None
        except OperatorError:
            return True

    def count_changes(self) -> int:
        """The kernel's own number of transactions, anybody's. Constant cost."""
        return self._nftables.count_changes()

    def distrust(self) -> None:
        """Forget what is known, so that the next ``enforce`` reads the kernel first."""
        self._known = None

    def settle(self) -> None:
        """Make lines of the rules that are in force as elements, if there are any."""
        known, rest, self._rest = self._known, self._rest, ()
        if rest and known is not None:
            self._known = None  # when it fails, the kernel is to be read
            self._known = self._go(rest, known, known.about or CLOSED)

    def sweep_ahead(self) -> None:
        """Forget the flows of generations that come next; for when nobody waits."""
        if self._known is not None and self._known.hooked:
            self._generations.sweep_ahead(self._known.generation)

    def _certain(self) -> _Known:
        if self._known is None:
            self.load()
        if self._known is None:
            raise OperatorError("read the kernel's rules", "nothing was read")
        return self._known

    def _converge(self, desired: Program, about: About, endpoints: tuple[Endpoint, ...] | None = None) -> bool:
        """Whether anything had to be sent. With its endpoints, what of the way can be left to ``settle`` is."""
        known, self._rest = self._certain(), ()
        hasty = hasten(known.program, desired, endpoints) if endpoints else ()
        way = hasty[:1] or find_way(known.program, desired)
        changed = known.about != about or any(leg.delta for leg in way)
        if changed:
            self._known = self._go(way, known, about)
        self._rest = hasty[1:]
        return changed

    def _go(self, way: tuple[Leg, ...], known: _Known, about: About) -> _Known:
        """What the kernel holds once all of ``way`` is gone. Noted with the last leg: until then not all is taken."""
        stamping: tuple[Step, ...] = ()
        for number, leg in enumerate(way, 1):
            if number > 1:
                self._known = None  # when it fails on the way, the kernel is to be read
                self._nftables.drain()
            known, held = self._flip(leg, known, about if number == len(way) else known.about)
            stamping = held or stamping
        if stamping:
            self._nftables.drain()
            self._nftables.commit(stamping, generation=known.generation, about=None)
        self._last_block = block_number(known.generation)
        return known

    def _flip(self, leg: Leg, known: _Known, about: About | None) -> tuple[_Known, tuple[Step, ...]]:
        """What the kernel holds once ``leg`` is in force and noted, and what it still lacks.

        The latter is what stamps flows, for when no packet of the old rules is under way.
        """
        delta = leg.delta
        generation = self._generations.follow(known.generation) if delta.narrows else known.generation
        self._prepare(delta.prepare, known)
        flip, stamping = hold_stamps(delta.flip) if delta.narrows else (delta.flip, ())
        try:
            self._nftables.commit(flip, generation=generation, about=about)
        except RulesRefused:
            if self._known is not None:
                self._known = replace(known, program=_with_prepared(known.program, delta.prepare, leg.program))
            raise
        found = self._nftables.read_about()
        if found != about:
            raise OperatorError(
                "read back the change",
                f"expected {about.text if about else None!r}, found {found.text if found else None!r}",
            )
        return _Known(leg.program, generation, about, _tables_of(leg.program)), stamping

    def _prepare(self, steps: tuple[Step, ...], known: _Known) -> None:
        pieces = in_pieces(steps)
        done = 0
        try:
            for _ in self._nftables.commit_pieces(pieces, generation=known.generation):
                done += 1
                if len(pieces) > 1 and self._is_removed():  # the ports are open until it is noticed
                    raise OperatorError("load the rules", "another program removed our table meanwhile")
        except RulesRefused:
            if done:
                self.distrust()  # what came before is in force, and would be taken for whole
            raise

    def _is_removed(self) -> bool:
        """Whether the note that we know of is gone from the kernel, and so our table. Constant cost."""
        known = self._known
        return known is not None and known.about is not None and self._nftables.read_about() is None

    def _close_first(self, ports: LocalPorts) -> bool:
        try:
            return self.close_ports(ports)
        except OperatorError:
            self.distrust()  # whether the kernel cannot be had at all is found out by what follows
            return False

    def _close_anew(self, ports: LocalPorts) -> None:
        """Whatever is there now: one transaction puts a table in its place in which every managed port is closed."""
        generation = self._generations.begin(self._last_block)
        closed = compile_program(HostView(Revision(0)), ports)
        tables = [family for family in TableFamily if family in _tables_of(closed)]
        anew = [step for family in tables for step in (AddTable(family), DeleteTable(family))]
        steps = (*anew, *diff_programs(Program(), closed).flip)
        self._known = None
        before = self._nftables.count_changes()
        self._nftables.commit(steps, generation=generation, about=CLOSED)
        self.known_until = before
        self._known = _Known(closed, generation, CLOSED, _tables_of(closed))
        self._last_block = block_number(generation)

    def _rebuild(self, desired: Program, about: About, ports: LocalPorts) -> None:
        """Once more, from what the kernel really holds; a missing table is first of all closed."""
        before, self._known = self._known, None
        try:
            self.close_ports(ports)
            self._converge(desired, about)
        except OperatorError:
            self._known = None
            if before is not None:
                self._close_damaged(before, ports)
            raise

    def _close_damaged(self, before: _Known, ports: LocalPorts) -> None:
        """The last resort: when what judged packets is not what we left and cannot be mended, close every port."""
        self.load()
        present = self._certain().program
        if (present.chains, present.maps) != (before.program.chains, before.program.maps):
            self._close_anew(ports)
        self._known = None


def _with_prepared(program: Program, steps: tuple[Step, ...], desired: Program) -> Program:
    """The program once its preparation is in force, which makes things whole that nothing refers to yet."""
    counters, sets, maps, chains = set(program.counters), dict(program.sets), dict(program.maps), dict(program.chains)
    for step in steps:
        match step:
            case AddCounter(name):
                counters.add(name)
            case AddSet(name):
                sets[name] = desired.sets[name]
            case AddMap(name, type_):
                maps[name] = VerdictMap(type=type_)
            case AddChain(name):
                chains[name] = desired.chains[name]
            case _:
                pass  # what fills them
    return Program(frozenset(counters), sets, maps, chains)


def _only(program: Program, looked: Touched) -> Program:
    """Of the program only the objects that were looked at. O(them), and O(sets) when a set is among them."""
    sets = program.sets.items() if looked.sets else ()
    return Program(
        program.counters & looked.counters,
        {name: set_ for name, set_ in sets if kernel_set(name)[0] in looked.sets},
        {name: map_ for name, map_ in program.maps.items() if name in looked.sets},
        {name: program.chains[name] for name in looked.chains & program.chains.keys()},
    )


def _tables_for(ports: LocalPorts) -> frozenset[TableFamily]:
    return frozenset(TableFamily) if ports.kind is Kind.BRIDGED else frozenset({TableFamily.INET})


def _tables_of(program: Program) -> frozenset[TableFamily]:
    """The tables of a program of ours, every one of which packets reach."""
    return frozenset(TableFamily) if FRAME_PORTS in program.sets else frozenset({TableFamily.INET})


def _hooked_tables(program: Program) -> frozenset[TableFamily]:
    """The tables that packets reach in what was found."""
    return frozenset(place_of(name)[0] for name, chain in program.chains.items() if chain.hook)


def _of_no_generation(program: Program) -> Program:
    """The program with what holds the generation marked as wrong, so that all of it is written anew."""
    chains, sets = dict(program.chains), dict(program.sets)
    if STAMP in chains:
        chains[STAMP] = replace(chains[STAMP], lines=(*chains[STAMP].lines, _UNKNOWN))
    if FRESH in sets:
        sets[FRESH] = NamedSet(())
    return replace(program, chains=MappingProxyType(chains), sets=MappingProxyType(sets))
