"""Who takes part in the packet bench: each in a world of its own, so that a round can ask all of them in turn."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from bench.crossing import Tools, Way, open_way
from bench.rivals import RIVALS, missing_for
from bench.workload import OUTSIDE, PORTS, Workload, view_of
from ringfence.agent.doors.nftables import KernelNftables
from ringfence.agent.service import spare_collections
from ringfence.nft import About, Generation
from ringfence.policy.program.compile import compile_program
from ringfence.policy.program.delta import diff_programs, in_pieces
from ringfence.policy.program.model import RAW_PRIORITY, Hook, HookName, Program

FLOOR = "empty"
OURS = "ringfence"
OURS_UNCHECKED = "ringfence-no-spoof-check"
OURS_FROM_OUTSIDE = "ringfence-from-outside"
FLOOR_FROM_OUTSIDE = "empty-from-outside"
FLOORS = {OURS_FROM_OUTSIDE: FLOOR_FROM_OUTSIDE, FLOOR_FROM_OUTSIDE: FLOOR_FROM_OUTSIDE}
_BEFORE_CONNTRACK = Hook(HookName.PREROUTING, RAW_PRIORITY)


@dataclass(frozen=True)
class Field:
    """The ways to compare, how long their rules took to load, and who could not take part, with why."""

    ways: dict[str, Way]
    load_s: dict[str, float]
    absent: dict[str, str]


@contextmanager
def open_field(tools: Tools, load: Workload, rivals: tuple[str, ...]) -> Iterator[Field]:
    """Ours in its forms, the floor, and the ``rivals``, all with the same policy loaded."""
    found = Field({}, {}, {})
    ours = {OURS: _load_ours, OURS_UNCHECKED: _load_unchecked}
    loaders: dict[str, Callable[[Workload, Way], None]] = {**ours, **{name: _loader(name) for name in (FLOOR, *rivals)}}
    with ExitStack() as stack:
        for name, loader in loaders.items():
            if missing := missing_for(name) if name in RIVALS else []:
                found.absent[name] = f"not installed: {', '.join(missing)}"
                continue
            way = open_way(tools)
            stack.callback(way.close)
            begin_s = time.monotonic()
            try:
                loader(load, way)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                found.absent[name] = str(error)
                continue
            found.load_s[name] = round(time.monotonic() - begin_s, 2)
            found.ways[name] = way
        found.ways[FLOOR] = replace(found.ways[FLOOR], denies=False)
        for name, same in ((FLOOR_FROM_OUTSIDE, FLOOR), (OURS_FROM_OUTSIDE, OURS)):
            found.ways[name] = replace(found.ways[same], source=OUTSIDE)
        yield found


def _loader(rival: str) -> Callable[[Workload, Way], None]:
    return lambda load, way: RIVALS[rival](load, way.world.router)


def _load_ours(load: Workload, way: Way) -> None:
    spare_collections()
    _commit(compile_program(view_of(load, way.world), PORTS), way)


def _load_unchecked(load: Workload, way: Way) -> None:
    """Without anti-spoofing: no more is hooked in before conntrack."""
    program = compile_program(view_of(load, way.world), PORTS)
    chains = {name: chain for name, chain in program.chains.items() if chain.hook != _BEFORE_CONNTRACK}
    _commit(replace(program, chains=chains), way)


def _commit(program: Program, way: Way) -> None:
    """As the agent does it, in a namespace without any rules."""
    nftables = way.world.router.run(KernelNftables)
    delta = diff_programs(Program(), program)
    for _ in nftables.commit_pieces(in_pieces(delta.prepare), generation=Generation(1)):
        pass
    nftables.commit(delta.flip, generation=Generation(1), about=About(1, "bench"))
    nftables.close()
