"""Assertions that an organisation holds, against a change: the first that the change breaks, or breaks more.

Input: the snapshots before and after a change, and its facts. Most changes concern no assertion, and most that do are
decided over the few instances that an assertion names; only where anybody is meant at both ends the whole is looked at.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from ringfence.policy.addresses import FAMILIES
from ringfence.policy.errors import CallerError
from ringfence.policy.facts import Fact, RuleAdded, RuleDeleted
from ringfence.policy.index import index_of
from ringfence.policy.insight.address_axis import position, span_of
from ringfence.policy.insight.assertions import Assertion, Witness, check, find_worse, parse_assertion
from ringfence.policy.insight.ends import find_named, parse_network
from ringfence.policy.insight.reach import Reachability
from ringfence.policy.insight.services import services_of
from ringfence.policy.model import Group, GroupPeer, Rule, Snapshot
from ringfence.policy.places import ANY, INTERNET
from ringfence.policy.values import Direction, GroupId, InstanceId, Network, OrganisationId

FIELD: Final = "assertion"
_Few = frozenset[InstanceId]


@dataclass(frozen=True, slots=True)
class Broken:
    """``witness`` proves it; without one the assertion names what the change takes away, and ``reason`` says so."""

    assertion: Assertion
    witness: Witness | None
    reason: str = ""


def find_broken(before: Snapshot, after: Snapshot, facts: Iterable[Fact], owner: OrganisationId) -> Broken | None:
    """The first of the owner's assertions that is wrong of a packet of ``after`` and was not of ``before``."""
    held = after.organisations[owner].assertions
    known = tuple(facts) if held else ()
    for text in held:
        assertion = parse_held(text)
        concerned = any(_may_break(before, fact, assertion) for fact in known)
        if concerned and (broken := _breaks(before, after, assertion, owner)) is not None:
            return broken
    return None


@lru_cache(maxsize=4096)
def parse_held(text: str) -> Assertion:
    """As ``parse_assertion``, which took it before."""
    return parse_assertion(text, field=FIELD)


def decide(snapshot: Snapshot, assertion: Assertion, owner: OrganisationId) -> Witness | None:
    """What ``check`` says, of a snapshot that nothing was made ready for; raises as it does."""
    few = narrowed(snapshot, assertion, owner)
    if few is not None:
        witness = check(Reachability(few), assertion, owner=owner).witness
        if witness is None or _is_whole(snapshot, witness):
            return witness
    return check(Reachability(snapshot), assertion, owner=owner).witness


def _breaks(before: Snapshot, after: Snapshot, assertion: Assertion, owner: OrganisationId) -> Broken | None:
    try:
        witness = decide(after, assertion, owner)
    except CallerError as error:
        return Broken(assertion, None, str(error)) if _is_clear(before, assertion, owner) else None
    if witness is None:
        return None
    if _is_clear(before, assertion, owner) and decide(before, assertion, owner) is None:
        return Broken(assertion, witness)
    worse = find_worse(before, after, assertion, owner=owner)
    return None if worse is None else Broken(assertion, worse)


def _is_clear(snapshot: Snapshot, assertion: Assertion, owner: OrganisationId) -> bool:
    """Whether both ends are known by one name."""
    try:
        for text in (assertion.source, assertion.destination):
            _instances_meant(snapshot, text, owner, assertion.field)
    except CallerError:
        return False
    return True


def _may_break(before: Snapshot, fact: Fact, assertion: Assertion) -> bool:
    """Whether a fact could; of rules it is easily seen when not."""
    match fact:
        case RuleAdded(rule=rule):
            return rule.direction is Direction.EGRESS or (not assertion.allow and _concerns(rule, assertion))
        case RuleDeleted(group, id_):
            rule = next(one for one in before.groups[group].rules if one.id == id_)
            return rule.direction is Direction.EGRESS or (assertion.allow and _concerns(rule, assertion))
    return True


def _concerns(rule: Rule, assertion: Assertion) -> bool:
    return any(services_of(rule, family) & assertion.services for family in FAMILIES)


def _is_whole(snapshot: Snapshot, witness: Witness) -> bool:
    """Whether no end of a witness that looked like nobody's is an instance that was left out."""
    ends = ((witness.source, witness.packet.source), (witness.destination, witness.packet.destination))
    return not any(end is None and index_of(snapshot).holding(address) for end, address in ends)


def narrowed(snapshot: Snapshot, assertion: Assertion, owner: OrganisationId) -> Snapshot | None:
    """Only those instances, groups and rules that can make an assertion wrong; None when that may be anybody.

    Whoever is left out looks like an address of no instance, which may send anything: what is wrong only of such an
    address is to be asked of the whole. Raises as ``find_named``.
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
    return None if kept is None else _part(snapshot, assertion, kept, owner)


def _instances_meant(snapshot: Snapshot, text: str, owner: OrganisationId, field: str) -> _Few | None:
    """Every instance that an end means; None for anybody."""
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
    """Whoever wears a rule that lets something of the assertion in, or is observed."""
    index = index_of(snapshot)
    found = {id_ for id_, one in snapshot.instances.items() if one.observe}
    for id_, group in snapshot.groups.items():
        wearers = index.wearers_of(id_)
        if wearers and any(rule.direction is Direction.INGRESS and _concerns(rule, assertion) for rule in group.rules):
            found |= wearers
    return frozenset(found)


def _members_named(snapshot: Snapshot, assertion: Assertion, receivers: _Few) -> _Few:
    """The members of the groups that such rules of ``receivers`` name; all, when one of those is observed."""
    if any(snapshot.instances[id_].observe for id_ in receivers):
        return frozenset(snapshot.instances)
    worn = {group for id_ in receivers for group in snapshot.instances[id_].groups}
    rules = [rule for group in worn for rule in snapshot.groups[group].rules if rule.direction is Direction.INGRESS]
    named = {one.peer.group for one in rules if isinstance(one.peer, GroupPeer) and _concerns(one, assertion)}
    return frozenset(id_ for group in named for id_ in index_of(snapshot).wearers_of(group))


def _part(snapshot: Snapshot, assertion: Assertion, kept: _Few, owner: OrganisationId) -> Snapshot:
    """These instances, and those that share an address; the rules that concern the assertion."""
    index = index_of(snapshot)
    twins = {
        twin.id for id_ in kept for address in snapshot.instances[id_].addresses for twin in index.holding(address)
    }
    instances = {id_: snapshot.instances[id_] for id_ in sorted(kept | twins)}
    worn = {group for one in instances.values() for group in one.groups}
    groups = {id_: _concerning(snapshot.groups[id_], assertion) for id_ in sorted(worn) if id_ in snapshot.groups}
    for id_ in _groups_named(snapshot, assertion, groups.values(), owner):
        groups.setdefault(id_, replace(snapshot.groups[id_], rules=()))
    return Snapshot(snapshot.revision, snapshot.organisations, MappingProxyType(groups), MappingProxyType(instances))


def _groups_named(
    snapshot: Snapshot, assertion: Assertion, groups: Iterable[Group], owner: OrganisationId
) -> Iterator[GroupId]:
    named = [rule.peer.group for group in groups for rule in group.rules if isinstance(rule.peer, GroupPeer)]
    yield from (id_ for id_ in named if id_ in snapshot.groups)
    for text in (assertion.source, assertion.destination):
        if text not in (ANY, INTERNET) and parse_network(text, field=FIELD) is None:
            one = find_named(snapshot, text, field=FIELD, owner=owner)
            if isinstance(one, Group):
                yield one.id


def _concerning(group: Group, assertion: Assertion) -> Group:
    """A group with the rules that concern an assertion, and one that says it if its wearers may not send anything."""
    rules = [rule for rule in group.rules if _concerns(rule, assertion)]
    if not any(rule.direction is Direction.EGRESS for rule in rules):
        rules += [rule for rule in group.rules if rule.direction is Direction.EGRESS][:1]
    return replace(group, rules=tuple(rules))
