"""The demo's proof: for every pair and every service, what the model says, a probe saw, and the kernel counted.

The three come from different places: the model from ``policy.verdict`` over the host's view, the probe from sockets at
both ends, the kernel's from the counters of the rules that judged the probe's first packet. They must agree everywhere.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ringfence.agent.doors.netlink import NetlinkSocket
from ringfence.nft import read_counters
from ringfence.policy.errors import OperatorError
from ringfence.policy.packet import Packet
from ringfence.policy.program import names
from ringfence.policy.values import PROTOCOL_NUMBER, Direction, Protocol
from ringfence.policy.verdict import Allowance, Default, SideVerdict, Verdict, find_endpoint, judge
from ringfence.policy.view import HostView
from ringfence.world.prober import SILENCE_S, Flight, Outcome, Probe, Result, Service, land, launch
from ringfence.world.topology import Placed, World

_SOURCE_PORT: Final = 49152
_BATCH: Final = 40  # first packets sent well within TCP's first retransmission, so that each is counted once
# A missing answer may be a busy machine's: what was not let through is asked a second time, alone and with patience.
_PATIENT_S: Final = 2.0
_COUNTED_S: Final = 0.25  # a packet is counted as it is sent; longer only on a machine that is very busy
_REFUSING: Final = frozenset(
    {names.CLOSED_COUNTER, names.SPOOFED_COUNTER, names.ROGUE_COUNTER, names.STRAY_COUNTER, names.LINK_COUNTER}
)


@dataclass(frozen=True, slots=True)
class Question:
    """May ``source`` reach ``destination`` for ``service`` over IPv4 (4) or IPv6 (6)?"""

    source: Placed
    destination: Placed
    service: Service
    family: int

    @property
    def probe(self) -> Probe:
        return Probe(self.source.namespace, self.destination.address(self.family), self.service)

    def __str__(self) -> str:
        ends = f"{self.source.node.name} -> {self.destination.node.name}"
        return f"{ends} {self.service} over IPv{self.family}"


@dataclass(frozen=True, slots=True)
class Cell:
    """The answers to one question. ``counters`` moved in the kernel, ``expected`` are those that the model names."""

    question: Question
    model: bool
    outcome: Outcome
    kernel: bool | None  # None: no counter moved
    counters: frozenset[str]
    expected: frozenset[str]

    @property
    def agrees(self) -> bool:
        """Same answer thrice, and counted by exactly the rules, or the default, that the model names."""
        return self.model == self.outcome.passed == self.kernel and self.counters == self.expected

    @property
    def leaked(self) -> bool:
        """Whether something passed that should not: no second look can make that good."""
        return self.outcome.passed and not self.model


class KernelCounters:
    """The counters of our table in a world's router, read from outside by a socket that was opened inside."""

    def __init__(self, world: World) -> None:
        self._netlink = world.router.run(NetlinkSocket)

    def read(self) -> dict[str, int]:
        """Counter -> packets. About a millisecond."""
        return self._netlink.converse(read_counters())

    def close(self) -> None:
        self._netlink.close()


def ask_all(questions: Sequence[Question], view: HostView, counters: KernelCounters, control: Probe) -> Iterator[Cell]:
    """A cell for every question, in order, as they are answered. Under 3 s for 150.

    Raises:
        OperatorError: when ``control``, which nobody filters, does not pass: then silence means nothing.
    """
    refusing = _REFUSING | {
        names.denied_counter(names.profile_of(endpoint.groups), direction)
        for endpoint in view.endpoints
        for direction in Direction
    }
    for start in range(0, len(questions), _BATCH):
        for cell in _ask_batch(questions[start : start + _BATCH], view, counters, control, refusing):
            if cell.agrees or cell.leaked:
                yield cell
            else:
                yield from _ask_batch([cell.question], view, counters, control, refusing, silence_s=_PATIENT_S)


def _ask_batch(
    questions: Sequence[Question],
    view: HostView,
    counters: KernelCounters,
    control: Probe,
    refusing: frozenset[str],
    *,
    silence_s: float = SILENCE_S,
) -> Iterator[Cell]:
    flights: list[Flight] = []
    moved: list[frozenset[str]] = []
    for question in questions:
        before = counters.read()
        flights.append(launch(question.probe))
        moved.append(_moved(before, counters, _expected(_verdict(view, question))))
    *results, last = land([*flights, launch(control)], silence_s=silence_s)
    if not last.outcome.passed:
        raise OperatorError(
            "probing", f"the control probe to {control.destination}, which nobody filters, got no answer"
        )
    for question, result, names_moved in zip(questions, results, moved, strict=True):
        yield _cell(question, view, result, names_moved, refusing)


def _moved(before: dict[str, int], counters: KernelCounters, expected: frozenset[str]) -> frozenset[str]:
    """The counters that the last packet moved. Waits for the expected ones, takes whatever came instead of them."""
    deadline_s = time.monotonic() + _COUNTED_S
    while True:
        after = counters.read()
        moved = frozenset(name for name, packets in after.items() if packets != before.get(name, 0))
        if moved >= expected or time.monotonic() > deadline_s:
            return moved


def _cell(
    question: Question, view: HostView, result: Result, counters: frozenset[str], refusing: frozenset[str]
) -> Cell:
    verdict = _verdict(view, question)
    kernel = None if not counters else not counters & refusing
    return Cell(question, verdict.allowed, result.outcome, kernel, counters, _expected(verdict))


def _verdict(view: HostView, question: Question) -> Verdict:
    source, destination = question.source.address(question.family), question.destination.address(question.family)
    number, icmp_type = _protocol(question)
    packet = Packet(source, destination, number, _SOURCE_PORT, question.service.port or 0, icmp_type)
    return judge(view, packet, source=find_endpoint(view, source), destination=find_endpoint(view, destination))


def _protocol(question: Question) -> tuple[int, int]:
    if question.service.port is not None:
        return PROTOCOL_NUMBER[question.service.protocol], 0
    if question.family == 4:  # noqa: PLR2004  the family's number
        return PROTOCOL_NUMBER[Protocol.ICMP], 8
    return PROTOCOL_NUMBER[Protocol.ICMPV6], 128


def _expected(verdict: Verdict) -> frozenset[str]:
    """The counters of the sides that are asked: the receiver's is not when the sender's has refused."""
    sides = [verdict.egress]
    if verdict.egress is None or verdict.egress.allowed:
        sides.append(verdict.ingress)
    return frozenset(_counter(side) for side in sides if side is not None)


def _counter(side: SideVerdict) -> str:
    profile = names.profile_of(side.endpoint.groups)
    if isinstance(side.reason, Allowance):
        return names.rule_counter(side.reason.rule.id)
    if side.reason is Default.EGRESS_OPEN:
        return names.open_counter(profile)
    return names.denied_counter(profile, side.direction)
