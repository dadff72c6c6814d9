"""Finds what a command names, among what its actor may know of.

For an actor, things of another organisation do not exist, and error texts do not tell the difference. Every function
raises ``NotFound``, unless it says otherwise.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace
from heapq import nsmallest

from ringfence.control.actor import Actor
from ringfence.policy.commands import GroupReference
from ringfence.policy.errors import Denied, Invalid, NotFound
from ringfence.policy.model import Group, Host, Instance, Organisation
from ringfence.policy.named import ANY, INTERNET, find_instance_named, find_named, of_owner
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import GroupId, HostName, InstanceId, OrganisationId, Visibility
from ringfence.policy.wording import suggestion

_NAMED_AT_MOST = 10


def find_group_to_change(snapshot: Snapshot, id_: GroupId, actor: Actor) -> Group:
    """A group of the actor's organisation; a public one only for the operator (others refer to those by name).

    Raises ``Denied`` for one that the actor may see and not change.
    """
    group = snapshot.groups.get(id_)
    is_known = group is not None and group.organisation == actor.organisation
    if group is None or not is_known or (group.visibility is Visibility.PUBLIC and not actor.is_operator):
        raise NotFound(f"there is no security group {id_}")
    if actor.scope is not None and id_ not in actor.scope:
        raise Denied(f"key {actor.name} may change {_scope_text(snapshot, actor.scope)} only, not {group.name}")
    return group


def find_organisation(snapshot: Snapshot, name: str) -> Organisation:
    """The organisation of that name."""
    for organisation in snapshot.organisations.values():
        if organisation.name == name:
            return organisation
    known = name_some([organisation.name for organisation in snapshot.organisations.values()])
    raise NotFound(f"there is no organisation named {ascii(name)[1:-1][:80]}; there are {known}")


def find_host(snapshot: Snapshot, name: HostName) -> Host:
    """The host of that name, of any organisation."""
    try:
        return snapshot.hosts[name]
    except KeyError:
        text = ascii(name)[1:-1][:80]
        hint = suggestion(text, snapshot.hosts) or ": ringfence host status shows those that are there"
        raise NotFound(f"there is no host {text}{hint}") from None


def find_instance(snapshot: Snapshot, id_: InstanceId, organisation: OrganisationId) -> Instance:
    """An instance of the organisation."""
    instance = snapshot.instances.get(id_)
    if instance is None or instance.organisation != organisation:
        raise NotFound(f"there is no instance {id_}")
    return instance


def find_instance_of(snapshot: Snapshot, text: str, organisation: str | None) -> Instance:
    """The instance of that name or id, of the organisation if one is named.

    Raises:
        NotFound: there is no such instance or organisation. ``Invalid``: several instances have the name.
    """
    if organisation:
        id_ = find_organisation(snapshot, organisation).id
        own = {key: one for key, one in snapshot.instances.items() if one.organisation == id_}
        snapshot = replace(snapshot, instances=own)
    return find_instance_named(snapshot, text)


def find_peer(snapshot: Snapshot, reference: GroupReference, organisation: OrganisationId) -> Group:
    """The group that a rule names: a private one of the organisation by id, any public one by name."""
    if reference.visibility is Visibility.PUBLIC:
        return _find_public(snapshot, reference.name)
    if reference.id is None:
        raise Invalid("expected the id of a group, or the name of a public one", field="$.security-group")
    group = snapshot.groups.get(reference.id)
    if group is None or group.organisation != organisation or group.visibility is Visibility.PUBLIC:
        raise NotFound(f"there is no security group {reference.id}", field="$.security-group")
    return group


def require_group_named(snapshot: Snapshot, text: str, *, field: str) -> None:
    """``NotFound``, with a suggestion, when no group of anybody has that name or id."""
    _only_named(list(snapshot.groups.values()), text, field)


def find_group_named(snapshot: Snapshot, text: str, organisation: OrganisationId, *, field: str) -> Group:
    """A group of the organisation by name or id, a private one before a public one; ``NotFound`` suggests a name."""
    own = [group for group in snapshot.groups.values() if group.organisation == organisation]
    return _only_named(own, text, field, of_owner(snapshot, organisation))


def find_peer_named(snapshot: Snapshot, text: str, organisation: OrganisationId, *, field: str) -> GroupReference:
    """As ``find_group_named``, among the groups that a rule may name, which include all public ones."""
    groups = snapshot.groups.values()
    named = [one for one in groups if one.organisation == organisation or one.visibility is Visibility.PUBLIC]
    if text in (ANY, INTERNET) and not any(one.name == text for one in named):
        raise NotFound(f"a rule names a network or a group: for anybody 0.0.0.0/0, and ::/0, not {text}", field=field)
    found = _only_named(named, text, field, of_owner(snapshot, organisation))
    is_public = found.visibility is Visibility.PUBLIC
    return GroupReference(None if is_public else found.id, found.name if is_public else None, found.visibility)


def find_meant(snapshot: Snapshot, text: str, organisation: OrganisationId, *, field: str) -> list[Instance]:
    """The organisation's instance of that name, or all instances that wear its group of that name."""
    found = find_named(snapshot, text, field=field, owner=organisation, others=())
    if isinstance(found, Instance):
        return [found]
    return [snapshot.instances[id_] for id_ in sorted(index_of(snapshot).wearers_of(found.id))]


def name_some(names: Collection[str]) -> str:
    """Names for a sentence: the first ten in order, and how many more. O(names), for there may be thousands."""
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(nsmallest(_NAMED_AT_MOST, names)) + (f" and {more} more" if more > 0 else "")


def _only_named(groups: list[Group], text: str, field: str, whose: str = "") -> Group:
    found = [group for group in groups if text in (group.name, str(group.id))]
    if not found:
        hint = suggestion(text, (group.name for group in groups))
        raise NotFound(f"there is no security group {ascii(text)[:64]}{whose}{hint}", field=field)
    return min(found, key=lambda group: group.visibility is Visibility.PUBLIC)


def _scope_text(snapshot: Snapshot, scope: Iterable[GroupId]) -> str:
    names = [snapshot.groups[id_].name for id_ in scope if id_ in snapshot.groups]
    return f"group {name_some(names)}" if names else "groups that are gone"


def _find_public(snapshot: Snapshot, name: str | None) -> Group:
    for group in index_of(snapshot).groups_named(name or ""):
        if group.visibility is Visibility.PUBLIC:
            return group
    raise NotFound(f"there is no public security group named {ascii(name)[:80]}", field="$.security-group")
