"""What must be changed for a document to be true, and what is only told."""

from dataclasses import replace
from uuid import uuid4

import pytest

from ringfence.policy.commands import AddRule, AddSource, CreateGroup, DeleteRule
from ringfence.policy.desired import snapshot_of
from ringfence.policy.difference import difference
from ringfence.policy.errors import Denied, Invalid, NotFound
from ringfence.policy.export import document_of
from ringfence.policy.model import Group, Organisation
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import GroupId, OrganisationId, Visibility, parse_cidr
from ringfence.wire.policy_file import read_policy

RULE = "{protocol: tcp, ports: 443, from: 10.0.0.0/8%s}"


def _document(text):
    return read_policy(f"version: 1\n{text}", "policy.yaml").document


def _web(*rules):
    return "groups: {default: {}, web: {ingress: [" + ", ".join(rules) + "]}}\n"


def _difference(before, after, *, prune=False):
    snapshot = snapshot_of(_document(before))
    [organisation] = snapshot.organisations
    return difference(snapshot, organisation, _document(after), uuid4, prune=prune)


def _kinds(found):
    return [type(edit.command).__name__ for edit in found.edits]


def test_an_edit_says_where_the_document_asks_for_it():
    found = _difference("groups: {}\n", "groups: {web: {sources: [10.0.0.0/8], ingress: [%s]}}\n" % (RULE % ""))
    assert [type(edit.command) for edit in found.edits] == [CreateGroup, AddSource, AddRule]
    fields = ["$.groups.web", "$.groups.web.sources[0]", "$.groups.web.ingress[0]"]
    assert [edit.field for edit in found.edits] == fields


def test_a_rule_of_which_only_the_description_differs_is_replaced_without_pruning():
    found = _difference(_web(RULE % ", description: old"), _web(RULE % ", description: new"))
    assert [type(edit.command) for edit in found.edits] == [DeleteRule, AddRule]
    assert found.edits[1].command.rule.description == "new"
    assert found.kept == ()


def test_a_network_that_is_spelled_otherwise_is_the_same_rule():
    assert _difference(_web(RULE % ""), _web("{protocol: tcp, ports: 443-443, from: 10.1.2.3/8}")).edits == ()


def test_what_the_document_lacks_stays_and_is_told_unless_it_is_pruned():
    before = "groups: {web: {sources: [10.0.0.0/8], ingress: [%s]}, app: {}}\ninstances: {vm: {groups: [web, app]}}\n"
    after = "groups: {web: {}}\ninstances: {vm: {groups: [web]}}\n"
    found = _difference(before % (RULE % ""), after)
    assert found.edits == ()
    assert [line.split(" ", 2)[:2] for line in found.kept] == [
        ["group", "web"],
        ["group", "web"],
        ["instance", "vm"],
        ["group", "app"],
    ]
    pruned = _difference(before % (RULE % ""), after, prune=True)
    assert _kinds(pruned) == ["RemoveSource", "DeleteRule", "Detach", "DeleteGroup"]
    assert pruned.kept == ()


def test_groups_that_name_each_other_end_together_and_new_ones_come_together():
    ring = "groups: {a: {ingress: [{protocol: esp, from: group b}]}, b: {ingress: [{protocol: esp, from: group a}]}}\n"
    assert _kinds(_difference(ring, "groups: {}\n", prune=True)) == ["DeleteRule"] * 2 + ["DeleteGroup"] * 2
    assert _kinds(_difference("groups: {}\n", ring)) == ["CreateGroup"] * 2 + ["AddRule"] * 2


def test_the_default_group_is_emptied_and_never_deleted():
    before = "groups: {default: {ingress: [%s]}}\n" % (RULE % "")
    assert _kinds(_difference(before, "groups: {}\n", prune=True)) == ["DeleteRule"]


def test_a_description_of_a_group_cannot_be_changed_and_that_is_told_in_any_case():
    before, after = "groups: {web: {description: old}}\n", "groups: {web: {description: new}}\n"
    for prune in (True, False):
        found = _difference(before, after, prune=prune)
        assert (found.edits, len(found.kept)) == ((), 1)


@pytest.mark.parametrize(
    ("after", "error", "field"),
    [
        ("groups: {web: {ingress: [{protocol: esp, from: group app}]}}", NotFound, "$.groups.web.ingress[0].from"),
        ("groups: {web: {egress: [{protocol: esp, to: public group web}]}}", NotFound, "$.groups.web.egress[0].to"),
        ("instances: {vm: {groups: [app]}}", NotFound, "$.instances.vm.groups[0]"),
        ("instances: {vn: {}}", NotFound, "$.instances.vn"),
    ],
)
def test_an_unknown_name_is_refused_where_it_stands(after, error, field):
    with pytest.raises(error) as caught:
        _difference("groups: {web: {}}\ninstances: {vm: {}}\n", f"{after}\n")
    assert caught.value.field == field


def test_a_rule_cannot_name_a_group_that_is_to_be_pruned():
    before = "groups: {web: {}, app: {}}\n"
    after = "groups: {web: {ingress: [{protocol: esp, from: group app}]}}\n"
    assert _kinds(_difference(before, after)) == ["AddRule"]
    with pytest.raises(NotFound):
        _difference(before, after, prune=True)


def test_a_rule_that_expires_is_neither_exported_nor_pruned_and_a_file_that_names_it_makes_it_stay():
    snapshot = snapshot_of(_document(_web(RULE % "")))
    [organisation] = snapshot.organisations
    groups = {
        id_: replace(group, rules=tuple(replace(rule, expires_at=9) for rule in group.rules))
        for id_, group in snapshot.groups.items()
    }
    snapshot = replace(snapshot, groups=groups)
    assert [group.rules for group in document_of(snapshot, organisation).groups] == [(), ()]
    assert difference(snapshot, organisation, _document(_web()), uuid4, prune=True).edits == ()
    found = difference(snapshot, organisation, _document(_web(RULE % "")), uuid4, prune=True)
    assert _kinds(found) == ["AddRule"]


def test_an_instance_named_twice_is_refused():
    before = "instances: {vm: {}}\n"
    [id_] = snapshot_of(_document(before)).instances
    with pytest.raises(Invalid, match="above"):
        _difference(before, f"instances: {{vm: {{}}, '{id_}': {{}}}}\n")


def test_a_public_group_of_another_organisation_may_be_named_as_it_is_and_not_be_changed():
    first, second = OrganisationId(uuid4()), OrganisationId(uuid4())
    default = Group(GroupId(uuid4()), second, "default")
    network = parse_cidr("9.9.9.9/32", field="test")
    public = Group(GroupId(uuid4()), first, "resolvers", visibility=Visibility.PUBLIC, sources=(network,))
    snapshot = Snapshot(
        organisations={one: Organisation(one, name, default.id) for one, name in ((first, "first"), (second, "acme"))},
        groups={default.id: default, public.id: public},
    )

    def applied(text):
        return difference(snapshot, second, _document(f"public-groups: {{resolvers: {text}}}\n"), uuid4, prune=True)

    assert applied("{sources: [9.9.9.9/32]}").edits == ()
    with pytest.raises(Denied, match="belongs to organisation first"):
        applied("{}")
    with pytest.raises(Denied, match="belong to organisation first"):
        difference(snapshot, second, _document("public-groups: {x: {}}\n"), uuid4, prune=False)
