"""Applying a document makes true what it says, at once, and a second time there is nothing to do."""

from dataclasses import replace
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import count
from generated import MISSING, snapshots
from policies import ORGANISATION, group_id
from ringfence.control.actor import operator_of
from ringfence.control.decide import decide_edits
from ringfence.policy.commands import DeleteGroup, DeleteRule, Detach, RemoveSource
from ringfence.policy.difference import difference
from ringfence.policy.export import document_of
from ringfence.policy.facts import apply_facts
from ringfence.policy.model import Group, GroupPeer, Organisation
from ringfence.policy.snapshot import Snapshot, indexed
from ringfence.policy.values import Revision, Visibility
from ringfence.wire.policy_file import read_policy, write_policy

ENDS = (DeleteGroup, DeleteRule, Detach, RemoveSource)
DEFAULT = Group(group_id("default"), ORGANISATION, "default")
FIRST = Organisation(ORGANISATION, "first", DEFAULT.id)


def _whole(snapshot):
    """With the group ``default``, and without rules that name a group that there is not: a server takes none."""
    groups = {DEFAULT.id: DEFAULT} | {
        id_: replace(group, rules=tuple(rule for rule in group.rules if rule.peer != GroupPeer(MISSING)))
        for id_, group in snapshot.groups.items()
    }
    return indexed(replace(snapshot, organisations={ORGANISATION: FIRST}, groups=groups))


@st.composite
def _namesakes(draw):
    """A snapshot of which one group is public, and has the name of a private one or its own."""
    snapshot = draw(snapshots())
    public, namesake = (draw(st.sampled_from(sorted(snapshot.groups))) for _ in range(2))
    name = snapshot.groups[namesake].name
    group = replace(snapshot.groups[public], name=name, visibility=Visibility.PUBLIC)
    return _whole(replace(snapshot, groups={**snapshot.groups, public: group}))


def _bare(snapshot):
    """The same instances, of which nobody has said anything yet."""
    worn = {id_: replace(one, groups=(DEFAULT.id,), observe=False) for id_, one in snapshot.instances.items()}
    return indexed(Snapshot(Revision(0), {ORGANISATION: FIRST}, {DEFAULT.id: DEFAULT}, worn))


def _applied(snapshot, document, *, prune):
    found = difference(snapshot, ORGANISATION, document, uuid4, prune=prune)
    facts = decide_edits(snapshot, found.edits, operator_of(ORGANISATION), now_s=0, offer_all=True)
    return apply_facts(snapshot, facts, revision=Revision(snapshot.revision + 1)), found


def _text(snapshot):
    return write_policy(document_of(snapshot, ORGANISATION))


@pytest.mark.full
@settings(max_examples=count(reduced=10, stated=1000))
@given(_namesakes())
def test_an_export_that_is_applied_to_an_empty_server_is_exported_the_same(snapshot):
    document = read_policy(_text(snapshot), "policy.yaml").document
    after, _ = _applied(_bare(snapshot), document, prune=False)
    worn = {one.name: set(one.groups) for one in snapshot.instances.values()}
    only_default = [one for one in after.instances.values() if DEFAULT.id in one.groups]
    assert all(DEFAULT.id not in worn[one.name] for one in only_default)  # kept, for nothing was pruned
    pruned, _ = _applied(after, document, prune=True)
    observed = {one.name for one in snapshot.instances.values() if one.observe}
    assert {one.name for one in pruned.instances.values() if one.observe} == observed
    assert _text(pruned) == _text(snapshot)


@pytest.mark.full
@settings(max_examples=count(reduced=10, stated=1000))
@given(_namesakes(), _namesakes(), st.booleans())
def test_applied_again_there_is_nothing_to_do(before, other, prune):
    document = document_of(other, ORGANISATION)
    after, found = _applied(before, document, prune=prune)
    again = difference(after, ORGANISATION, document, uuid4, prune=prune)
    assert again.edits == ()
    assert again.kept == found.kept
    if prune:
        wanted = replace(document, instances=())
        assert replace(document_of(after, ORGANISATION), instances=()) == wanted
    else:
        assert not [edit for edit in found.edits if isinstance(edit.command, ENDS)]
