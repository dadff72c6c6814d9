"""The chains for refused packets: logged and let through if the instance is observed, else logged and dropped.

There is one small chain for each reason. Every line that refuses counts and goes there, so that observing and logging
cost an allowed packet nothing. Each chain ends in ``drop``: whatever is missing in a set, the packet is dropped.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Final

from ringfence.policy.program import names
from ringfence.policy.program.model import (
    Chain,
    Count,
    Differs,
    Drop,
    ElementType,
    Equal,
    Field,
    Goto,
    Line,
    Log,
    Match,
    Member,
    NamedSet,
    Seldom,
)


class Refusal(Enum):
    """Why a packet is refused; the value is part of chains' names and of what is logged."""

    SPOOFED = "spoofed"  # it claims an address that is not the sender's own
    MARTIAN = "martian"  # from outside it claims the host's own address, or a loopback address
    ROGUE = "rogue"  # it acts as router or DHCP server, or names its own way
    STRAY = "stray"  # TCP in mid-stream of no known connection
    LINK = "link"  # neighbour discovery that was forwarded
    CLOSED = "closed"  # a port without an instance
    DENIED_IN = "denied_in"  # no rule allows it in
    DENIED_OUT = "denied_out"  # no rule allows it out
    # Frames at a bridge. One that is merely flooded to a port is not refused: a bridge sends many of those.
    SPOOFED_FRAME = "spoofed_frame"
    ROGUE_FRAME = "rogue_frame"
    ALIEN_FRAME = "alien_frame"  # of another protocol, or tagged
    CLOSED_FRAME = "closed_frame"

    @property
    def is_of_frames(self) -> bool:
        return self in _FRAME_COUNTER


class Fate(Enum):
    """What became of a refused packet; the value is part of what is logged."""

    DROP = "drop"
    WOULD_DROP = "would-drop"


_FRAME_COUNTER: Final = {
    Refusal.SPOOFED_FRAME: names.FRAME_SPOOFED_COUNTER,
    Refusal.ROGUE_FRAME: names.FRAME_ROGUE_COUNTER,
    Refusal.ALIEN_FRAME: names.FRAME_ALIEN_COUNTER,
    Refusal.CLOSED_FRAME: names.FRAME_CLOSED_COUNTER,
}
TALLY: Final = {Fate.DROP: names.DROPS, Fate.WOULD_DROP: names.WOULD_DROPS}
FATE_OF: Final = {**{tally: fate for fate, tally in TALLY.items()}, names.FRAME_DROPS: Fate.DROP}  # every tally
_PREFIX: Final = "ringfence"
# Before routing the judged instance is the sender, after it the receiver. After routing a forwarded packet has both
# interfaces, of which only the outgoing one counts.
_BEFORE, _AFTER = Equal(Field.OUT_INDEX, 0), Differs(Field.OUT_INDEX, 0)
_SIDES: Final[tuple[tuple[Match, Field], ...]] = ((_BEFORE, Field.IN_INTERFACE), (_AFTER, Field.OUT_INTERFACE))
Observed = tuple[tuple[Match, Field, str], ...]  # before or after routing, the field to look up, and the set to ask
OBSERVED_PORTS: Final[Observed] = tuple((side, field, names.OBSERVED) for side, field in _SIDES)
OBSERVED_ADDRESSES: Final[Observed] = (
    (_BEFORE, Field.SOURCE4, names.OBSERVED4),
    (_BEFORE, Field.SOURCE6, names.OBSERVED6),
    (_AFTER, Field.DESTINATION4, names.OBSERVED4),
    (_AFTER, Field.DESTINATION6, names.OBSERVED6),
)


def refuse(refusal: Refusal, counter: str, *matches: Match) -> Line:
    """The line that refuses what ``matches``, counted by ``counter`` whether it is then dropped or not."""
    return Line((*matches, Count(counter), Goto(_chain(refusal, Fate.DROP))))


def refusal_chains(observed: Observed) -> Iterator[tuple[str, Chain]]:
    """For each reason a chain that drops, and one that lets pass what ``observed`` matches; both log."""
    for refusal in (one for one in Refusal if not one.is_of_frames):
        would = _chain(refusal, Fate.WOULD_DROP)
        watched = [Line((side, Member((field,), set_), Goto(would))) for side, field, set_ in observed]
        yield _chain(refusal, Fate.DROP), Chain((*watched, *_log(refusal, Fate.DROP), Line((Drop(),))))
        counted = Line((Count(names.would_counter(refusal.value)),))
        told = _log(refusal, Fate.WOULD_DROP)
        # Stamped like an allowed flow, so that it is counted and logged once and not for every packet.
        yield would, Chain((counted, *told, Line((Goto(names.ALLOW),))))


def refuse_frame(refusal: Refusal, *matches: Match) -> Line:
    """The line that drops frames, even of observed instances: otherwise those could see and send as others."""
    return Line((*matches, Count(_FRAME_COUNTER[refusal]), Goto(_frame_chain(refusal))))


def frame_refusal_chains() -> Iterator[tuple[str, Chain]]:
    """For each reason a chain that logs and drops frames."""
    for refusal in _FRAME_COUNTER:
        yield _frame_chain(refusal), Chain((*_log(refusal, Fate.DROP), Line((Drop(),))))


def frame_tally() -> dict[str, NamedSet]:
    """The set in which the kernel counts refused frames of each port, and limits what it logs."""
    return {names.FRAME_DROPS: NamedSet((ElementType.INTERFACE,), tally=True)}


def tally_of(refusal: Refusal, fate: Fate) -> str:
    """The name of the set that counts such packets by interface."""
    return names.FRAME_DROPS if refusal.is_of_frames else TALLY[fate]


def tallies() -> dict[str, NamedSet]:
    """The sets in which the kernel counts refused packets of each interface, and limits what it logs."""
    return {name: NamedSet((ElementType.INTERFACE,), tally=True) for name in TALLY.values()}


def log_prefix(refusal: Refusal, fate: Fate) -> str:
    """The text of a log line, e.g. ``ringfence drop denied_in``."""
    return f"{_PREFIX} {fate.value} {refusal.value}"


def parse_log_prefix(text: str) -> tuple[Refusal, Fate] | None:
    """The inverse of ``log_prefix``; None for another program's text."""
    first, _, rest = text.partition(" ")
    fate, _, refusal = rest.partition(" ")
    try:
        return (Refusal(refusal), Fate(fate)) if first == _PREFIX else None
    except ValueError:
        return None


def _chain(refusal: Refusal, fate: Fate) -> str:
    return names.refusal_chain(refusal.value, would=fate is Fate.WOULD_DROP)


def _frame_chain(refusal: Refusal) -> str:
    return f"{names.BRIDGE}{_chain(refusal, Fate.DROP)}"


def _log(refusal: Refusal, fate: Fate) -> list[Line]:
    log = Log(log_prefix(refusal, fate))
    return [Line((side, Seldom(field, tally_of(refusal, fate)), log)) for side, field in _SIDES]
