"""The operations in memory: the newest ten thousand, the pending ones, and those whose end is to be saved.

Lives in the event loop's thread.
"""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Final

from ringfence.control.operations import Errors, Pending, PendingOperations, Said
from ringfence.policy.errors import NotFound
from ringfence.policy.model import Operation, OperationState
from ringfence.policy.values import HostName, OperationId, OrganisationId, Revision
from ringfence.store import MAX_OPERATIONS, StoredOperation

FOREIGN_GRACE_S: Final = 5.0


class OperationBook:
    """Every change of an operation's state goes through here."""

    def __init__(self) -> None:
        self._known: dict[OperationId, Operation] = {}
        self._pending = PendingOperations()
        self._ends: dict[OperationId, asyncio.Event] = {}
        self._unsaved: dict[OperationId, Operation] = {}
        self._foreign: set[OperationId] = set()

    def find(self, id_: OperationId, organisation: OrganisationId) -> Operation:
        """An operation of the organisation; raises ``NotFound`` for any other, and for those that are too old."""
        operation = self._known.get(id_)
        if operation is None or operation.organisation != organisation:
            raise NotFound(f"there is no operation {id_}")
        return operation

    def latest(self, operation: Operation) -> Operation:
        """The present state of an operation; the given state if it is not known here (any more)."""
        return self._known.get(operation.id, operation)

    def newest(self, organisation: OrganisationId, most: int) -> list[Operation]:
        """The newest operations of the organisation, newest first."""
        mine = (one for one in reversed(self._known.values()) if one.organisation == organisation)
        return list(islice(mine, most))

    def heard(self, id_: OperationId) -> Pending | None:
        """As ``PendingOperations.heard``."""
        return self._pending.heard(id_)

    def open(
        self,
        stored: StoredOperation,
        *,
        opened_s: float,
        deadline_s: float,
        is_foreign: bool = False,
    ) -> None:
        """Adds a committed operation; a pending one ends at the latest at ``deadline_s`` (monotonic).

        The end of a foreign operation is saved by the server that opened it, or by this one when that server is gone,
        some seconds after the deadline.
        """
        operation = stored.operation
        if is_foreign:
            self._foreign.add(operation.id)
            deadline_s += FOREIGN_GRACE_S
        self._known[operation.id] = operation
        if operation.state is OperationState.PENDING:
            self._ends[operation.id] = asyncio.Event()
            self._pending.track(stored, opened_s=opened_s, deadline_s=deadline_s)
        while len(self._known) > MAX_OPERATIONS:
            del self._known[next(iter(self._known))]

    def report(
        self, hosts: Iterable[HostName], said: Said, before: Mapping[HostName, str], *, offered: Revision, now_s: float
    ) -> None:
        """Takes in what hosts report, as ``PendingOperations.report``."""
        self._end(self._pending.report(hosts, said, before, offered=offered, now_s=now_s))

    def settle(self, operation: Operation) -> None:
        """Ends an operation as another server saved it, which does not include its hosts."""
        self._pending.forget(operation.id)
        self._foreign.discard(operation.id)
        self._unsaved.pop(operation.id, None)
        if known := self._known.get(operation.id):
            self._known[operation.id] = replace(operation, hosts=known.hosts)
        if end := self._ends.pop(operation.id, None):
            end.set()

    def expire(self, now_s: float, errors: Errors) -> None:
        """Ends the operations whose deadline has passed, as ``PendingOperations.expire``."""
        expired = self._pending.expire(now_s, errors)
        self._foreign.difference_update(operation.id for operation in expired)
        self._end(expired)

    async def wait(self, id_: OperationId, timeout_s: float) -> None:
        """Returns when the operation has ended, or after ``timeout_s``."""
        end = self._ends.get(id_)
        if end is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await end.wait()

    def unsaved(self) -> tuple[Operation, ...]:
        """Ended operations whose end is not on disk yet."""
        return tuple(self._unsaved.values())

    def saved(self, operations: Iterable[Operation]) -> None:
        for operation in operations:
            self._unsaved.pop(operation.id, None)

    def _end(self, ended: Iterable[Operation]) -> None:
        for operation in ended:
            if operation.id in self._known:
                self._known[operation.id] = operation
            if operation.id in self._foreign:
                self._foreign.discard(operation.id)
            else:
                self._unsaved[operation.id] = operation
            self._ends.pop(operation.id).set()
