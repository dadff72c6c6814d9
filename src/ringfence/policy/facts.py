"""The facts that a decided change makes true: what the store writes, and what turns one snapshot into the next.

``apply_facts`` is the only way from one snapshot to another, so that memory and disk cannot disagree about a change.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import assert_never

from ringfence.policy.evolving import Draft, evolving
from ringfence.policy.index import Index, next_index
from ringfence.policy.model import Group, Host, Instance, Interface, Invitation, Organisation, Rule, Trial
from ringfence.policy.quota import Quota
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import Cidr, GroupId, HostName, InstanceId, OrganisationId, Revision, RuleId


@dataclass(frozen=True, slots=True)
class OrganisationCreated:
    organisation: Organisation


@dataclass(frozen=True, slots=True)
class OrganisationRemoved:
    """The organisation is gone, and with it its default group: nothing else of it was left."""

    organisation: OrganisationId


@dataclass(frozen=True, slots=True)
class LimitSet:
    """An operator set a limit of an organisation; None gives the default back."""

    organisation: OrganisationId
    quota: Quota
    limit: int | None


@dataclass(frozen=True, slots=True)
class AssertionsSet:
    """What every change of an organisation must keep true from now on, in place of what was held before."""

    organisation: OrganisationId
    assertions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrialBegun:
    """What this revision changes is undone when the trial's time is up, unless somebody confirms it."""

    organisation: OrganisationId
    trial: Trial


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """The change was confirmed, or is undone by the facts beside this one."""

    organisation: OrganisationId


@dataclass(frozen=True, slots=True)
class GroupCreated:
    group: Group


@dataclass(frozen=True, slots=True)
class GroupDeleted:
    group: GroupId


@dataclass(frozen=True, slots=True)
class RuleAdded:
    group: GroupId
    rule: Rule


@dataclass(frozen=True, slots=True)
class RuleDeleted:
    group: GroupId
    rule: RuleId


@dataclass(frozen=True, slots=True)
class RuleExpires:
    """The rule's expiry is set to ``at``, in seconds since the epoch; None for never."""

    group: GroupId
    rule: RuleId
    at: int | None


@dataclass(frozen=True, slots=True)
class SourceAdded:
    group: GroupId
    source: Cidr


@dataclass(frozen=True, slots=True)
class SourceRemoved:
    """The source as it is kept (its first spelling), so that it can be found again."""

    group: GroupId
    source: Cidr


@dataclass(frozen=True, slots=True)
class GroupWorn:
    instance: InstanceId
    group: GroupId


@dataclass(frozen=True, slots=True)
class GroupTakenOff:
    instance: InstanceId
    group: GroupId


@dataclass(frozen=True, slots=True)
class InstanceCreated:
    instance: Instance


@dataclass(frozen=True, slots=True)
class InstancePlaced:
    """A known instance is now on this host (or on none) with these interfaces; the first host binds it."""

    instance: InstanceId
    name: str
    host: HostName | None
    interfaces: tuple[Interface, ...]
    realm: str


@dataclass(frozen=True, slots=True)
class InstanceReleased:
    """No host is bound to the instance any more: the next one that gives its id may claim it."""

    instance: InstanceId


@dataclass(frozen=True, slots=True)
class InstanceRemoved:
    """The instance is gone, from its groups too."""

    instance: InstanceId


@dataclass(frozen=True, slots=True)
class InstanceObserved:
    """The instance is observed from now on (nothing of it is dropped), or enforced again."""

    instance: InstanceId
    observe: bool


@dataclass(frozen=True, slots=True)
class HostAdded:
    host: Host


@dataclass(frozen=True, slots=True)
class HostInvited:
    """The host may join with this invitation, which replaces any earlier one; one that has joined may join again."""

    host: HostName
    invitation: Invitation


@dataclass(frozen=True, slots=True)
class HostJoined:
    """The host has used its invitation: from now on only this key is the host's."""

    host: HostName
    public_key: bytes


@dataclass(frozen=True, slots=True)
class HostRemoved:
    """The host is gone; none of its instances is on it any more, and what it bound is bound to no host."""

    host: HostName


GroupFact = GroupCreated | GroupDeleted | RuleAdded | RuleDeleted | RuleExpires | SourceAdded | SourceRemoved
InstanceFact = (
    InstanceCreated | InstancePlaced | InstanceReleased | InstanceRemoved | InstanceObserved | GroupWorn | GroupTakenOff
)
OrganisationFact = OrganisationCreated | OrganisationRemoved | LimitSet | AssertionsSet | TrialBegun | TrialEnded
Fact = OrganisationFact | GroupFact | InstanceFact | HostAdded | HostInvited | HostJoined | HostRemoved


def apply_facts(snapshot: Snapshot, facts: Iterable[Fact], *, revision: Revision) -> Snapshot:
    """The snapshot at ``revision`` in which ``facts`` hold; ``snapshot`` itself does not change. O(what they change).

    From a snapshot that has a successor already, it also costs what differs between the two.
    """
    index = index_of(snapshot)
    organisations, hosts = Draft(evolving(snapshot.organisations)), Draft(evolving(snapshot.hosts))
    groups, instances = Draft(evolving(snapshot.groups)), Draft(evolving(snapshot.instances))
    for fact in facts:
        match fact:
            case OrganisationCreated(organisation):
                organisations[organisation.id] = organisation
            case OrganisationRemoved(id_):
                del groups[organisations[id_].default_group]
                del organisations[id_]
            case LimitSet() | AssertionsSet() | TrialBegun() | TrialEnded():
                organisations[fact.organisation] = _changed_organisation(organisations[fact.organisation], fact)
            case HostAdded() | HostInvited() | HostJoined():
                _change_host(hosts, fact)
            case HostRemoved(name):
                del hosts[name]
                _unbind(index, instances, name)
            case _ if isinstance(fact, InstanceFact):
                change_instance(instances, fact)
            case _:
                change_group(groups, fact)
    parts = (organisations.finish(), groups.finish(), instances.finish(), hosts.finish())
    return Snapshot(revision, *parts, next_index(index, parts[1:3], groups.changes(), instances.changes()))


def _unbind(index: Index, instances: Draft[InstanceId, Instance], host: HostName) -> None:
    lately = {id_ for id_, _, _ in instances.changes()}
    for id_ in {instance.id for instance in index.bound_to(host)} | lately:
        instance = instances.find(id_)
        if instance is not None and instance.bound_to == host:
            instances[id_] = replace(instance, bound_to=None)


def _changed_organisation(
    organisation: Organisation, fact: LimitSet | AssertionsSet | TrialBegun | TrialEnded
) -> Organisation:
    match fact:
        case LimitSet(quota=quota, limit=limit):
            others = {each: value for each, value in organisation.limits.items() if each is not quota}
            limits = others if limit is None else {**others, quota: limit}
            return replace(organisation, limits=MappingProxyType(limits))
        case AssertionsSet(assertions=assertions):
            return replace(organisation, assertions=assertions)
        case TrialBegun(trial=trial):
            return replace(organisation, trial=trial)
        case TrialEnded():
            return replace(organisation, trial=None)
        case _:
            assert_never(fact)


def _change_host(hosts: Draft[HostName, Host], fact: HostAdded | HostInvited | HostJoined) -> None:
    match fact:
        case HostAdded(host):
            hosts[host.name] = host
        case HostInvited(name, invitation):
            hosts[name] = replace(hosts[name], invitation=invitation)
        case HostJoined(name, public_key):
            present = hosts[name].invitation
            spent = None if present is None else replace(present, used=True)
            hosts[name] = replace(hosts[name], public_key=public_key, invitation=spent)
        case _:
            assert_never(fact)


def change_instance(instances: Draft[InstanceId, Instance], fact: InstanceFact) -> None:
    """Makes ``fact`` true in ``instances``, in place."""
    match fact:
        case InstanceCreated(instance):
            instances[instance.id] = instance
        case InstancePlaced(instance=id_):
            instances[id_] = _placed(instances[id_], fact)
        case InstanceReleased(id_):
            instances[id_] = replace(instances[id_], bound_to=None)
        case InstanceRemoved(id_):
            del instances[id_]
        case InstanceObserved(id_, observe):
            instances[id_] = replace(instances[id_], observe=observe)
        case GroupWorn(id_, group):
            instances[id_] = replace(instances[id_], groups=(*instances[id_].groups, group))
        case GroupTakenOff(id_, group):
            kept = tuple(worn for worn in instances[id_].groups if worn != group)
            instances[id_] = replace(instances[id_], groups=kept)
        case _:
            assert_never(fact)


def _placed(instance: Instance, fact: InstancePlaced) -> Instance:
    return replace(
        instance,
        name=fact.name,
        host=fact.host,
        interfaces=fact.interfaces,
        realm=fact.realm,
        bound_to=instance.bound_to or fact.host,
    )


def change_group(groups: Draft[GroupId, Group], fact: GroupFact) -> None:
    """Makes ``fact`` true in ``groups``, in place."""
    match fact:
        case GroupCreated(group):
            groups[group.id] = group
        case GroupDeleted(id_):
            del groups[id_]
        case RuleAdded(id_, rule):
            groups[id_] = replace(groups[id_], rules=(*groups[id_].rules, rule))
        case RuleDeleted(id_, rule_id):
            groups[id_] = replace(groups[id_], rules=tuple(rule for rule in groups[id_].rules if rule.id != rule_id))
        case RuleExpires(id_, rule_id, at):
            rules = tuple(replace(rule, expires_at=at) if rule.id == rule_id else rule for rule in groups[id_].rules)
            groups[id_] = replace(groups[id_], rules=rules)
        case SourceAdded(id_, source):
            groups[id_] = replace(groups[id_], sources=(*groups[id_].sources, source))
        case SourceRemoved(id_, source):
            groups[id_] = replace(groups[id_], sources=tuple(kept for kept in groups[id_].sources if kept != source))
        case _:
            assert_never(fact)
