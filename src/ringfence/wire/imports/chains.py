"""PURE: the chains of a packet filter, walked once with all first packets at the same time: what do they accept?

Input: chains of lines, each with the set of packets that it matches. Output: rules that allow exactly those packets
that the chains accept; where no rule can say so, a refusal that names the line. A packet is the first of a flow, to an
address of the host itself, from outside.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from ringfence.policy.commands import RuleDraft
from ringfence.policy.errors import Invalid
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.services import describe_services
from ringfence.wire.decode import MAX_TEXT
from ringfence.wire.imports.boxes import (
    EVERYTHING,
    Box,
    Space,
    common,
    drafts_of,
    is_all,
    merged,
    named_alone,
    opening,
    unknown_services,
    without,
)

MAX_RULES: Final = 1000  # one group's; more would be no policy that a person reads
_HINT: Final = "--leave-out goes on without it and lets in less"
_MAX_JUMPS: Final = 64  # deeper than any kernel lets chains call each other


class Verdict(Enum):
    """What a line does with a packet that it matches."""

    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"
    NEXT = "next"  # nothing that decides: it is counted, or logged, and goes on


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chain. ``place`` is how a refusal calls it.

    ``unclear``: why source and service do not suffice to tell what it matches; ``match`` may then be too large.
    ``aside``: what else it is about than packets to the host itself.
    """

    place: str
    match: Space
    verdict: Verdict
    target: str = ""
    comment: str | None = None
    unclear: str | None = None
    aside: str | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """``policy``: the verdict at its end; RETURN for a chain that others jump to."""

    lines: tuple[Line, ...] = ()
    policy: Verdict = Verdict.RETURN
    place: str = ""


@dataclass(frozen=True, slots=True)
class Leave:
    """What may be left out, where a refusal would be the answer: ``unclear`` accepting lines, and protocols.

    Both let in less than the chains do. ``spell_out`` writes a rule per known protocol in place of all.
    """

    unclear: bool = False
    spell_out: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """Rules in the order of the lines that they come from, and remarks about them for the user."""

    rules: tuple[RuleDraft, ...]
    notes: tuple[str, ...]


def accepted_by(
    hooks: Sequence[tuple[str, Mapping[str, Chain]]], leave: Leave, *, within: Space = EVERYTHING
) -> Accepted:
    """What of ``within`` is let in where a packet must be accepted by the named chain of every one of ``hooks``.

    Raises:
        Invalid: no rules can express it; the text names the line and the reason.
    """
    grants: list[tuple[Box, Line]] = [(box, Line("", within, Verdict.ACCEPT)) for box in within]
    notes: list[str] = []
    for start, chains in hooks:
        walk = _Walk(chains, leave, notes)
        walk.run(start, tuple(box for box, _ in grants))
        grants = [
            (both, line if line.comment or not before.comment else before)
            for before_box, before in grants
            for box, line in walk.grants
            if (both := before_box & box)
        ]
    return Accepted(tuple(_drafts(grants, leave, notes)), tuple(dict.fromkeys(notes)))


def may_drop(chains: Mapping[str, Chain], start: str) -> Line | None:
    """A line by which the named chain may drop a packet; None when it lets everything through."""
    chain, seen, ahead = chains[start], {start}, [start]
    if chain.policy is Verdict.DROP:
        return Line(chain.place, EVERYTHING, Verdict.DROP)
    while ahead:
        for line in chains.get(ahead.pop(), Chain()).lines:
            if not common(line.match, opening(EVERYTHING)):
                continue
            if line.verdict is Verdict.DROP:
                return line
            if line.target and line.target not in seen:
                seen.add(line.target)
                ahead.append(line.target)
    return None


@dataclass(slots=True)
class _Walk:
    chains: Mapping[str, Chain]
    leave: Leave
    notes: list[str]
    grants: list[tuple[Box, Line]] = field(default_factory=list)
    _harmless: dict[str, bool] = field(default_factory=dict)

    def run(self, start: str, space: Space) -> None:
        """Collects what is accepted of ``space``; what was accepted stays in it, which changes nothing."""
        left = self._through(start, space, 0)
        chain = self.chains[start]
        if chain.policy is Verdict.ACCEPT:
            line = Line(chain.place, EVERYTHING, Verdict.ACCEPT)
            self.grants += [(box, line) for box in merged(left)]

    def _through(self, name: str, space: Space, depth: int) -> Space:
        """The packets that return from a chain."""
        if depth > _MAX_JUMPS:
            raise Invalid(f"chain {name} calls itself")
        back: Space = ()
        for line in self._chain(name).lines:
            hit = common(space, line.match)
            if not hit or self._may_be_skipped(line):
                self._tell(line)
                continue
            if line.verdict is Verdict.ACCEPT:
                self.grants += [(box, line) for box in merged(hit)]
                continue
            space = without(space, line.match)
            if line.verdict is Verdict.RETURN:
                back = (*back, *hit)
            elif line.verdict is Verdict.JUMP:
                space = (*space, *self._through(line.target, hit, depth + 1))
            elif line.verdict is Verdict.GOTO:
                back = (*back, *self._through(line.target, hit, depth + 1))
        return (*back, *space)

    def _tell(self, line: Line) -> None:
        if line.aside and line.verdict is Verdict.ACCEPT:
            self.notes.append(f"{line.place}: left out, because {line.aside}")

    def _chain(self, name: str) -> Chain:
        if name not in self.chains:
            raise Invalid(f"there is no chain {ascii(name)[:64]}, which a line before calls")
        return self.chains[name]

    def _may_be_skipped(self, line: Line) -> bool:
        """Whether a line that matches remaining packets can be skipped; raises if it decides and it is unclear what."""
        if line.verdict is Verdict.NEXT or (line.verdict is Verdict.JUMP and self._decides_nothing(line.target, 0)):
            return True
        if line.unclear is None:
            return False
        if line.verdict is Verdict.ACCEPT and self.leave.unclear:
            self.notes.append(f"{line.place}: left out, because {line.unclear}")
            return True
        hint = f"; {_HINT}" if line.verdict is Verdict.ACCEPT else ""
        raise Invalid(f"{line.place}: {line.unclear}{hint}")

    def _decides_nothing(self, name: str, depth: int) -> bool:
        """Whether every packet returns from a chain, as from one that only logs."""
        if name not in self._harmless:
            harmless = depth <= _MAX_JUMPS and all(
                line.verdict in (Verdict.NEXT, Verdict.RETURN)
                or (line.verdict is Verdict.JUMP and self._decides_nothing(line.target, depth + 1))
                for line in self._chain(name).lines
            )
            self._harmless[name] = harmless
        return self._harmless[name]


def _drafts(grants: list[tuple[Box, Line]], leave: Leave, notes: list[str]) -> Iterator[RuleDraft]:
    """Leaves out rules that were written already."""
    said: Space = ()
    count = 0
    for part, line in grants:
        box = _completed(part, grants)
        if not without((box,), said):
            continue
        said = (*said, box)
        comment = line.comment[:MAX_TEXT] if line.comment else None
        for draft in drafts_of(_nameable(box, line, leave, notes), comment):
            count += 1
            if count > MAX_RULES:
                raise Invalid(f"{line.place}: what is let in up to here takes more than {MAX_RULES} rules")
            yield draft


def _completed(box: Box, grants: list[tuple[Box, Line]]) -> Box:
    """The box, or all services from its addresses, where several lines together let in all of them."""
    if not unknown_services(box):
        return box
    alike = (one for one, _ in grants if one.family == box.family and box.addresses <= one.addresses)
    whole = Box(box.family, box.addresses, Intervals.joined(one.services for one in alike))
    return whole if is_all(whole) else box


def _nameable(box: Box, line: Line, leave: Leave, notes: list[str]) -> Box:
    """The part of the box that rules can express."""
    if is_all(box):
        told = "of all protocols only those that rules can name" if leave.spell_out else "protocol all"
        hint = "" if leave.spell_out else " (a server takes it with --offer-all-protocol only; or --spell-out)"
        notes.append(f"{line.place}: {told}{hint}")
        return named_alone(box) if leave.spell_out else box
    if not (unknown := unknown_services(box)):
        return box
    told = f"no rule can name {describe_services(unknown)}"
    if not leave.unclear:
        raise Invalid(f"{line.place}: {told}; {_HINT}")
    notes.append(f"{line.place}: left out in part, because {told}")
    return named_alone(box)
