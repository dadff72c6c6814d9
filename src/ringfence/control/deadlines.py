"""What the server does by itself when it is due: deletes expired rules, and undoes changes that nobody confirmed.

Lives in the event loop's thread. The snapshot says what is due, so a restart forgets nothing; of several servers of one
database the first to commit does it, for each decides over the newest snapshot.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from ringfence.control.actor import Actor, operator_of
from ringfence.control.past import Past
from ringfence.control.trials import UNDONE, unconfirmed
from ringfence.control.use_cases import Changed, Wish
from ringfence.policy.errors import NotFound, RingfenceError
from ringfence.policy.facts import Fact, RuleDeleted, TrialEnded
from ringfence.policy.model import Trial
from ringfence.policy.snapshot import Snapshot, expiring_rules
from ringfence.policy.undo import still_undone
from ringfence.policy.values import OrganisationId

EXPIRED: Final = "RuleExpired"

_log = logging.getLogger(__name__)


_What = tuple[object, int]  # an organisation's trial or a rule, and the time of day at which it ends


class _Done(NotFound):
    """It is no longer due: another server was first, or somebody confirmed."""


@dataclass(slots=True)
class Deadlines:
    """``change`` commits a wish. ``now_s`` is the time of day, because deadlines outlive the process.

    ``monotonic_s`` is the monotonic time, by which nothing comes late should the time of day be set back.
    """

    snapshot: Callable[[], Snapshot]
    past: Past
    change: Callable[[Wish, Actor], Awaitable[Changed]]
    now_s: Callable[[], int]
    monotonic_s: Callable[[], float]
    _ends_s: dict[_What, float] = field(default_factory=dict)  # monotonic

    async def meet(self) -> None:
        """Does everything that is due; what fails is tried again at the next call."""
        now_s, snapshot = self.now_s(), self.snapshot()
        trials = [(one.id, one.trial) for one in snapshot.organisations.values() if one.trial is not None]
        rules = [(group.organisation, (rule.id, ends_at)) for group, rule, ends_at in expiring_rules(snapshot)]
        due = self._due([*((id_, trial.ends_at) for id_, trial in trials), *(what for _, what in rules)], now_s)
        for id_, trial in trials:
            if (id_, trial.ends_at) in due:
                await self._attempt(self._undo(id_, trial, now_s))
        for organisation in {organisation for organisation, what in rules if what in due}:
            await self._attempt(self.change(_expiry(organisation, due), operator_of(organisation)))

    def _due(self, known: list[_What], now_s: int) -> frozenset[_What]:
        monotonic_s = self.monotonic_s()
        self._ends_s = {what: self._ends_s.get(what, monotonic_s + what[1] - now_s) for what in known}
        return frozenset(what for what, ends_s in self._ends_s.items() if what[1] <= now_s or ends_s <= monotonic_s)

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

        wish = _due(organisation, decide, UNDONE, unconfirmed(trial.revision))
        await self.change(wish, operator_of(organisation))


def _expiry(organisation: OrganisationId, due: frozenset[_What]) -> Wish:
    def decide(snapshot: Snapshot) -> tuple[Fact, ...]:
        facts = tuple(
            RuleDeleted(group.id, rule.id)
            for group, rule, ends_at in expiring_rules(snapshot)
            if group.organisation == organisation and (rule.id, ends_at) in due
        )
        if not facts:
            raise _Done("no rule is due")
        return facts

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
