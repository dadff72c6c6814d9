"""Whether packets pass a program. A verdict is kept as long as all that it was found by in the program is the same."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from simulator import open_crossing, simulate


class Verdicts:
    """On the first packets of flows that come from elsewhere."""

    def __init__(self) -> None:
        self._known = {}
        self._hooked = {}

    def passing(self, program, packets):
        """Those that pass, of pairs of a packet and the port that it goes to."""
        hooked = {name: chain.hook for name, chain in program.chains.items() if chain.hook}
        if hooked != self._hooked:
            self._known, self._hooked = {}, hooked
        for packet, port in packets:
            known = self._known.get((packet, port))
            if known is None or not known.holds_in(program):
                known = self._known[packet, port] = _ask(program, packet, port)
            if known.passed:
                yield packet


@dataclass(frozen=True, slots=True)
class _Verdict:
    """``asked``: what was looked at, by kind and name."""

    passed: bool
    asked: dict[tuple[str, str], object]

    def holds_in(self, program):
        return all(getattr(program, kind).get(name) == thing for (kind, name), thing in self.asked.items())


class _Watched(Mapping):
    """Takes note of what is looked up."""

    def __init__(self, kind, things, asked) -> None:
        self._kind, self._things, self._asked = kind, things, asked

    def __getitem__(self, name):
        thing = self._asked[self._kind, name] = self._things[name]
        return thing

    def __iter__(self):
        return iter(self._things)

    def __len__(self):
        return len(self._things)

    def items(self):
        """Who looks through all of them looks for the hooked ones."""
        return self._things.items()


def _ask(program, packet, port):
    asked = {}
    watched = {kind: _Watched(kind, getattr(program, kind), asked) for kind in ("sets", "maps", "chains")}
    crossing = open_crossing(packet, came_by="up", goes_by=port)
    return _Verdict(simulate(replace(program, **watched), crossing, 1).passed, asked)
