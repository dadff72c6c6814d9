"""The applier: makes the kernel hold the wanted view, by one atomic transaction.

Input: a view cut to the present inventory, and the managed ports. Output: an ``Outcome``. It remembers what the kernel
holds (program, generation, note), and trusts that only as long as nothing failed and nobody else changed the rules. It
knows no server, no file and no clock.
"""

import logging
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from ringfence.agent.doors.netlink import NotUnderstood
from ringfence.agent.doors.nftables import NftablesDoor, RulesRefused
from ringfence.agent.generations import Generations, block_number
from ringfence.agent.isolate import Blamed, Compile, compile_sound, find_blamed, leave_out
from ringfence.nft import About, Generation, Reading, Touched, kernel_set
from ringfence.policy.errors import OperatorError
from ringfence.policy.local import LocalPorts
from ringfence.policy.program.base_chains import STAMP
from ringfence.policy.program.compile import Compiler, compile_program
from ringfence.policy.program.delta import diff_programs, hold_stamps, in_pieces
from ringfence.policy.program.hasten import hasten
from ringfence.policy.program.model import Foreign, Line, NamedSet, Program, VerdictMap
from ringfence.policy.program.names import FRAME_PORTS, FRESH, OBSERVED, PORTS, TableFamily, is_of_policy, place_of
from ringfence.policy.program.narrow import narrow_program
from ringfence.policy.program.steps import AddChain, AddCounter, AddMap, AddSet, AddTable, DeleteTable, Step
from ringfence.policy.program.waypoints import Leg, find_way
from ringfence.policy.values import Kind, Revision
from ringfence.policy.view import Endpoint, HostView

CLOSED: Final = About(0, "")  # the note of a table that no view has reached yet: every managed port is closed
_UNKNOWN: Final = Line((Foreign("of another generation"),))
_MOST_REFUSALS: Final = 8  # transactions tried, each without more instances
_log: Final = logging.getLogger("ringfence.agent")
MOST_MENDED: Final = 1000  # objects that are read one by one, in some tens of milliseconds


@dataclass(frozen=True, slots=True)
class Outcome:
    """``about``: the note that the kernel was seen to hold. ``refused``: instances left closed, each with why."""

    about: About
    changed: bool
    refused: tuple[str, ...] = ()
    repaired: str | None = None  # why the kernel had to be read back and repaired
    left_out: bool = False  # the kernel refused some of the refused instances: they are to be tried again


@dataclass(frozen=True, slots=True)
class _Known:
    """What the kernel holds. ``hooked``: the tables that packets reach; if one is missing, ports are closed first."""

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
        self._rest: tuple[Leg, ...] = ()  # legs for ``settle``, which change no verdict
        self.known_until: int | None = None  # the kernel's count of transactions up to which all changes are known

    @property
    def block(self) -> int | None:
        """The block of generations in use, or last used; None before any."""
        return self._last_block

    @property
    def sweep_problem(self) -> str | None:
        """Why old flows could not be deleted from conntrack; None when they could."""
        return self._generations.problem

    def load(self) -> None:
        """Reads what the kernel holds. O(table).

        What has not our note, or cannot be understood, is not ours: as if no packet reached it, it is replaced.
        """
        reading = self._read()
        self.known_until = reading.kernel_generation
        program = reading.program or Program()
        is_ours = reading.about is not None and not reading.dormant
        hooked = _hooked_tables(program) if is_ours else frozenset()
        generation = reading.generation
        if not hooked or generation is None:
            generation = self._generations.begin(self._last_block)
            program = _of_no_generation(program)
        self._known = _Known(program, generation, reading.about, hooked)

    def _read(self) -> Reading:
        try:
            return self._nftables.read()
        except NotUnderstood as error:
            _log.warning("the table ringfence is replaced: another program made it, or added to it (%s)", error.reason)
            return Reading(None, kernel_generation=self._nftables.count_changes())

    def held(self) -> About | None:
        """The note in the kernel's table, read if need be; None without a table, or without a note in it."""
        return self._certain().about

    def held_ports(self) -> frozenset[str]:
        """The interfaces that are managed by the kernel's table, programmed or closed."""
        ports = self._certain().program.sets.get(PORTS, NamedSet(()))
        return frozenset(str(element[0]) for element in ports.elements if isinstance(element, tuple))

    def held_observed(self) -> frozenset[str]:
        """Those of them that are only observed."""
        observed = self._certain().program.sets.get(OBSERVED, NamedSet(()))
        return frozenset(str(element[0]) for element in observed.elements if isinstance(element, tuple))

    def close_ports(self, ports: LocalPorts) -> bool:
        """If no packet reaches our table, replaces it by one that closes every managed port, and returns True."""
        if self._certain().hooked >= _tables_for(ports):
            return False
        self._close_anew(ports)
        return True

    def enforce(self, view: HostView, about: About, ports: LocalPorts) -> Outcome:
        """Makes the kernel enforce ``view``, noted as ``about``; sends nothing when it does already.

        ``settle`` must follow, but may wait until the change is reported: it changes no verdict.
        An instance that cannot be compiled stays closed and is named. When the kernel refuses, it is read back and
        repaired once; if that fails too, the old rules stay in force, or, if our table is gone, the ports closed.
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
        """After a refusal: tries again from what the kernel holds, then without the instances whose rules it refuses.

        If those are the ones left out before, the first try is skipped: reading everything would find nothing new.
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
        """Without a view: closes what the kernel holds from an earlier run and the inventory does not declare.

        Nothing is opened, for only a view can do that; the note in the table stays.
        """
        closed = self.close_ports(ports)
        known = self._certain()
        about = known.about or CLOSED
        changed = self._converge(narrow_program(known.program, declared, ports), about)
        return Outcome(about, changed or closed)

    def mend(self, touched: Touched, ports: LocalPorts) -> bool:
        """Repairs the objects that others touched, and the fixed chains; returns whether anything was wrong.

        O(what was touched). If the table itself was touched, or more of it than can be read quickly, it is replaced by
        a closed one, and ``enforce`` makes it whole.
        """
        # Emptying a table deletes the note, too, and the kernel's notice of the table itself comes last.
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
        """Whether the kernel holds exactly what is expected, by reading all of it. O(table)."""
        known = self._known
        if known is None:
            return False
        reading = self._read()
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
        """Turns the rules that are in force as elements into lines (``hasten``), if there are any."""
        known, rest, self._rest = self._known, self._rest, ()
        if rest and known is not None:
            self._known = None  # when it fails, the kernel is to be read
            self._known = self._go(rest, known, known.about or CLOSED)

    def sweep_ahead(self) -> None:
        """Deletes the flows of generations that come next; for when nobody waits."""
        if self._known is not None and self._known.hooked:
            self._generations.sweep_ahead(self._known.generation)

    def _certain(self) -> _Known:
        if self._known is None:
            self.load()
        if self._known is None:
            raise OperatorError("read the kernel's rules", "nothing was read")
        return self._known

    def _converge(self, desired: Program, about: About, endpoints: tuple[Endpoint, ...] | None = None) -> bool:
        """Makes the kernel hold ``desired``; returns whether anything had to be sent.

        With ``endpoints``, rules that were added come as elements first, and the rest is left to ``settle``.
        """
        known, self._rest = self._certain(), ()
        hasty = hasten(known.program, desired, endpoints) if endpoints else ()
        way = hasty[:1] or find_way(known.program, desired)
        changed = known.about != about or any(leg.delta for leg in way)
        if changed:
            self._known = self._go(way, known, about)
        self._rest = hasty[1:]
        return changed

    def _go(self, way: tuple[Leg, ...], known: _Known, about: About) -> _Known:
        """Carries out all legs of ``way``; returns what the kernel holds then. The note comes with the last leg."""
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
        """Carries out one leg; returns what the kernel holds then, and the steps that it still lacks.

        Those bring back the lines that stamp flows, once no packet is under way by the old rules.
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
                if len(pieces) > 1 and self._is_removed():  # until that is noticed, the ports are open
                    raise OperatorError("load the rules", "another program removed our table meanwhile")
        except RulesRefused:
            if done:
                self.distrust()  # earlier pieces are in force, and what is known does not include them
            raise

    def _is_removed(self) -> bool:
        """Whether our table is gone from the kernel, as its missing note tells. Constant cost."""
        known = self._known
        return known is not None and known.about is not None and self._nftables.read_about() is None

    def _close_first(self, ports: LocalPorts) -> bool:
        try:
            return self.close_ports(ports)
        except OperatorError:
            self.distrust()  # what follows finds out whether the kernel can be reached at all
            return False

    def _close_anew(self, ports: LocalPorts) -> None:
        """Replaces whatever table there is, in one transaction, by one in which every managed port is closed."""
        generation = self._generations.begin(self._last_block)
        closed = compile_program(HostView(Revision(0)), ports)
        present = _families_of(self._known.program) if self._known else frozenset()
        tables = [family for family in TableFamily if family in _tables_of(closed) | present]
        anew = [step for family in tables for step in (AddTable(family), DeleteTable(family))]
        steps = (*anew, *diff_programs(Program(), closed).flip)
        self._known = None
        before = self._nftables.count_changes()
        self._nftables.commit(steps, generation=generation, about=CLOSED)
        self.known_until = before
        self._known = _Known(closed, generation, CLOSED, _tables_of(closed))
        self._last_block = block_number(generation)

    def _rebuild(self, desired: Program, about: About, ports: LocalPorts) -> None:
        """Tries again from what the kernel really holds; where the table is missing, closes the ports first."""
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
        """The last resort: closes every port if the rules were tampered with and could not be repaired."""
        self.load()
        present = self._certain().program
        if (present.chains, present.maps) != (before.program.chains, before.program.maps):
            self._close_anew(ports)
        self._known = None


def _with_prepared(program: Program, steps: tuple[Step, ...], desired: Program) -> Program:
    """The program once the steps of ``prepare`` are in force, which make only what nothing refers to yet."""
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
                pass  # their elements and lines
    return Program(frozenset(counters), sets, maps, chains)


def _only(program: Program, looked: Touched) -> Program:
    """The part of the program that was looked at. O(that), and O(sets) when a set is in it."""
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
    """The tables of a program that ringfence compiled."""
    return frozenset(TableFamily) if FRAME_PORTS in program.sets else frozenset({TableFamily.INET})


def _families_of(program: Program) -> frozenset[TableFamily]:
    """The tables in which anything of a program is."""
    return frozenset(place_of(name)[0] for part in (program.chains, program.sets, program.maps) for name in part)


def _hooked_tables(program: Program) -> frozenset[TableFamily]:
    """The tables that packets reach in a program that was read from the kernel."""
    return frozenset(place_of(name)[0] for name, chain in program.chains.items() if chain.hook)


def _of_no_generation(program: Program) -> Program:
    """The program with the objects that hold the generation marked as wrong, so that they are rewritten."""
    chains, sets = dict(program.chains), dict(program.sets)
    if STAMP in chains:
        chains[STAMP] = replace(chains[STAMP], lines=(*chains[STAMP].lines, _UNKNOWN))
    if FRESH in sets:
        sets[FRESH] = NamedSet(())
    return replace(program, chains=MappingProxyType(chains), sets=MappingProxyType(sets))
