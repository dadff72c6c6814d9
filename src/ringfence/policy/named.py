"""A name in words -> the group or instance that is meant: ``web``, ``group:web``, ``instance:web``, or an id.

Unknown names are refused with the nearest known one.
"""

import re
from collections.abc import Collection, Iterable
from typing import Final, TypeVar
from uuid import UUID

from ringfence.policy.errors import Invalid, NotFound
from ringfence.policy.model import Group, Instance
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import GroupId, InstanceId, OrganisationId, Visibility
from ringfence.policy.wording import shown, suggestion

GROUP: Final = "group:"  # prefix of a group's name, where an instance may have the same
INSTANCE: Final = "instance:"  # prefix of an instance's name, where a group may have the same
ANY: Final = "any"
INTERNET: Final = "internet"

_Named = TypeVar("_Named", Group, Instance)
_OTHERS: Final = (ANY, INTERNET)  # ends that are not names
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def find_named(
    snapshot: Snapshot,
    text: str,
    *,
    field: str,
    owner: OrganisationId | None = None,
    others: Collection[str] = _OTHERS,
) -> Group | Instance:
    """The one group or instance that ``text`` names. With an ``owner`` only its names and public groups' are known.

    Raises:
        NotFound: nobody is named so; the text suggests the nearest, of ``others``, too.
        Invalid: several are.
    """
    found = [one for one in all_named(snapshot, text) if _may_name(owner, one)]
    if not found:
        raise not_named(snapshot, text, field=field, owner=owner, others=others)
    if len(found) > 1:
        raise Invalid(f"{shown(text)} is ambiguous: say which by {_choices(found)}", field=field)
    return found[0]


def not_named(
    snapshot: Snapshot, text: str, *, field: str, owner: OrganisationId | None = None, others: Collection[str]
) -> NotFound:
    """The refusal of a name that nobody has; ``others`` are words, besides addresses, that might stand in its place."""
    kind, name = split_kind(text)
    words = others if name == text else ()
    known = {one.name for one in _everybody(snapshot, text) if _may_name(owner, one)} | {*words}
    besides = ", and it is no address or network" if words else ""
    whose = of_owner(snapshot, owner)
    return NotFound(f"no {kind}{whose} is named {name!a}{besides}{suggestion(name, known)}", field=field)


def all_named(snapshot: Snapshot, text: str) -> list[Group | Instance]:
    """The groups, then the instances, that ``text`` names, of every organisation."""
    _, name = split_kind(text)
    id_ = UUID(name) if _UUID.fullmatch(name) else None
    if snapshot.index is None:  # making one would cost more than looking at all
        groups = [one for one in snapshot.groups.values() if one.name == name or one.id == id_]
        instances = [one for one in snapshot.instances.values() if one.name == name or one.id == id_]
    else:
        index = index_of(snapshot)
        groups = _with(index.groups_named(name), None if id_ is None else snapshot.groups.get(GroupId(id_)))
        instances = _with(index.instances_named(name), None if id_ is None else snapshot.instances.get(InstanceId(id_)))
    return _of_kind(text, groups, instances)


def find_instance_named(snapshot: Snapshot, text: str, *, field: str = "instance") -> Instance:
    """The one instance of that name or id.

    Raises:
        NotFound: there is none; the text suggests the nearest.
        Invalid: several have the name.
    """
    if not (found := _instances(snapshot, text)):
        known = (instance.name for instance in snapshot.instances.values())
        raise NotFound(f"no instance is named {text!a}{suggestion(text, known)}", field=field)
    return only_one(found, text, field)


def split_kind(text: str) -> tuple[str, str]:
    """The kind that the name of an end says it is of, for a sentence, and the name without that prefix."""
    for prefix, kind in ((GROUP, "group"), (INSTANCE, "instance")):
        if text.startswith(prefix):
            return kind, text.removeprefix(prefix)
    return "instance or group", text


def of_owner(snapshot: Snapshot, owner: OrganisationId | None) -> str:
    """Whose names were looked at, where there are others'."""
    organisation = snapshot.organisations.get(owner) if owner is not None else None
    return f" of organisation {shown(organisation.name)}" if organisation and len(snapshot.organisations) > 1 else ""


def _may_name(owner: OrganisationId | None, one: Group | Instance) -> bool:
    is_public = isinstance(one, Group) and one.visibility is Visibility.PUBLIC
    return is_public or owner in (None, one.organisation)


def _with(found: list[_Named], one: _Named | None) -> list[_Named]:
    if one is not None and one not in found:
        found.append(one)
    return found


def _choices(found: list[Group | Instance]) -> str:
    kinds = [GROUP if isinstance(one, Group) else INSTANCE for one in found]
    by_name = len(set(kinds)) == len(found)
    return " or ".join(
        f"{kind}{shown(one.name) if by_name else one.id}" for kind, one in zip(kinds, found, strict=True)
    )


def _everybody(snapshot: Snapshot, text: str) -> list[Group | Instance]:
    return _of_kind(text, snapshot.groups.values(), snapshot.instances.values())


def _of_kind(text: str, groups: Iterable[Group], instances: Iterable[Instance]) -> list[Group | Instance]:
    """Those of the kind that ``text`` says it means, or all."""
    return [*(() if text.startswith(INSTANCE) else groups), *(() if text.startswith(GROUP) else instances)]


def only_one(found: list[_Named], text: str, field: str) -> _Named:
    """The only one of ``found``, of which there is one at least; ``Invalid`` if there are several."""
    if len(found) > 1:
        kind = "groups" if isinstance(found[0], Group) else "instances"
        ids = ", ".join(str(one.id) for one in found)
        raise Invalid(f"several {kind} are named {shown(text)}: say which by its id ({ids})", field=field)
    return found[0]


def _instances(snapshot: Snapshot, text: str) -> list[Instance]:
    names = (text, text.removeprefix(INSTANCE))
    return [one for one in snapshot.instances.values() if one.name in names or str(one.id) in names]
