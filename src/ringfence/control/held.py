"""Assertions that an organisation holds: set by its operator, kept by every change of its groups. Pure.

What a host says of its instances is never refused: it tells what is so, and ``ringfence check`` shows what follows.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ringfence.policy.errors import Conflict, Invalid
from ringfence.policy.facts import AssertionsSet, Fact
from ringfence.policy.insight.assertions import Assertion, Witness, parse_assertions
from ringfence.policy.insight.held import decide, find_broken
from ringfence.policy.insight.portray import portray_witness
from ringfence.policy.model import Organisation, Snapshot
from ringfence.policy.values import OrganisationId

MOST: Final = 1000


def require_held(before: Snapshot, after: Snapshot, owner: OrganisationId) -> None:
    """Raises ``Conflict``, naming assertion and packet, when a change breaks an assertion that its organisation holds.

    One that was wrong before may stay so, of no more packets than before.
    """
    broken = find_broken(before, after, owner)
    if broken is None:
        return
    proof = broken.reason if broken.witness is None else _proof(after, broken.witness, owner)
    raise Conflict(f"the assertion '{broken.assertion}' must hold, and after this it would not: {proof}")


def decide_hold(
    snapshot: Snapshot, organisation: Organisation, texts: Sequence[str], *, accept_failing: bool
) -> tuple[Fact, ...]:
    """Other assertions in place of those that are held; none ends it. Nothing new when they are the same.

    Raises:
        Invalid, NotFound: one is no assertion, or names nobody; by its place in ``$.assertions``.
        Conflict: one does not hold as it is, and that is not accepted.
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
    """Raises ``Conflict``, naming assertion and packet, when one does not hold after a change that is to make it true.

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
