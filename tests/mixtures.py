"""What packets meet that are under way while a kernel goes from one program to another, played by turns.

A packet keeps to the lines that were there when it came, and finds the sets and maps of the next program from its first
look-up on, or from any later one.
"""

from dataclasses import replace
from itertools import pairwise

from ringfence.policy.program.model import NamedSet, Program, VerdictMap
from simulator import hooks_of, simulate


class _Turning:
    """How many look-ups a packet has made by now, and after how many the next program is in force."""

    def __init__(self, turn):
        self.turn, self.asked = turn, 0

    def ask(self):
        self.asked += 1
        return self.asked > self.turn


class _Looked(dict):
    """The sets or maps of a program, and after the turn those of the next, where one that is gone has nothing left."""

    def __init__(self, now, then, nothing, turning):
        super().__init__(now)
        self.then, self.nothing, self.turning = then, nothing, turning

    def __getitem__(self, name):
        if self.turning.ask():
            return self.then.get(name, self.nothing)
        return super().get(name) or self.then[name]  # prepared


def _mixtures(now, then, crossing, hook):
    """What is said by the lines of ``now`` while ``then`` comes into force, at any moment of the packet's way."""
    turn, asked = 0, 1
    while turn <= asked:
        turning = _Turning(turn)
        mixture = Program(
            now.counters | then.counters,
            _Looked(now.sets, then.sets, NamedSet(()), turning),
            _Looked(now.maps, then.maps, VerdictMap(), turning),
            {**then.chains, **now.chains},
        )
        yield _passes(mixture, crossing, hook)
        turn, asked = turn + 1, turning.asked


def _passes(program, crossing, hook):
    flow = crossing.flow and replace(crossing.flow)
    return simulate(program, replace(crossing, flow=flow), 1, hook).passed


def strays(programs, packets):
    """Packets that some moment on the way through the programs judges as neither the first nor the last does."""
    for way in packets:
        for hook in hooks_of(way.crossing()):
            ends = {_passes(program, way.crossing(), hook) for program in (programs[0], programs[-1])}
            said = {_passes(program, way.crossing(), hook) for program in programs}
            for now, then in pairwise(programs):
                said.update(_mixtures(now, then, way.crossing(), hook))
            if said != ends:
                yield way, hook
