"""What the server does by itself when the time has come: rules that are to last for a time are deleted.

Lives in the event loop's thread. The state says what is due, so nothing is forgotten by a restart; of several servers
of one database the first to commit does it, for each decides over the newest state.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from ringfence.control.actor import Actor, operator_of
from ringfence.control.use_cases import Changed, Wish
from ringfence.policy.errors import NotFound, RingfenceError
from ringfence.policy.facts import Fact, RuleDeleted
from ringfence.policy.index import due_rules
from ringfence.policy.model import Snapshot
from ringfence.policy.values import OrganisationId

EXPIRED: Final = "RuleExpired"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """``change`` commits a wish; ``now_s`` is the time of day, because deadlines outlive the process."""

    snapshot: Callable[[], Snapshot]
    change: Callable[[Wish, Actor], Awaitable[Changed]]
    now_s: Callable[[], int]

    async def meet(self) -> None:
        """Does what is due by now; what cannot be written is tried again."""
        now_s = self.now_s()
        for organisation in {group.organisation for group, _ in due_rules(self.snapshot(), now_s)}:
            try:
                await self.change(_expiry(organisation, now_s), operator_of(organisation))
            except NotFound:
                continue  # another server was first
            except RingfenceError as error:
                _log.warning("rules whose time is up are still there: %s", error)


def _expiry(organisation: OrganisationId, now_s: int) -> Wish:
    def decide(snapshot: Snapshot) -> tuple[Fact, ...]:
        due = [(group, rule) for group, rule in due_rules(snapshot, now_s) if group.organisation == organisation]
        if not due:
            raise NotFound("no rule is due")
        return tuple(RuleDeleted(group.id, rule.id) for group, rule in due)

    return Wish(
        decide,
        lambda snapshot: next(
            group.id for group, _ in due_rules(snapshot, now_s) if group.organisation == organisation
        ),
        EXPIRED,
        "",
        is_due=True,
    )
