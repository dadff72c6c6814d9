"""What the server does by itself when its time has come: it ends rules that expire, and undoes what nobody confirmed.

Lives in the event loop's thread. The state says what is due, so nothing is forgotten by a restart; of several servers
of one database the first to commit does it, for each decides over the newest state.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from ringfence.control.actor import Actor, operator_of
from ringfence.control.past import Past
from ringfence.control.use_cases import Changed, Wish
from ringfence.policy.errors import NotFound, RingfenceError
from ringfence.policy.facts import Fact, RuleDeleted, TrialEnded
from ringfence.policy.index import due_rules
from ringfence.policy.model import Snapshot, Trial
from ringfence.policy.undo import still_undone
from ringfence.policy.values import OrganisationId

EXPIRED: Final = "RuleExpired"
UNDONE: Final = "ChangeUndone"

_log = logging.getLogger(__name__)


class _Done(NotFound):
    """What was due is not any more: another server was first, or somebody confirmed."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """``change`` commits a wish; ``now_s`` is the time of day, because deadlines outlive the process."""

    snapshot: Callable[[], Snapshot]
    past: Past
    change: Callable[[Wish, Actor], Awaitable[Changed]]
    now_s: Callable[[], int]

    async def meet(self) -> None:
        """Does what is due by now; what cannot be done is tried again."""
        now_s, snapshot = self.now_s(), self.snapshot()
        for one in snapshot.organisations.values():
            if one.trial is not None and one.trial.ends_at <= now_s:
                await self._attempt(self._undo(one.id, one.trial, now_s))
        for organisation in {group.organisation for group, _ in due_rules(snapshot, now_s)}:
            await self._attempt(self.change(_expiry(organisation, now_s), operator_of(organisation)))

    async def _attempt(self, deed: Awaitable[object]) -> None:
        try:
            await deed
        except _Done:
            return
        except RingfenceError as error:
            _log.warning("what is due could not be done, it is tried again: %s", error)

    async def _undo(self, organisation: OrganisationId, trial: Trial, now_s: int) -> None:
        undo = await self.past.undo(organisation, trial.revision - 1, trial.revision)

        def decide(snapshot: Snapshot) -> tuple[Fact, ...]:
            if snapshot.organisations[organisation].trial != trial:
                raise _Done("it is not on trial any more")
            return (*still_undone(snapshot, undo, now_s=now_s), TrialEnded(organisation))

        wish = _due(organisation, decide, UNDONE, f"revision {trial.revision} was not confirmed")
        await self.change(wish, operator_of(organisation))


def _expiry(organisation: OrganisationId, now_s: int) -> Wish:
    def decide(snapshot: Snapshot) -> tuple[Fact, ...]:
        due = [(group, rule) for group, rule in due_rules(snapshot, now_s) if group.organisation == organisation]
        if not due:
            raise _Done("no rule is due")
        return tuple(RuleDeleted(group.id, rule.id) for group, rule in due)

    return _due(organisation, decide, EXPIRED, "")


def _due(
    organisation: OrganisationId, decide: Callable[[Snapshot], tuple[Fact, ...]], action: str, subject: str
) -> Wish:
    return Wish(
        decide,
        lambda snapshot: snapshot.organisations[organisation].default_group,
        action,
        subject,
        is_due=True,
    )
