"""What the rules did: how often each one allowed something, and which packets were refused or allowed.

Input: the kernel's counters, its events about packets and connections, and the view in force. Output: totals and a flow
log, both kept in the agent's folder and sent to the server. It changes no rule, and nothing waits for it.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

from ringfence.agent.allowed import AllowedLog
from ringfence.agent.client import Server
from ringfence.agent.counters import READ_S, SAVE_S, RuleCounts
from ringfence.agent.doors.bundle import Doors
from ringfence.agent.flows import FlowLog
from ringfence.agent.inventory import Logged
from ringfence.agent.link import Pauses
from ringfence.agent.ports import Declared
from ringfence.agent.refused import RefusedLog
from ringfence.agent.report import Reporter
from ringfence.agent.worker import Worker
from ringfence.policy.errors import OperatorError
from ringfence.policy.local import Lifelines
from ringfence.policy.program.refusal import FATE_OF
from ringfence.policy.values import Revision
from ringfence.policy.view import HostView

_NO_PACKETS: Final = (
    "refused packets are counted and not logged: at its start the agent could not have the kernel's log of packets;"
    " its own log says why, and it must be started again when that is mended"
)

_log: Final = logging.getLogger("ringfence.agent")


class Evidence:
    """Owns the counts and the flow log. The caller sets ``view`` to the one in force, and runs ``steps`` for ever."""

    def __init__(
        self, doors: Doors, declared: Declared, folder: Path, *, server: Server, reporter: Reporter, pauses: Pauses
    ) -> None:
        self.view = HostView(Revision(0))
        self._counted = self.view  # the view whose rules are the only ones that are counted
        self._nftables = doors.nftables
        self._clock = doors.clock
        self._declared = declared
        self._server = server
        self._reporter = reporter
        self._pauses = pauses
        self._counts = RuleCounts(doors.files, folder)
        self._disk = Worker("flow log")  # its file may be on another disk than the folder
        self._flows = FlowLog(doors.files, doors.clock, folder, file=doors.flow_file)
        self._refused = RefusedLog(doors.packets, self._flows, doors.clock) if doors.packets else None
        self._allowed = AllowedLog(doors.connections, self._flows, doors.clock) if doors.connections else None

    def begin(self) -> None:
        """Continues from the saved totals, if they can be read, and listens to what the inventory wants logged."""
        try:
            self._counts.load()
        except OperatorError as error:
            _log.warning("%s; what each rule allowed is counted anew", error)
        self.listen()

    def listen(self) -> None:
        """Listens to what the inventory wants logged, and to nothing else."""
        wanted = self._declared.inventory.flow_log
        misses = self._refused is None and wanted is not Logged.OFF
        self._reporter.set_problem("packets", _NO_PACKETS if misses else None)
        if self._refused is not None:
            self._refused.on = wanted is not Logged.OFF
        if self._allowed is None:
            return
        try:
            self._allowed.listen(on=wanted is Logged.ALL)
        except OperatorError as error:
            self._reporter.set_problem("connections", f"{error}; what is allowed is not logged")
        else:
            self._reporter.set_problem("connections", None)

    def tell_all(self) -> None:
        """Sends everything again, as to a server that knows nothing."""
        self._counts.tell_all()

    def close(self) -> None:
        """Writes what is left of the flow log, then the totals; no step may be running. Raises ``OperatorError``."""
        self._disk.close()
        self._flows.flush()
        self._counts.save()

    def steps(self, kernel: Worker, disk: Worker) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        """The tasks to run concurrently, by name; blocking work goes to the threads ``kernel`` and ``disk``."""
        yield "count", lambda: self._count(kernel)
        yield "keep the counts", lambda: self._keep_counts(disk)
        yield "write the flow log", self._write
        yield "send the flow log", self._send
        if (refused := self._refused) is not None:
            yield "log what is refused", lambda: self._log(refused.follow(lambda: self.view))
        if (allowed := self._allowed) is not None:
            yield "log what is allowed", lambda: self._log(allowed.follow(self._in_force))

    async def _count(self, kernel: Worker) -> None:
        if self._refused is not None:
            names = FATE_OF if self._refused.on else ()
            self._refused.note_tallies(await kernel.do(self._nftables.read_tallies, names), self.view)
        await self._clock.sleep(READ_S)
        self._counts.update(await kernel.do(self._nftables.read_hits), self._clock.now())
        if self._allowed is not None:
            self._counts.add(self._allowed.take_gains(), self._clock.now())
            self._allowed.note_denied()
        if self.view is not self._counted:
            self._counted = self.view
            self._counts.keep_only(rule.id for rules in self._counted.rules.values() for rule in rules)
        try:
            await self._counts.send(self._server)
        except OperatorError as error:
            _log.debug("the counters are not sent", extra={"fields": {"reason": str(error)}})

    async def _keep_counts(self, disk: Worker) -> None:
        await self._clock.sleep(SAVE_S)
        try:
            await disk.do(self._counts.save)
        except OperatorError as error:
            text = f"{error}; a restart would begin with the totals of rules that were kept before"
            self._reporter.set_problem("counters", text)
        else:
            self._reporter.set_problem("counters", None)

    async def _log(self, following: Awaitable[None]) -> None:
        await following
        self._reporter.set_problem("flow log", self._flows.problem)

    async def _write(self) -> None:
        await self._flows.write(self._disk)
        self._reporter.set_problem("flow log", self._flows.problem)

    def _in_force(self) -> tuple[HostView, Lifelines]:
        return self.view, self._declared.current.ports.lifelines

    async def _send(self) -> None:
        try:
            await self._flows.send(self._server)
        except OperatorError as error:
            _log.debug("the flow log is not sent", extra={"fields": {"reason": str(error)}})
            await self._clock.sleep(self._pauses.take())
        else:
            self._pauses.reset()
