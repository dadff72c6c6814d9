"""Reduces a snapshot to what one assertion is decided by, once it is known which instances can make it wrong.

An instance that is left out looks like an address of no instance, which may send and receive anything.
"""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from types import MappingProxyType

from ringfence.policy.addresses import FAMILIES
from ringfence.policy.insight.assertions import Assertion
from ringfence.policy.insight.meant import ends_of
from ringfence.policy.insight.services import services_of
from ringfence.policy.model import Group, GroupPeer, Rule
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import Direction, GroupId, InstanceId, OrganisationId


def concerns(rule: Rule, assertion: Assertion) -> bool:
    """Whether a rule allows any of the assertion's services, whoever its peer is."""
    return any(services_of(rule, family) & assertion.services for family in FAMILIES)


def part_of(snapshot: Snapshot, assertion: Assertion, kept: AbstractSet[InstanceId], owner: OrganisationId) -> Snapshot:
    """The snapshot with the instances ``kept``, those that share an address with one, and the rules that matter."""
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
    """The group with the rules that concern the assertion, and one egress rule if it has any: that restricts egress."""
    rules = [rule for rule in group.rules if concerns(rule, assertion)]
    if not any(rule.direction is Direction.EGRESS for rule in rules):
        rules += [rule for rule in group.rules if rule.direction is Direction.EGRESS][:1]
    return replace(group, rules=tuple(rules))
