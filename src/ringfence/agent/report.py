"""The agent's reports to the server: the revision that its kernel was seen to hold, and what is wrong.

A report is sent after every change, and at least every ``REPORT_S``, which keeps the host counted as live.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from ringfence.agent.client import Server
from ringfence.agent.doors.clock import Clock
from ringfence.nft import ForeignChain
from ringfence.policy.errors import OperatorError
from ringfence.policy.local import Failsafe
from ringfence.policy.values import Revision
from ringfence.wire.feed import Report

REPORT_S: Final = 15.0

_log: Final = logging.getLogger("ringfence.agent")


@dataclass(frozen=True, slots=True)
class Standing:
    """``problems`` by what they are about ("inventory", "kernel", ...), so that each is cleared by itself.

    ``foreign``: other programs' base chains that may drop; None: not read yet. ``failsafe``: ports that no group
    closes; None: the inventory was not read yet.
    """

    applied: Revision | None = None
    problems: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    notice: str | None = None  # what happened and is over
    foreign: tuple[ForeignChain, ...] | None = None
    failsafe: tuple[Failsafe, ...] | None = None

    def with_problem(self, about: str, text: str | None) -> "Standing":
        """The same standing with one problem set, or cleared by None."""
        others = {name: known for name, known in self.problems.items() if name != about}
        return replace(self, problems=MappingProxyType(others if text is None else {**others, about: text}))

    def with_applied(self, applied: Revision | None) -> "Standing":
        return replace(self, applied=applied)


def compose_report(standing: Standing) -> Report:
    """The report of a standing, with its problems in a stable order."""
    texts = [standing.problems[about] for about in sorted(standing.problems)]
    return Report(standing.applied, "; ".join(texts) or None, standing.notice, standing.foreign, standing.failsafe)


class Reporter:
    """Owns the standing, and reports it to the server."""

    def __init__(self, server: Server, clock: Clock) -> None:
        self._server = server
        self._clock = clock
        self._due = asyncio.Event()
        self._standing = Standing()

    @property
    def standing(self) -> Standing:
        return self._standing

    def set_problem(self, about: str, text: str | None) -> None:
        """Sets or clears (None) one problem; a new text is logged and reported at once."""
        if self._standing.problems.get(about) == text:
            return
        self._standing = self._standing.with_problem(about, text)
        self._due.set()
        if text is not None:
            _log.warning("%s", text, extra={"fields": {"about": about}})

    def set_notice(self, text: str | None) -> None:
        """Sets or clears (None) the notice of something that is over; a new text is logged and reported at once."""
        if self._standing.notice == text:
            return
        self._standing = replace(self._standing, notice=text)
        self._due.set()
        if text is not None:
            _log.warning("%s", text)

    def set_foreign(self, chains: tuple[ForeignChain, ...]) -> None:
        """Sets other programs' base chains that may drop; a change is logged and reported at once."""
        if self._standing.foreign == chains:
            return
        for chain in set(chains) - set(self._standing.foreign or ()):
            _log.warning("another program's rules may drop what ringfence allows: %s", chain.text)
        self._standing = replace(self._standing, foreign=chains)
        self._due.set()

    def set_failsafe(self, ports: tuple[Failsafe, ...]) -> None:
        """Sets the ports that no group closes; a change is reported at once."""
        if self._standing.failsafe != ports:
            self._standing = replace(self._standing, failsafe=ports)
            self._due.set()

    def set_applied(self, applied: Revision | None) -> None:
        """Sets the revision that the kernel was seen to hold, or none; reported at once, even if unchanged."""
        self._standing = self._standing.with_applied(applied)
        self._due.set()

    def wake(self) -> None:
        """Makes a report due now."""
        self._due.set()

    async def wait(self, longest_s: float = REPORT_S) -> None:
        """Waits until a report is due, at most ``longest_s``."""
        waits = {asyncio.ensure_future(self._due.wait()), asyncio.ensure_future(self._clock.sleep(longest_s))}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._due.clear()

    async def send(self) -> None:
        """Sends the present standing. Raises ``OperatorError`` when the server cannot be reached."""
        report = compose_report(self._standing)
        try:
            await self._server.report(report)
        except OperatorError:
            # The server may just have closed the connection; a lost report would leave an operation pending for long.
            await self._server.report(report)
