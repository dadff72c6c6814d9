"""The part of a snapshot that an assertion is decided over, when it is known who could make it wrong.

Whoever is left out looks like an address of no instance, which may send and be sent anything.
"""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from types import MappingProxyType

from ringfence.policy.addresses import FAMILIES
from ringfence.policy.index import index_of
from ringfence.policy.insight.assertions import Assertion
from ringfence.policy.insight.meant import ends_of
from ringfence.policy.insight.services import services_of
from ringfence.policy.model import Group, GroupPeer, Rule, Snapshot
from ringfence.policy.values import Direction, GroupId, InstanceId, OrganisationId


def concerns(rule: Rule, assertion: Assertion) -> bool:
    """Whether a rule allows anything of what an assertion is about, whoever its peer is."""
    return any(services_of(rule, family) & assertion.services for family in FAMILIES)


def part_of(snapshot: Snapshot, assertion: Assertion, kept: AbstractSet[InstanceId], owner: OrganisationId) -> Snapshot:
    """These instances, those that share an address with one, and the rules that concern the assertion."""
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
    yield from (end.id for end in ends_of(snapshot, assertion, owner) if isinstance(end, Group))


def _concerning(group: Group, assertion: Assertion) -> Group:
    """A group with the rules that concern an assertion, and one that says it if its wearers may not send anything."""
    rules = [rule for rule in group.rules if concerns(rule, assertion)]
    if not any(rule.direction is Direction.EGRESS for rule in rules):
        rules += [rule for rule in group.rules if rule.direction is Direction.EGRESS][:1]
    return replace(group, rules=tuple(rules))
