"""What the store is asked to write in one transaction, and what it returns after the commit.

A ``Decide`` is a pure function of the newest snapshot. It returns a ``Decision``, or refuses by an exception, which
only its own caller gets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from ringfence.nft.foreign import ForeignChain
from ringfence.policy.facts import Fact
from ringfence.policy.local import Failsafe
from ringfence.policy.lockout import Connection
from ringfence.policy.model import Operation
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import GroupId, HostName, KeyId, OrganisationId, Revision

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_NONE: Final = Revision(0)


class AuditLine(NamedTuple):  # as Decision
    """Who did what from where; the store adds the revisions before and after and whether anything changed."""

    organisation: OrganisationId
    at: int  # seconds since the epoch
    actor: str
    action: str
    subject: str
    address: str | None = None
    request_id: str | None = None
    actor_name: str | None = None  # what the actor's key is called


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key with its secrets in clear; on disk they are sealed.

    ``scope``: the groups that it may change, None for all. ``previous``: the secret before the last rotation, which is
    accepted until ``previous_until`` (seconds since the epoch).
    """

    id: KeyId
    organisation: OrganisationId
    name: str | None
    role: str
    secret: str
    created_at: int
    scope: frozenset[GroupId] | None = None
    previous: str | None = None
    previous_until: int | None = None

    def __repr__(self) -> str:
        return f"StoredKey(id={self.id!r}, role={self.role!r})"  # a secret never reaches a log


@dataclass(frozen=True, slots=True)
class KeyCreated:
    key: StoredKey


@dataclass(frozen=True, slots=True)
class KeyRotated:
    """``key`` as it is after its rotation."""

    key: StoredKey


@dataclass(frozen=True, slots=True)
class KeyRevoked:
    key: KeyId


@dataclass(frozen=True, slots=True)
class OperationSettled:
    """A pending operation has ended."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class Tidied:
    """Deletes what has run out: old secrets whose overlap has ended by ``now``, and history before ``history_before``.

    Both in seconds since the epoch; None keeps all history.
    """

    now: int
    history_before: int | None


@dataclass(frozen=True, slots=True)
class HostSaid:
    """What a host reported last. ``channel``: its agent's connection, if a change of the policy could cut it."""

    applied: Revision | None = None
    error: str | None = None
    notice: str | None = None
    offered: Revision = _NONE  # the newest revision that it was sent
    foreign: tuple[ForeignChain, ...] | None = None
    failsafe: tuple[Failsafe, ...] | None = None
    channel: Connection | None = None


@dataclass(frozen=True, slots=True)
class HostsSeen:
    """What hosts that are connected to a server all reported alike, at most ``ago_s`` before it is passed on."""

    hosts: tuple[HostName, ...]
    ago_s: float
    said: HostSaid


Record = (
    KeyCreated | KeyRotated | KeyRevoked | OperationSettled | Tidied
)  # stored, but not part of the policy, so it makes no revision


class Decision(NamedTuple, Generic[T_co]):  # as the next one, made for every change: a third of a dataclass's time
    """What to write. ``after`` is ``apply_facts(snapshot, facts)`` at ``next_revision(snapshot)``, None without facts.

    ``touched``: the hosts whose view changes with this revision. The ``operation`` has the same hosts, and waits for
    all but those that are ``offline``.
    """

    result: T_co
    facts: tuple[Fact, ...] = ()
    after: Snapshot | None = None
    touched: frozenset[HostName] = frozenset()
    operation: Operation | None = None
    offline: frozenset[HostName] = frozenset()
    records: tuple[Record, ...] = ()
    audit: AuditLine | None = None
    seen: tuple[HostsSeen, ...] = ()  # for the other servers of a shared database; stored in no row


Decide = Callable[[Snapshot], Decision[T]]


class Committed(NamedTuple, Generic[T_co]):
    """A decision that is on stable storage, and the snapshot right after it."""

    decision: Decision[T_co]
    snapshot: Snapshot

    @property
    def result(self) -> T_co:
        return self.decision.result


def next_revision(snapshot: Snapshot) -> Revision:
    """The revision that the next change of ``snapshot`` makes."""
    return Revision(snapshot.revision + 1)
