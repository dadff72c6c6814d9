"""The assertions that an organisation holds: the operator sets them, and no change of its groups may break them. Pure.

A host's inventory is never refused for them: it states what is so, and ``ringfence check`` shows the consequences.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ringfence.policy.errors import Conflict, Invalid
from ringfence.policy.facts import AssertionsSet, Fact
from ringfence.policy.insight.assertions import Assertion, Witness, parse_assertions
from ringfence.policy.insight.held import decide, find_broken
from ringfence.policy.insight.portray import portray_witness
from ringfence.policy.model import Organisation
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import OrganisationId

MOST: Final = 1000


def require_held(before: Snapshot, after: Snapshot, owner: OrganisationId) -> None:
    """Raises ``Conflict``, naming assertion and packet, when a change breaks an assertion that its organisation holds.

    One that failed before may go on failing, but not for more packets.
    """
    broken = find_broken(before, after, owner)
    if broken is None:
        return
    proof = broken.reason if broken.witness is None else _proof(after, broken.witness, owner)
    raise Conflict(f"the assertion '{broken.assertion}' must hold, and after this it would not: {proof}")


def decide_hold(
    snapshot: Snapshot, organisation: Organisation, texts: Sequence[str], *, accept_failing: bool
) -> tuple[Fact, ...]:
    """Replaces the assertions that are held, by none at all if ``texts`` is empty; no facts when they are the same.

    Raises:
        Invalid, NotFound: a text is no assertion, or names something unknown; by its place in ``$.assertions``.
        Conflict: one does not hold at present, and ``accept_failing`` is False.
    """
    if len(texts) > MOST:
        raise Invalid(f"expected at most {MOST}, got {len(texts)}", field="$.assertions")
    for assertion, witness in _decided(snapshot, texts, organisation.id):
        if witness is not None and not accept_failing:
            proof = _proof(snapshot, witness, organisation.id)
            raise Conflict(f"nothing is set, for the assertion '{assertion}' does not hold: {proof}")
    held = tuple(text.strip() for text in texts)
    return () if held == organisation.assertions else (AssertionsSet(organisation.id, held),)


def require_true(after: Snapshot, texts: Iterable[str], owner: OrganisationId) -> None:
    """Raises ``Conflict``, naming assertion and packet, when an assertion does not hold after a change.

    ``Invalid`` and ``NotFound`` as ``decide_hold``.
    """
    for assertion, witness in _decided(after, texts, owner):
        if witness is not None:
            proof = _proof(after, witness, owner)
            raise Conflict(f"nothing is changed, for after it the assertion '{assertion}' would not hold: {proof}")


def _decided(
    snapshot: Snapshot, texts: Iterable[str], owner: OrganisationId
) -> Iterator[tuple[Assertion, Witness | None]]:
    return ((assertion, decide(snapshot, assertion, owner)) for assertion in parse_assertions(texts))


def _proof(snapshot: Snapshot, witness: Witness, owner: OrganisationId) -> str:
    return "; ".join(portray_witness(snapshot, witness, owner=owner))
