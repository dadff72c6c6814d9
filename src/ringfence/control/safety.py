"""The precautions for a change: whether it must be confirmed, may cut off caller and agents, what must hold after."""

from dataclasses import dataclass
from typing import Final

from ringfence.control.held import require_true
from ringfence.control.trials import on_trial
from ringfence.control.use_cases import Wish
from ringfence.policy.values import OrganisationId


@dataclass(frozen=True, slots=True)
class Safety:
    """``trial_s``: the change is undone after so many seconds, unless somebody confirms it; None: it stays.

    ``force``: it may cut the caller's own connection and agents' channels. ``assertions`` must hold after it.
    """

    trial_s: int | None = None
    force: bool = False
    assertions: tuple[str, ...] = ()


USUAL: Final = Safety()


def careful(wish: Wish, organisation: OrganisationId, safety: Safety, *, now_s: int) -> Wish:
    """The wish with the precautions of ``safety``."""
    if safety.assertions:
        wish = wish._replace(require=lambda after: require_true(after, safety.assertions, organisation))
    if safety.trial_s is None:
        return wish
    ends_at = now_s + safety.trial_s
    return wish._replace(
        decide=lambda snapshot: on_trial(snapshot, wish.decide(snapshot), organisation, ends_at=ends_at)
    )
