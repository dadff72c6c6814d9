"""Lets an address in for a time: to all members of a group, or to one instance, by a group of its own. Pure.

Input: a snapshot and what is to be allowed. Output: the edits of one change.
"""

from collections.abc import Callable
from typing import Final
from uuid import UUID

from ringfence.policy.commands import AddRule, Attach, CreateGroup, Edit
from ringfence.policy.errors import Conflict
from ringfence.policy.model import Group
from ringfence.policy.named import find_named
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import GroupId, OrganisationId
from ringfence.wire.change import Allowance

_OWN: Final = "allow-me-"  # prefix of the instance's name: the name of the group that has only such rules


def allow_edits(
    snapshot: Snapshot, organisation: OrganisationId, allowance: Allowance, new_id: Callable[[], UUID]
) -> tuple[Edit, ...]:
    """The edit that adds the rule, after those that give an instance a group of its own, if need be.

    Raises:
        NotFound: the target is unknown.
        Invalid: the target is ambiguous.
        Conflict: the instance's own group is also worn by others, which would be opened as well.
    """
    target = find_named(snapshot, allowance.target, field="$.target", owner=organisation, others=())
    if isinstance(target, Group):
        return (Edit(AddRule(target.id, allowance.draft, allowance.lasts_s), new_id()),)
    name = f"{_OWN}{target.name}"
    own = next((one for one in index_of(snapshot).groups_named(name) if one.organisation == organisation), None)
    if own is not None and index_of(snapshot).wearers_of(own.id) - {target.id}:
        raise Conflict(f"group {name} is worn by others than {target.name} too: name a group to open, or detach them")
    edits: tuple[Edit, ...] = ()
    if own is None:
        edits = (Edit(CreateGroup(name, "for rules that last a while"), new_id()),)
    group = own.id if own else GroupId(edits[0].new_id)
    attach, add = Attach(group, target.id), AddRule(group, allowance.draft, allowance.lasts_s)
    return (*edits, Edit(attach, new_id()), Edit(add, new_id()))
