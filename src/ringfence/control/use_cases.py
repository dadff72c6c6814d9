"""Each use case as one decision for the store, with its facts, operation and audit line together.

Input: what is asked, by whom, when. Output: functions of a snapshot, which run in the writer's thread.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

from ringfence.control.actor import Actor, operator_of
from ringfence.control.commits import Foreign, Outcome, advance
from ringfence.control.decide_claims import decide_claim
from ringfence.control.hosts import Presence, decide_add_host, decide_invite, decide_join, decide_remove_host
from ringfence.control.keys import ApiKey, KeyRing, KeysChanged, stored_form
from ringfence.control.operations import open_operation
from ringfence.control.organisations import decide_found
from ringfence.control.views import ViewCache
from ringfence.policy.commands import ClaimInstances
from ringfence.policy.errors import NotFound
from ringfence.policy.fact_words import describe_facts
from ringfence.policy.facts import Fact, HostJoined, HostRemoved, apply_facts
from ringfence.policy.model import Host, Operation, OperationState
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import GroupId, HostName, InstanceId, KeyId, OperationId, OrganisationId
from ringfence.store import (
    AuditLine,
    Decide,
    Decision,
    Followed,
    HostsSeen,
    KeyCreated,
    KeyRevoked,
    KeyRotated,
    OperationSettled,
    StoredKey,
    StoredOperation,
    next_revision,
)
from ringfence.wire.feed import Claimed
from ringfence.wire.join import JoinRequest

_FIRST: Final = "default"  # the name of the first organisation
_TOLD_AT_MOST: Final = 20  # sentences about what a change did, in its line of the history


class Asked(NamedTuple):  # as Decision
    """Who asks, and when: seconds since the epoch, and monotonic ones."""

    actor: Actor
    now_s: int
    monotonic_s: float

    def audit(self, action: str, subject: str) -> AuditLine:
        actor = self.actor
        return AuditLine(
            organisation=actor.organisation,
            at=self.now_s,
            actor=actor.name,
            action=action,
            subject=subject,
            address=actor.address,
            request_id=actor.request_id,
            actor_name=actor.label,
        )


class Wish(NamedTuple):  # as Decision
    """A change to decide and commit, with its action and subject in the history; its operation refers to ``group``.

    ``is_due``: the server makes it because its time has come, so no assertion refuses it. ``guard`` may refuse the step
    between two snapshots, if a host has to enforce something else, and ``require`` the snapshot that results.
    """

    decide: Callable[[Snapshot], tuple[Fact, ...]]
    group: Callable[[Snapshot], GroupId]
    action: str
    subject: str
    is_due: bool = False
    guard: Callable[[Snapshot, Snapshot], None] = lambda _, __: None
    require: Callable[[Snapshot], None] = lambda _: None


class Changed(NamedTuple):  # as Decision
    """The result of a wish: its operation, and what it did in words."""

    operation: Operation
    did: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """A change that was tried: the snapshots before and after it (the same when nothing changes), and the facts."""

    before: Snapshot
    after: Snapshot
    facts: tuple[Fact, ...]


class UseCases:
    """Builds decisions; owns the cache of views."""

    def __init__(self, cache: ViewCache, presence: Presence) -> None:
        self._cache = cache
        self._presence = presence
        self._followed_keys: tuple[StoredKey, ...] | None = None  # as another server left them last

    def change(self, wish: Wish, asked: Asked, operation_id: OperationId) -> Decide[Outcome[Changed]]:
        """A change that a caller wants, with its operation."""

        def decision(snapshot: Snapshot) -> "Decision[Outcome[Changed]]":  # as in Commits.run
            facts = wish.decide(snapshot)
            held_by = None if wish.is_due else asked.actor.organisation
            after, change = advance(self._cache, snapshot, facts, held_by=held_by)
            wish.require(after or snapshot)
            touched = _shared(frozenset(change.touched)) if change else frozenset[HostName]()
            if after is not None and touched:
                wish.guard(snapshot, after)
            offline = self._presence.offline(touched, asked.monotonic_s)
            operation = Operation(
                id=operation_id,
                organisation=asked.actor.organisation,
                group=wish.group(snapshot),
                revision=after.revision if after else None,
                state=OperationState.PENDING,
                hosts=touched,
                created_at=asked.now_s,
            )
            opened = StoredOperation(open_operation(operation, offline), offline)
            did = describe_facts(snapshot, after, facts) if after else ()
            return Decision(
                Outcome(Changed(opened.operation, did), change, opened),
                facts=facts,
                after=after,
                touched=touched,
                operation=opened.operation,
                offline=offline,
                audit=asked.audit(wish.action, _subject_with(wish.subject, did)),
            )

        return decision

    def claim(
        self, command: ClaimInstances, host: HostName, asked: Asked, new_ids: Sequence[InstanceId]
    ) -> Decide[Outcome[Claimed]]:
        """A host's inventory. One that changes nothing is not recorded: hosts send theirs with every connection."""

        def decision(snapshot: Snapshot) -> Decision[Outcome[Claimed]]:
            if host not in snapshot.hosts:
                raise NotFound(f"host {host} was removed")
            decided = decide_claim(snapshot, command, snapshot.hosts[host], new_ids=new_ids, now_s=asked.now_s)
            after, change = advance(self._cache, snapshot, decided.facts)
            views = change.views if change else self._cache.views_of(snapshot)
            claimed = Claimed(decided.accepted, decided.refused, views[host].revision)
            return Decision(
                Outcome(claimed, change),
                facts=decided.facts,
                after=after,
                touched=frozenset(change.touched) if change else frozenset(),
                audit=asked.audit("ClaimInstances", _claim_subject(claimed)) if after else None,
            )

        return decision

    def add_host(self, host: Host, asked: Asked) -> Decide[Outcome[Host]]:
        def decision(snapshot: Snapshot) -> Decision[Outcome[Host]]:
            facts = decide_add_host(snapshot, host)
            after, change = advance(self._cache, snapshot, facts)
            return Decision(
                Outcome(host, change), facts=facts, after=after, audit=asked.audit("AddHost", f"host {host.name}")
            )

        return decision

    def invite_host(self, host: Host, asked: Asked) -> Decide[Outcome[None]]:
        """A token for a host; the audit line has the host's name and nothing of the token."""

        def decision(snapshot: Snapshot) -> Decision[Outcome[None]]:
            facts = decide_invite(snapshot, host)
            after, change = advance(self._cache, snapshot, facts)
            audit = asked.audit("InviteHost", f"host {host.name}")
            return Decision(Outcome(None, change), facts=facts, after=after, audit=audit)

        return decision

    def join_host(self, request: JoinRequest, asked: Asked) -> Decide[Outcome[None]]:
        """A host's own key; the holder of an earlier key is no longer the host."""

        def decision(snapshot: Snapshot) -> Decision[Outcome[None]]:
            facts = decide_join(snapshot, request, asked.now_s)
            after, change = advance(self._cache, snapshot, facts)
            outcome = Outcome(None, change, rekeyed=request.host if facts else None)
            audit = asked.audit("JoinHost", f"host {request.host}")
            return Decision(outcome, facts=facts, after=after, audit=audit)

        return decision

    def remove_host(self, name: HostName, asked: Asked) -> Decide[Outcome[None]]:
        """Removes a host; hosts whose rules name groups of its instances enforce that their addresses are gone."""

        def decision(snapshot: Snapshot) -> Decision[Outcome[None]]:
            facts = decide_remove_host(snapshot, name)
            after, change = advance(self._cache, snapshot, facts)
            return Decision(
                Outcome(None, change, removed=name),
                facts=facts,
                after=after,
                touched=frozenset(change.touched) if change else frozenset(),
                audit=asked.audit("RemoveHost", f"host {name}"),
            )

        return decision

    def followed(self, followed: Followed) -> Outcome[None]:
        """The outcome, on this server, of a decision that another server has made."""
        entry, opened = followed.entry, None
        if followed.keys is not None:
            self._followed_keys = followed.keys
        change = self._cache.change(followed.before, followed.after, entry.facts) if entry.facts else None
        if entry.operation is not None:
            touched = _shared(frozenset(change.touched)) if change else frozenset[HostName]()
            opened = StoredOperation(replace(entry.operation, hosts=touched), entry.offline)
        return Outcome(
            None,
            change,
            opened,
            removed=next((fact.host for fact in entry.facts if isinstance(fact, HostRemoved)), None),
            rekeyed=next((fact.host for fact in entry.facts if isinstance(fact, HostJoined)), None),
            foreign=Foreign(entry.settled, followed.keys, entry.seen),
        )

    def create_key(self, key: ApiKey, asked: Asked, keys: KeyRing) -> Decide[Outcome[None]]:
        """A key, for which ``keys`` have room now; its secret goes to the store and nowhere else."""
        seen = keys.followed
        audit = asked.audit("CreateKey", f"{key.id} role {key.role.value}")

        def decision(snapshot: Snapshot) -> Decision[Outcome[None]]:
            if key.organisation not in snapshot.organisations:
                raise NotFound("the organisation was removed")
            self._require_same(seen)
            return Decision(Outcome(None), records=(KeyCreated(stored_form(key)),), audit=audit)

        return decision

    def rotate_key(self, key: ApiKey, asked: Asked, keys: KeyRing) -> Decide[Outcome[None]]:
        """A key with its new secret, and the one that it has in ``keys`` now."""
        seen = keys.followed
        until = f", the old secret until {key.previous_until}" if key.previous_until else ""
        audit = asked.audit("RotateKey", f"{key.id}{until}")

        def decision(_: Snapshot) -> Decision[Outcome[None]]:
            self._require_same(seen)
            return Decision(Outcome(None), records=(KeyRotated(stored_form(key)),), audit=audit)

        return decision

    def _require_same(self, seen: tuple[StoredKey, ...] | None) -> None:
        if self._followed_keys is not seen:
            raise KeysChanged("another server changes keys at the same time: try again")

    def revoke_key(self, id_: KeyId, asked: Asked) -> Decide[Outcome[None]]:
        """The end of a key."""
        audit = asked.audit("RevokeKey", id_)
        return lambda _: Decision(Outcome(None, revoked=(id_,)), records=(KeyRevoked(id_),), audit=audit)

    def change_organisation(
        self,
        asked: Asked,
        action: str,
        subject: str,
        decide_facts: Callable[[Snapshot], tuple[Fact, ...]],
        *,
        revoked: tuple[KeyId, ...] = (),
    ) -> Decide[Outcome[None]]:
        """An operator's change of an organisation, by which no host has to enforce anything else."""

        def decision(snapshot: Snapshot) -> Decision[Outcome[None]]:
            facts = decide_facts(snapshot)
            after, change = advance(self._cache, snapshot, facts)
            audit = asked.audit(action, subject)
            return Decision(Outcome(None, change, revoked=revoked), facts=facts, after=after, audit=audit)

        return decision


def attempt(decide: Callable[[Snapshot], tuple[Fact, ...]]) -> Decide[Outcome[Tried]]:
    """Tries ``decide`` where changes are decided, without keeping anything of it."""

    def decision(snapshot: Snapshot) -> Decision[Outcome[Tried]]:
        facts = decide(snapshot)
        after = apply_facts(snapshot, facts, revision=next_revision(snapshot)) if facts else snapshot
        return Decision(Outcome(Tried(snapshot, after, facts)))

    return decision


def tell_seen(seen: tuple[HostsSeen, ...]) -> Decide[Outcome[None]]:
    """Tells the other servers what this one heard from its hosts."""
    return lambda _: Decision(Outcome(None), seen=seen)


def save_ends(ended: Iterable[Operation]) -> Decide[Outcome[None]]:
    """Saves how operations ended, without an audit line, for nobody asked for it."""
    records = tuple(OperationSettled(operation) for operation in ended)
    return lambda _: Decision(Outcome(None), records=records)


def found_organisation(organisation_id: UUID, group_id: UUID, now_s: int) -> Decide[None]:
    """The content of a new store: one organisation, and its group ``default`` without rules."""
    id_ = OrganisationId(organisation_id)
    asked = Asked(operator_of(id_), now_s, 0.0)

    def decision(snapshot: Snapshot) -> Decision[None]:
        facts = decide_found(snapshot, _FIRST, id_, GroupId(group_id))
        after = apply_facts(snapshot, facts, revision=next_revision(snapshot))
        return Decision(None, facts=facts, after=after, audit=asked.audit("CreateOrganisation", _FIRST))

    return decision


@lru_cache(maxsize=32)
def _shared(hosts: frozenset[HostName]) -> frozenset[HostName]:
    """One object for equal sets: thousands of operations are kept, and many touch the same hosts."""
    return hosts


def _subject_with(subject: str, did: tuple[str, ...]) -> str:
    more = len(did) - _TOLD_AT_MOST
    told = (*did[:_TOLD_AT_MOST], f"{more} more") if more > 0 else did
    return ": ".join(part for part in (subject, "; ".join(told)) if part)


def _claim_subject(claimed: Claimed) -> str:
    accepted = ", ".join(f"{name} {id_}" for name, id_ in claimed.accepted) or "none"
    refused = "; refused: " + ", ".join(name for name, _ in claimed.refused) if claimed.refused else ""
    return f"instances: {accepted}{refused}"
