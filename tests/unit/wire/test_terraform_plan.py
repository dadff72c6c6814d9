"""A Terraform plan becomes edits of groups; what cannot be judged is said."""

import pytest

from ringfence.policy.errors import CallerError, Invalid
from ringfence.wire.terraform_plan import read_terraform
from terraforming import GROUP, RULE, configured, ended, group, new_rule, plan, refers

WEB, DB = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
HTTPS = {"cidr": "0.0.0.0/0", "start_port": 443, "end_port": 443}


def _edits(*changes, **parts):
    change = read_terraform(plan(*changes, **parts), "plan.json")
    assert change.left_out == []
    assert len(change.addresses) == len(change.edits)
    return change.edits


def _left_out(*changes, **parts):
    change = read_terraform(plan(*changes, **parts), "plan.json")
    assert change.edits == []
    return change.left_out


def test_a_rule_of_a_group_that_is_there_is_added_and_one_is_deleted_first():
    gone = ended(f"{RULE}.old", RULE, id=DB, security_group_id=WEB, type="INGRESS")
    assert _edits(new_rule(f"{RULE}.new", group_id=WEB, **HTTPS), gone) == [
        {"edit": "delete-rule", "group": WEB, "rule": DB},
        {"edit": "add-rule", "group": WEB, "service": "tcp/443-443", "from": "0.0.0.0/0"},
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"protocol": "UDP", "start_port": 53, "end_port": 54}, "udp/53-54"),
        ({"protocol": "ICMP", "icmp_type": 8, "icmp_code": 0}, "icmp/8/0"),
        ({"protocol": "ICMP", "icmp_type": 3, "icmp_code": -1}, "icmp/3"),
        ({"protocol": "ICMPv6", "icmp_type": -1, "icmp_code": -1}, "icmpv6"),
        ({"protocol": "ESP"}, "esp"),
    ],
)
def test_a_service_is_said_as_a_rule_here_says_it(given, said):
    [edit] = _edits(new_rule(f"{RULE}.r", group_id=WEB, cidr="10.0.0.0/8", kind="EGRESS", **given))
    assert (edit["service"], edit["to"]) == (said, "10.0.0.0/8")


def test_a_new_group_s_rules_find_it_by_what_the_configuration_refers_to():
    made = group(f"{GROUP}.app", name="app", description="the middle", external_sources=["203.0.113.0/24"])
    between = new_rule(f"{RULE}.between", group_id=DB, start_port=5432, end_port=5432)
    own = new_rule(f"{RULE}.own", **HTTPS)
    written = [
        configured(RULE, "between", user_security_group_id=refers(f"{GROUP}.app.id")),
        configured(RULE, "own", security_group_id=refers(f"{GROUP}.app.id"), cidr={"constant_value": "0.0.0.0/0"}),
    ]
    assert _edits(between, own, made, resources=written) == [
        {"edit": "create-group", "name": "app", "description": "the middle"},
        {"edit": "add-source", "group": "app", "source": "203.0.113.0/24"},
        {"edit": "add-rule", "group": DB, "service": "tcp/5432-5432", "from": "group:app"},
        {"edit": "add-rule", "group": "app", "service": "tcp/443-443", "from": "0.0.0.0/0"},
    ]


def test_a_replaced_group_goes_before_it_comes_and_sources_are_changed_in_place():
    replaced = group(f"{GROUP}.web", ("delete", "create"), before={"id": WEB, "name": "web"}, name="web")
    changed = group(
        f"{GROUP}.db",
        ("update",),
        before={"id": DB, "name": "db", "external_sources": ["192.0.2.1/32", "192.0.2.2/32"]},
        id=DB,
        name="db",
        external_sources=["192.0.2.2/32", "192.0.2.3/32"],
    )
    assert [edit["edit"] for edit in _edits(replaced, changed)] == [
        "remove-source",
        "delete-group",
        "create-group",
        "add-source",
    ]


@pytest.mark.parametrize(
    ("references", "found"),
    [
        ([f'{GROUP}.each["b"].id'], "b"),
        ([f"{GROUP}.each", "each.key"], "a"),
        ([f"{GROUP}.each", "each.value"], None),
        ([f"{GROUP}.each", "var.which"], None),
        (["local.group"], None),
    ],
)
def test_one_of_many_is_found_by_its_index_or_not_at_all(references, found):
    groups = [group(f'{GROUP}.each["{name}"]', name=name) for name in "ab"]
    written = [
        configured(RULE, "of", security_group_id={"references": [*references, *refers(*references)["references"]]})
    ]
    change = read_terraform(plan(*groups, new_rule(f'{RULE}.of["a"]', **HTTPS), resources=written), "plan.json")
    assert [edit["group"] for edit in change.edits if edit["edit"] == "add-rule"] == ([found] if found else [])
    assert [line.partition(":")[0] for line in change.left_out] == ([] if found else [f'{RULE}.of["a"]'])


def test_references_lead_through_variables_and_outputs_of_modules():
    changes = [
        group("module.net[0].exoscale_security_group.inner", name="inner"),
        group(f"{GROUP}.outer", name="outer"),
        new_rule("module.net[0].exoscale_security_group_rule.up", **HTTPS),
        new_rule(f"{RULE}.down", **HTTPS),
    ]
    module = {
        "resources": [configured(RULE, "up", security_group_id=refers("var.group"))],
        "outputs": {"id": {"expression": refers(f"{GROUP}.inner.id")}},
    }
    calls = {"net": {"expressions": {"group": refers(f"{GROUP}.outer.id")}, "module": module}}
    written = [configured(RULE, "down", security_group_id=refers("module.net[0].id"))]
    edits = _edits(*changes, resources=written, calls=calls)
    assert [edit["group"] for edit in edits if edit["edit"] == "add-rule"] == ["outer", "inner"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (new_rule(f"{RULE}.r", group_id=WEB, start_port=1, end_port=2), "expected a cidr or a user_security_group_id"),
        (new_rule(f"{RULE}.r", group_id=WEB, cidr="10.0.0.0/8"), "its start_port is known only after apply"),
        (new_rule(f"{RULE}.r", group_id=WEB, protocol="ESP", public_security_group="x"), "got public_security_group"),
        (new_rule(f"{RULE}.r", **HTTPS), "refers to nothing that the plan tells"),
        (group(f"{GROUP}.g"), "its name is known only after apply"),
    ],
)
def test_what_cannot_be_judged_is_said_with_its_resource(change, said):
    [line] = _left_out(change)
    assert line.startswith(f"{change['address']}: ")
    assert said in line


def test_other_resources_are_counted_and_who_wears_groups_is_said():
    wearer = ended("exoscale_compute_instance.vm", "exoscale_compute_instance", security_group_ids=[WEB])
    others = [ended(f"random_id.r{n}", "random_id") for n in range(2)]
    worn, rest = _left_out(wearer, *others)
    assert "exoscale_compute_instance.vm: which groups it wears" in worn
    assert rest.endswith(": 2 random_id")


def test_a_plan_that_is_not_whole_is_said_and_another_format_refused():
    assert "not complete" in _left_out(errored=True)[0]
    for text in ("{}", "[", plan(format_version="2.0")):
        with pytest.raises(Invalid, match=r"^plan.json: expected"):
            read_terraform(text, "plan.json")


def test_what_a_server_says_of_an_edit_is_told_of_its_resource():
    change = read_terraform(plan(new_rule(f"{RULE}.r", group_id=WEB, **HTTPS)), "plan.json")
    error = CallerError("edits[0].group: there is no security group")
    assert str(change.locate(error)).startswith(f"{RULE}.r: ")
