"""Changes on trial, which are undone when their time is up unless somebody confirms them. Pure.

An organisation has one at a time, so that undoing one never interferes with another.
"""

from collections.abc import Iterable
from typing import Final

from ringfence.policy.errors import Conflict, NotFound
from ringfence.policy.facts import Fact, TrialBegun, TrialEnded
from ringfence.policy.model import Trial
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import OrganisationId
from ringfence.policy.wording import moment_words
from ringfence.store import HistoryLine, next_revision

CONFIRMED: Final = "Confirm"
UNDONE: Final = "ChangeUndone"
TAKEN_BACK: Final = "Rollback"

_BACK_TO: Final = "to revision "


def on_trial(
    snapshot: Snapshot, facts: tuple[Fact, ...], organisation: OrganisationId, *, ends_at: int
) -> tuple[Fact, ...]:
    """The facts of a change that is undone at ``ends_at`` (seconds since 1970). No facts need no trial.

    Raises:
        Conflict: another change of the organisation waits to be confirmed.
    """
    waiting = snapshot.organisations[organisation].trial
    if not facts:
        return ()
    if waiting is not None:
        raise Conflict(
            f"revision {waiting.revision} waits to be confirmed until {moment_words(waiting.ends_at)}: make it stay by "
            f"ringfence confirm {waiting.revision}, or undo it by ringfence rollback {waiting.revision - 1}"
        )
    return (*facts, TrialBegun(organisation, Trial(next_revision(snapshot), ends_at)))


def decide_confirm(snapshot: Snapshot, organisation: OrganisationId, revision: int) -> tuple[Fact, ...]:
    """Ends the trial of ``revision``; raises ``NotFound`` when it is not on trial (any more)."""
    waiting = snapshot.organisations[organisation].trial
    if waiting is None or waiting.revision != revision:
        others = "no other does" if waiting is None else f"revision {waiting.revision} does"
        raise NotFound(f"revision {revision} does not wait to be confirmed, {others}")
    return (TrialEnded(organisation),)


def taken_back(snapshot: Snapshot, organisation: OrganisationId, revision: int) -> tuple[Fact, ...]:
    """Ends the trial of a change that a rollback to ``revision`` undoes; no facts if there is none."""
    waiting = snapshot.organisations[organisation].trial
    return () if waiting is None or waiting.revision <= revision else (TrialEnded(organisation),)


def back_to(revision: int) -> str:
    """The subject of a rollback in the history."""
    return f"{_BACK_TO}{revision}"


def unconfirmed(revision: int) -> str:
    """The subject of an undone change in the history."""
    return f"revision {revision} was not confirmed"


def confirmed(revision: int) -> str:
    """The subject of a confirmed change in the history."""
    return f"revision {revision}"


def fate_of_trial(lines: Iterable[HistoryLine], revision: int) -> str | None:
    """What became of a change that is no longer on trial, by the lines of the history; None if they do not tell."""
    for line in lines:
        subject = line.subject.partition(":")[0]
        if (line.action, subject) == (UNDONE, unconfirmed(revision)):
            return (
                f"revision {revision} was undone at {moment_words(line.at)}, because nobody had confirmed it: "
                "make the change again"
            )
        if (line.action, subject) == (CONFIRMED, confirmed(revision)):
            return f"revision {revision} was confirmed already, at {moment_words(line.at)}: it stays"
        if line.action == TAKEN_BACK and line.revision_before >= revision > int(subject.removeprefix(_BACK_TO)):
            return f"revision {revision} was taken back at {moment_words(line.at)}, by a rollback {subject}"
    return None
