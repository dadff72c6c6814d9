"""The assertions that an organisation holds: whether a change breaks one, and whether one holds by itself.

A change breaks an assertion when a packet proves it wrong after the change and did not before. An assertion that names
few instances is decided over those alone.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ringfence.policy.errors import CallerError
from ringfence.policy.insight.address_axis import position, span_of
from ringfence.policy.insight.assertions import Assertion, Witness, check, parse_assertion
from ringfence.policy.insight.ends import parse_network
from ringfence.policy.insight.held_change import Change, find_worse_by
from ringfence.policy.insight.meant import is_clear
from ringfence.policy.insight.part import concerns, part_of
from ringfence.policy.insight.reach import Reachability
from ringfence.policy.model import Group, GroupPeer
from ringfence.policy.named import ANY, INTERNET, find_named
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import Direction, InstanceId, Network, OrganisationId

FIELD: Final = "assertion"
_Few = frozenset[InstanceId]


@dataclass(frozen=True, slots=True)
class Broken:
    """A broken assertion, with a proof; or with none and a ``reason``, when it names what the change deletes."""

    assertion: Assertion
    witness: Witness | None
    reason: str = ""


def find_broken(before: Snapshot, after: Snapshot, owner: OrganisationId) -> Broken | None:
    """The first of the owner's assertions that the change from ``before`` to ``after`` breaks; None if none."""
    held = after.organisations[owner].assertions
    change = Change(before, after)
    for text in held:
        if (broken := _breaks(change, parse_held(text), owner)) is not None:
            return broken
    return None


@lru_cache(maxsize=4096)
def parse_held(text: str) -> Assertion:
    """As ``parse_assertion``, cached, for a text that was accepted before."""
    return parse_assertion(text, field=FIELD)


def decide(snapshot: Snapshot, assertion: Assertion, owner: OrganisationId) -> Witness | None:
    """A proof that the assertion is wrong, or None if it holds; as ``check``, without a prepared ``Reachability``."""
    few = narrowed(snapshot, assertion, owner)
    if few is not None:
        witness = check(Reachability(few), assertion, owner=owner).witness
        if witness is None or _is_whole(snapshot, witness):
            return witness
    return check(Reachability(snapshot), assertion, owner=owner).witness


def _breaks(change: Change, assertion: Assertion, owner: OrganisationId) -> Broken | None:
    try:
        witness = find_worse_by(change, assertion, owner)
    except CallerError as error:
        was_clear = is_clear(change.before, assertion, owner)
        return Broken(assertion, None, str(error)) if was_clear else None
    return None if witness is None else Broken(assertion, witness)


def _is_whole(snapshot: Snapshot, witness: Witness) -> bool:
    """Whether no end of the witness is an instance of the whole snapshot that had been left out."""
    ends = ((witness.source, witness.packet.source), (witness.destination, witness.packet.destination))
    return not any(end is None and index_of(snapshot).holding(address) for end, address in ends)


def narrowed(snapshot: Snapshot, assertion: Assertion, owner: OrganisationId) -> Snapshot | None:
    """The part of the snapshot that can make an assertion wrong; None when that is all of it.

    An instance that is left out looks like an address of no instance, which may send anything: a proof with such an
    address has to be checked against the whole. Raises as ``find_named``.
    """
    sources, destinations = (
        _instances_meant(snapshot, text, owner, assertion.field) for text in (assertion.source, assertion.destination)
    )
    if assertion.allow:
        kept = None if sources is None or destinations is None else sources | destinations
    elif sources is not None:
        receivers = _could_receive(snapshot, assertion) if destinations is None else destinations
        kept = sources | receivers
    elif destinations is not None and _has_only_instances(snapshot, assertion.destination, owner):
        kept = destinations | _members_named(snapshot, assertion, destinations)
    else:
        kept = None
    return None if kept is None else part_of(snapshot, assertion, kept, owner)


def _instances_meant(snapshot: Snapshot, text: str, owner: OrganisationId, field: str) -> _Few | None:
    """Every instance that an end means; None for all."""
    if text == ANY:
        return None
    if text == INTERNET:
        return frozenset()
    if (network := parse_network(text, field=field)) is not None:
        return _living_in(snapshot, [network])
    one = find_named(snapshot, text, field=field, owner=owner)
    if not isinstance(one, Group):
        return frozenset([one.id])
    return frozenset(index_of(snapshot).wearers_of(one.id)) | _living_in(snapshot, [s.network for s in one.sources])


def _living_in(snapshot: Snapshot, networks: list[Network]) -> _Few:
    spans = [span_of(network) for network in networks]
    holders = index_of(snapshot).holders if spans else {}
    return frozenset(
        id_
        for address, ids in holders.items()
        if any(first <= position(address) <= last for first, last in spans)
        for id_ in ids
    )


def _has_only_instances(snapshot: Snapshot, text: str, owner: OrganisationId) -> bool:
    if text == INTERNET or parse_network(text, field=FIELD) is not None:
        return False
    one = find_named(snapshot, text, field=FIELD, owner=owner)
    return not (isinstance(one, Group) and one.sources)


def _could_receive(snapshot: Snapshot, assertion: Assertion) -> _Few:
    """The instances with a rule that lets in some of the assertion's services, and the observed ones."""
    index = index_of(snapshot)
    found = {id_ for id_, one in snapshot.instances.items() if one.observe}
    for id_, group in snapshot.groups.items():
        wearers = index.wearers_of(id_)
        if wearers and any(rule.direction is Direction.INGRESS and concerns(rule, assertion) for rule in group.rules):
            found |= wearers
    return frozenset(found)


def _members_named(snapshot: Snapshot, assertion: Assertion, receivers: _Few) -> _Few:
    """The members of the groups that such rules of ``receivers`` name; all instances, if a receiver is observed."""
    if any(snapshot.instances[id_].observe for id_ in receivers):
        return frozenset(snapshot.instances)
    worn = {group for id_ in receivers for group in snapshot.instances[id_].groups}
    rules = [rule for group in worn for rule in snapshot.groups[group].rules if rule.direction is Direction.INGRESS]
    named = {one.peer.group for one in rules if isinstance(one.peer, GroupPeer) and concerns(one, assertion)}
    return frozenset(id_ for group in named for id_ in index_of(snapshot).wearers_of(group))
