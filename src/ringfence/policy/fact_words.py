"""Facts as sentences, for the plan before a change and the history after it.

The snapshots before and after the change give the names of what the facts are about.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from ringfence.policy.facts import (
    AssertionsSet,
    Fact,
    GroupCreated,
    GroupDeleted,
    GroupFact,
    GroupTakenOff,
    GroupWorn,
    HostAdded,
    HostInvited,
    HostJoined,
    HostRemoved,
    InstanceCreated,
    InstanceFact,
    InstanceObserved,
    InstancePlaced,
    InstanceReleased,
    InstanceRemoved,
    LimitSet,
    OrganisationCreated,
    OrganisationFact,
    OrganisationRemoved,
    RuleAdded,
    RuleDeleted,
    RuleExpires,
    SourceAdded,
    SourceRemoved,
    TrialBegun,
    TrialEnded,
)
from ringfence.policy.model import Rule
from ringfence.policy.rule_words import describe_rule
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import GroupId, InstanceId, OrganisationId, RuleId
from ringfence.policy.wording import moment_words, shown


def describe_facts(before: Snapshot, after: Snapshot, facts: Iterable[Fact]) -> tuple[str, ...]:
    """A sentence for each fact, in their order. O(facts + rules of the groups of which one was deleted)."""
    words = _Words(before, after)
    return tuple(words.of(fact) for fact in facts)


@dataclass(frozen=True, slots=True)
class _Words:
    before: Snapshot
    after: Snapshot

    def of(self, fact: Fact) -> str:
        match fact:
            case _ if isinstance(fact, InstanceFact):
                return self._of_instance(fact)
            case HostAdded() | HostInvited() | HostJoined() | HostRemoved():
                return _of_host(fact)
            case OrganisationCreated() | OrganisationRemoved():
                return self._of_organisation(fact)
            case LimitSet() | AssertionsSet() | TrialBegun() | TrialEnded():
                return self._of_organisation(fact)
            case _:
                return self._of_group(fact)

    def _of_organisation(self, fact: OrganisationFact) -> str:
        match fact:
            case OrganisationCreated(organisation):
                return f"organisation {shown(organisation.name)} created"
            case OrganisationRemoved(id_):
                return f"organisation {self._organisation(id_)} removed"
            case LimitSet(id_, quota, limit):
                value = "its default" if limit is None else limit
                return f"organisation {self._organisation(id_)}: limit {quota.value} set to {value}"
            case AssertionsSet(id_, assertions):
                return f"organisation {self._organisation(id_)} holds {len(assertions)} assertions"
            case TrialBegun(trial=trial):
                return f"revision {trial.revision} is undone at {moment_words(trial.ends_at)} unless it is confirmed"
            case TrialEnded():
                return "no change waits to be confirmed"
            case _:
                assert_never(fact)

    def _of_group(self, fact: GroupFact) -> str:
        match fact:
            case RuleAdded() | RuleDeleted() | RuleExpires():
                return self._of_rule(fact)
            case GroupCreated(group):
                return f"group {shown(group.name)} created"
            case GroupDeleted(id_):
                return f"{self._group(id_)} deleted"
            case SourceAdded(id_, source):
                return f"{self._group(id_)}: source {source.text} added"
            case SourceRemoved(id_, source):
                return f"{self._group(id_)}: source {source.text} removed"
            case _:
                assert_never(fact)

    def _of_rule(self, fact: RuleAdded | RuleDeleted | RuleExpires) -> str:
        rule = fact.rule if isinstance(fact, RuleAdded) else self._rule(fact.group, fact.rule)
        id_ = fact.rule.id if isinstance(fact, RuleAdded) else fact.rule
        match fact:
            case RuleAdded():
                end = "" if fact.rule.expires_at is None else f", until {moment_words(fact.rule.expires_at)}"
                verb = f"added{end}"
            case RuleDeleted():
                verb = "deleted"
            case RuleExpires():
                verb = "lasts for ever" if fact.at is None else f"lasts until {moment_words(fact.at)}"
            case _:
                assert_never(fact)
        what = f": {describe_rule(self.after if isinstance(fact, RuleAdded) else self.before, rule)}" if rule else ""
        return f"{self._group(fact.group)}: rule {id_} {verb}{what}"

    def _of_instance(self, fact: InstanceFact) -> str:
        match fact:
            case InstanceCreated(instance):
                return f"instance {shown(instance.name)} created"
            case InstancePlaced(id_, name, host):
                return f"instance {shown(name)} ({id_}) is {f'on host {host}' if host else 'on no host'}"
            case InstanceReleased(id_):
                return f"{self._instance(id_)} is bound to no host"
            case InstanceRemoved(id_):
                return f"{self._instance(id_)} removed"
            case InstanceObserved(id_, observe):
                return f"{self._instance(id_)} is {'observed' if observe else 'enforced'}"
            case GroupWorn(id_, group) | GroupTakenOff(id_, group):
                end = "" if isinstance(fact, GroupWorn) else " no more"
                return f"{self._instance(id_)} wears {self._group(group)}{end}"
            case _:
                assert_never(fact)

    def _group(self, id_: GroupId) -> str:
        found = self.after.groups.get(id_) or self.before.groups.get(id_)
        return f"group {shown(found.name) if found else id_}"

    def _instance(self, id_: InstanceId) -> str:
        found = self.after.instances.get(id_) or self.before.instances.get(id_)
        return f"instance {shown(found.name) if found else id_}"

    def _organisation(self, id_: OrganisationId) -> str:
        found = self.after.organisations.get(id_) or self.before.organisations.get(id_)
        return shown(found.name) if found else str(id_)

    def _rule(self, group: GroupId, id_: RuleId) -> Rule | None:
        found = self.before.groups.get(group)
        return next((rule for rule in found.rules if rule.id == id_), None) if found else None


def _of_host(fact: HostAdded | HostInvited | HostJoined | HostRemoved) -> str:
    match fact:
        case HostAdded(host):
            return f"host {host.name} added"
        case HostInvited(name):
            return f"host {name} invited"
        case HostJoined(name):
            return f"host {name} joined"
        case HostRemoved(name):
            return f"host {name} removed"
        case _:
            assert_never(fact)
