"""Past revisions: how two of them differ, going back to one, confirming a change on trial.

Lives in the event loop's thread. What undoes each revision is read from the store, in another thread.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from ringfence.control.actor import Actor
from ringfence.control.trials import (
    CONFIRMED,
    TAKEN_BACK,
    back_to,
    confirmed,
    decide_confirm,
    fate_of_trial,
    taken_back,
)
from ringfence.control.use_cases import Changed, Wish
from ringfence.policy.errors import Busy, NotFound
from ringfence.policy.fact_words import describe_facts
from ringfence.policy.facts import Fact, RuleAdded
from ringfence.policy.snapshot import Snapshot, forked
from ringfence.policy.undo import policy_difference, rewind
from ringfence.policy.values import OrganisationId
from ringfence.store import HistoryQuery, Store

T = TypeVar("T")

_TRIES: Final = 5  # to read and decide without a change in between


@dataclass(frozen=True, slots=True)
class Past:
    """``change`` commits a wish, ``now_s`` is the time of day."""

    store: Store
    change: Callable[[Wish, Actor], Awaitable[Changed]]
    now_s: Callable[[], int]

    async def undo(self, organisation: OrganisationId, after: int, until: int) -> tuple[Fact, ...]:
        """What undoes the organisation's revisions above ``after`` up to ``until``; ``NotFound`` if not kept."""
        return await asyncio.to_thread(self.store.read_undo, organisation, after, until)

    async def difference(self, organisation: OrganisationId, old: int, new: int) -> tuple[str, ...]:
        """The changes that turn the organisation's policy at revision ``old`` into that at ``new``, in words.

        Raises:
            NotFound: there is no such revision, or what undoes later ones is not kept.
        """
        snapshot = self.store.snapshot
        _require_revisions(snapshot, old, new)
        older, newer = sorted((old, new))
        late = await self.undo(organisation, newer, snapshot.revision)
        early = await self.undo(organisation, older, newer)

        def compared() -> tuple[str, ...]:
            after = rewind(forked(snapshot), late)
            before = rewind(after, early)
            states = (before, after) if old <= new else (after, before)
            return describe_facts(*states, policy_difference(*states, organisation))

        return await asyncio.to_thread(compared)

    async def confirm(self, revision: int, actor: Actor) -> None:
        """Confirms the change on trial that made ``revision``; ``NotFound`` tells what became of it otherwise."""
        wish = Wish(
            lambda snapshot: decide_confirm(snapshot, actor.organisation, revision),
            lambda snapshot: snapshot.organisations[actor.organisation].default_group,
            CONFIRMED,
            confirmed(revision),
        )
        try:
            await self.change(wish, actor)
        except NotFound:
            _require_revisions(self.store.snapshot, revision)
            query = HistoryQuery(organisation=actor.organisation, newest=True)
            lines = await asyncio.to_thread(self.store.read_history, query)
            fate = fate_of_trial(lines, revision)
            if fate is None:
                raise
            raise NotFound(fate) from None

    async def back(self, revision: int, organisation: OrganisationId, do: Callable[[Wish], Awaitable[T]]) -> T:
        """Runs ``do`` with the wish that makes the organisation's policy what it was at ``revision``.

        Raises:
            NotFound: there is no such revision, or what undoes later ones is not kept.
            Conflict: another organisation uses what would have to go.
            Busy: others kept changing the policy meanwhile; nothing was done.
        """
        for _ in range(_TRIES):
            snapshot = self.store.snapshot
            _require_revisions(snapshot, revision)
            undo = await self.undo(organisation, revision, snapshot.revision)
            try:
                return await do(self._back(organisation, revision, snapshot, undo))
            except _Overtaken:
                continue
        raise Busy("nothing was applied, because the policy is being changed all the time: try again")

    def _back(self, organisation: OrganisationId, revision: int, seen: Snapshot, undo: tuple[Fact, ...]) -> Wish:
        now_s = self.now_s()

        def decide(snapshot: Snapshot) -> tuple[Fact, ...]:
            if snapshot.revision != seen.revision:
                raise _Overtaken("the policy has changed meanwhile")
            found = policy_difference(snapshot, rewind(snapshot, undo), organisation)
            facts = tuple(fact for fact in found if not _is_over(fact, now_s))
            return (*facts, *taken_back(snapshot, organisation, revision))

        return Wish(
            decide,
            lambda snapshot: snapshot.organisations[organisation].default_group,
            TAKEN_BACK,
            back_to(revision),
        )


class _Overtaken(Busy):
    """Another change was committed between reading and deciding."""


def _is_over(fact: Fact, now_s: int) -> bool:
    """Whether it would restore a rule that has expired."""
    return isinstance(fact, RuleAdded) and fact.rule.expires_at is not None and fact.rule.expires_at <= now_s


def _require_revisions(snapshot: Snapshot, *revisions: int) -> None:
    for revision in revisions:
        if not 0 <= revision <= snapshot.revision:
            raise NotFound(f"there is no revision {revision}: the newest is {snapshot.revision}")
