"""Operations from commit to their end: which hosts each one waits for, and how the hosts' reports settle it.

Input: touched hosts, reports and monotonic times, all as arguments. Output: operations in a new state. It knows no
store and no event loop, so that tests can play the hosts and the time.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from ringfence.control.hosts import HostStatus
from ringfence.control.lookup import name_some
from ringfence.policy.model import Operation, OperationReason, OperationState
from ringfence.policy.values import HostName, OperationId, Revision
from ringfence.store import StoredOperation

NO_HOST: Final = "stored; no host enforces it yet"
UNCHANGED: Final = "it was so already; nothing was changed"
_REPEATED_AT_LEAST: Final = 3  # reports of an old error that make it a failure: one may be under way, one stale
_MOST_HEARD: Final = 1000  # operations for which each host's answer is kept
_MAX_ERROR: Final = 500  # characters of a host's error text that a message carries


Said = tuple[Revision | None, str | None]  # a host's report: the revision that it enforces, and what is wrong
Errors = Callable[[AbstractSet[HostName]], Mapping[HostName, str]]  # the errors that those hosts last reported


def open_operation(operation: Operation, offline: frozenset[HostName]) -> Operation:
    """``operation`` as it stands right after its commit, when ``offline`` of its hosts are not live.

    Offline hosts do not block: they enforce the newest policy when they return.
    """
    if operation.revision is None:
        return replace(operation, state=OperationState.SUCCESS, message=UNCHANGED)
    if not operation.hosts:
        return replace(operation, state=OperationState.SUCCESS, message=NO_HOST)
    if offline == operation.hosts:
        return replace(operation, state=OperationState.SUCCESS, message=f"stored; {_offline_text(offline)}")
    return replace(operation, state=OperationState.PENDING, message=_offline_text(offline))


class Standing(Enum):
    """What a host has done about one operation."""

    APPLIED = "applied"
    FAILED = "failed"
    SILENT = "silent"  # it is live, and has not reported that it applied it
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of an operation on one host; ``after_ms`` is the time from its commit, None if not known."""

    host: HostName
    standing: Standing
    after_ms: int | None = None
    reason: str | None = None


def fate_of(revision: Revision, status: HostStatus, heard: "Pending | None", *, is_live: bool) -> Fate:
    """What became of the operation of ``revision`` on a host, by what was ``heard`` while it was pending, and since.

    A host that applied it after the operation's end has applied it all the same.
    """
    host = status.host
    if heard is not None and host in heard.applied:
        return Fate(host, Standing.APPLIED, heard.applied[host])
    if status.applied is not None and status.applied >= revision:
        return Fate(host, Standing.APPLIED)
    if heard is not None and host in heard.failed:
        return Fate(host, Standing.FAILED, reason=heard.failed[host])
    return Fate(host, Standing.SILENT if is_live else Standing.OFFLINE, reason=status.error)


@dataclass(slots=True)
class Pending:
    """An operation that waits for hosts, and what they reported; times are monotonic seconds."""

    operation: Operation
    revision: Revision
    offline: frozenset[HostName]
    waiting: set[HostName]
    opened_s: float
    deadline_s: float
    repeated: Counter[HostName] = field(default_factory=Counter)
    applied: dict[HostName, int] = field(default_factory=dict)  # ms after the commit
    failed: dict[HostName, str] = field(default_factory=dict)

    def applied_on(self, hosts: set[HostName], now_s: float) -> None:
        """Takes note that ``hosts`` applied it, which outweighs an earlier failure."""
        self.waiting -= hosts
        if self.failed:
            self.failed = {host: error for host, error in self.failed.items() if host not in hosts}
        self.applied |= dict.fromkeys(hosts, round((now_s - self.opened_s) * 1000))

    def hear_error(self, hosts: set[HostName], error: str, before: Mapping[HostName, str]) -> None:
        """Decides whether an error that hosts report is a failure of this revision, which reports do not say.

        A new error is. One that they reported ``before``, too, may be about something else (a refused instance) while
        the host still works on this revision; it counts when it has been reported several times.
        """
        self.repeated.update(hosts)
        for host in hosts:
            if error != before.get(host) or self.repeated[host] >= _REPEATED_AT_LEAST:
                self.waiting.discard(host)
                self.failed[host] = error[:_MAX_ERROR]


class PendingOperations:
    """The operations that wait for hosts. ``report`` and ``expire`` return those that they have ended."""

    def __init__(self) -> None:
        self._pending: dict[OperationId, Pending] = {}  # in the order in which they were opened
        self._heard: dict[OperationId, Pending] = {}  # the newest of them, ended ones too
        self._of_host: dict[HostName, tuple[Pending, ...]] = {}  # for its reports; in the order of revisions

    def track(self, stored: StoredOperation, *, opened_s: float, deadline_s: float) -> None:
        """Waits from ``opened_s`` for the hosts to apply the operation's revision, until ``deadline_s``.

        Operations come in the order of their revisions.
        """
        operation = stored.operation
        if operation.state is OperationState.PENDING and operation.revision is not None:
            waiting = set(stored.awaited)
            pending = Pending(operation, operation.revision, stored.offline, waiting, opened_s, deadline_s)
            self._pending[operation.id] = self._heard[operation.id] = pending
            if len(self._heard) > _MOST_HEARD:
                del self._heard[next(iter(self._heard))]
            busy, alone = waiting & self._of_host.keys(), (pending,)
            for asked, alike in self._asked_alike(busy):
                self._of_host |= dict.fromkeys(alike, asked + alone)
            self._of_host |= dict.fromkeys(waiting - busy, alone)

    def heard(self, id_: OperationId) -> Pending | None:
        """What hosts reported on an operation while it was pending; None if it waited for none, or is too old."""
        return self._heard.get(id_)

    def report(
        self, hosts: Iterable[HostName], said: Said, before: Mapping[HostName, str], *, offered: Revision, now_s: float
    ) -> list[Operation]:
        """Takes in what ``hosts`` enforce and what is wrong; ``before`` has the errors that they reported last.

        ``offered`` is the newest revision that they were sent: an error says nothing about later ones. O(operations
        concerned), once for all hosts that are waited for by the same operations.
        """
        applied, error = said
        heard: list[Pending] = []
        for asked, alike in self._asked_alike(hosts):
            known = 0 if applied is None else bisect_right(asked, applied, key=_revision_of)
            for pending in asked[:known]:
                pending.applied_on(alike, now_s)
            told = known if error is None else bisect_right(asked, offered, lo=known, key=_revision_of)
            if error is not None:
                for pending in asked[known:told]:
                    pending.hear_error(alike, error, before)
            if known:
                self._ask_only(alike, asked[known:])
            heard += asked[:told]
        over = {pending.operation.id: pending for pending in heard if not pending.waiting}
        return self._take(list(over.values()), _answered)

    def _asked_alike(self, hosts: Iterable[HostName]) -> list[tuple[tuple[Pending, ...], set[HostName]]]:
        """The hosts that are waited for, grouped by the operations that do: after a large change, most are alike."""
        alike: dict[int, tuple[tuple[Pending, ...], set[HostName]]] = {}
        for host in hosts:
            if asked := self._of_host.get(host):
                alike.setdefault(id(asked), (asked, set()))[1].add(host)
        return list(alike.values())

    def forget(self, id_: OperationId) -> None:
        """Drops an operation that another server ended."""
        if pending := self._pending.get(id_):
            self._take([pending], lambda pending: pending.operation)

    def expire(self, now_s: float, errors: Errors) -> list[Operation]:
        """Ends the operations whose deadline has passed; ``errors`` has what silent hosts last reported."""
        over = [one for one in self._pending.values() if now_s >= one.deadline_s]
        return self._take(over, lambda pending: _expired(pending, errors(pending.waiting)))

    def _take(self, over: list[Pending], end: Callable[[Pending], Operation]) -> list[Operation]:
        """Removes the operations that are ``over``, and returns them as ``end`` makes them."""
        for pending in over:
            del self._pending[pending.operation.id]
        ended = set(map(id, over))
        for asked, alike in self._asked_alike({host for one in over for host in one.waiting | one.failed.keys()}):
            self._ask_only(alike, tuple(one for one in asked if id(one) not in ended))
        return [end(pending) for pending in over]

    def _ask_only(self, hosts: set[HostName], left: tuple[Pending, ...]) -> None:
        if left:
            self._of_host |= dict.fromkeys(hosts, left)
        else:
            for host in hosts:
                self._of_host.pop(host, None)


def _revision_of(pending: Pending) -> Revision:
    return pending.revision


def _answered(pending: Pending) -> Operation:
    """The end of an operation whose hosts have all answered."""
    if not pending.failed:
        message = f"enforced; {_offline_text(pending.offline)}" if pending.offline else None
        return replace(pending.operation, state=OperationState.SUCCESS, message=message)
    reason = OperationReason.PARTIAL if pending.applied else OperationReason.FAULT
    return replace(pending.operation, state=OperationState.FAILURE, reason=reason, message=_failed_text(pending))


def _expired(pending: Pending, errors: Mapping[HostName, str]) -> Operation:
    """The end of an operation that some host did not answer in time: a failure if another host failed."""
    silent = f"not enforced in time on {name_some(_silent_names(pending, errors))}"
    if pending.failed:
        reason = OperationReason.PARTIAL if pending.applied else OperationReason.FAULT
        message = f"{_failed_text(pending)}; {silent}"
        return replace(pending.operation, state=OperationState.FAILURE, reason=reason, message=message)
    reason = OperationReason.PARTIAL if pending.applied else OperationReason.UNAVAILABLE
    enforced = f"enforced on {name_some(pending.applied)}; " if pending.applied else ""
    message = f"{enforced}{silent}: see ringfence host status"
    return replace(pending.operation, state=OperationState.TIMEOUT, reason=reason, message=message)


def _failed_text(pending: Pending) -> str:
    failures = "; ".join(f"{host}: {error}" for host, error in sorted(pending.failed.items()))
    return f"{failures} (enforced on {name_some(pending.applied)})" if pending.applied else failures


def _silent_names(pending: Pending, errors: Mapping[HostName, str]) -> list[str]:
    """The hosts that did not answer in time, each with its last error."""
    return [f"{host} ({errors[host][:_MAX_ERROR]})" if host in errors else host for host in pending.waiting]


def _offline_text(offline: frozenset[HostName]) -> str | None:
    return f"offline, to enforce it on return: {name_some(offline)}" if offline else None
