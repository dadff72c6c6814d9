"""What a policy is as a document: by name, in an order of its own, each thing once."""

from dataclasses import replace

import policies
from ringfence.policy.commands import GroupReference
from ringfence.policy.desired import snapshot_of
from ringfence.policy.export import document_of
from ringfence.policy.model import Organisation
from ringfence.policy.values import Icmp, Kind, OrganisationId, RuleId, Visibility
from ringfence.wire.policy_file import read_policy, write_policy

OTHER = OrganisationId(policies.group_id("other"))


def _whole(*things):
    made = policies.snapshot(*things)
    return replace(made, organisations={policies.ORGANISATION: Organisation(policies.ORGANISATION, "first", None)})


def _document(*things):
    return document_of(_whole(*things), policies.ORGANISATION)


def _respelled(rule, **fields):
    return replace(rule, id=RuleId(policies.group_id(repr(fields))), **fields)


def test_rules_sources_and_names_stand_in_one_order_whatever_the_order_in_which_they_came():
    lines = ["egress udp/53 to 9.9.9.9/32", "ingress tcp/443 from group app", "ingress tcp/22 from 10.0.0.0/8"]
    sources = ["source 203.0.113.0/24", "source 2001:db8::/32", "source 192.0.2.0/24"]
    app = policies.group("app")
    one = _document(policies.group("web", *lines, *sources), app)
    other = _document(app, policies.group("web", *reversed(sources), *reversed(lines)))
    assert write_policy(one) == write_policy(other)
    assert [group.name for group in one.groups] == ["app", "web"]
    assert [source.text for source in one.groups[1].sources] == ["192.0.2.0/24", "203.0.113.0/24", "2001:db8::/32"]


def test_what_means_the_same_stands_once_whichever_spelling_came_first():
    rule = policies.rule("ingress tcp/443 from 10.0.0.1/8")
    ping = policies.rule("ingress icmp from 0.0.0.0/0")
    rules = (
        rule,
        _respelled(rule, end_port=None),
        _respelled(rule, start_port=None, peer=policies.cidr("10.0.0.0/8")),
        ping,
        _respelled(ping, icmp=Icmp(-1, -1)),
    )
    group = replace(
        policies.group("web"), rules=rules, sources=(policies.cidr("192.0.2.1/24"), policies.cidr("192.0.2.0/24"))
    )
    [exported] = _document(group).groups
    assert [(one.start_port, one.end_port, one.icmp, one.peer.text) for one in exported.rules] == [
        (443, 443, None, "10.0.0.0/8"),
        (None, None, None, "0.0.0.0/0"),
    ]
    assert [source.text for source in exported.sources] == ["192.0.2.0/24"]


def test_a_description_tells_rules_apart():
    rule = policies.rule("ingress tcp/443 from 10.0.0.0/8")
    group = replace(policies.group("web"), rules=(rule, _respelled(rule, description="everybody")))
    [exported] = _document(group).groups
    assert [one.description for one in exported.rules] == [None, "everybody"]


def test_a_public_group_of_another_organisation_comes_along_when_a_rule_names_it():
    public = replace(policies.group("resolvers", "source 9.9.9.9/32"), visibility=Visibility.PUBLIC, organisation=OTHER)
    unnamed = replace(policies.group("others"), visibility=Visibility.PUBLIC, organisation=OTHER)
    private = replace(policies.group("theirs"), organisation=OTHER)
    document = _document(policies.group("web", "egress udp/53 to group resolvers"), public, unnamed, private)
    assert [group.name for group in document.groups] == ["web", "resolvers"]
    assert document.groups[0].rules[0].peer == GroupReference(None, "resolvers", Visibility.PUBLIC)


def test_a_private_and_a_public_group_of_one_name_are_two():
    public = replace(policies.group("public web"), name="web", visibility=Visibility.PUBLIC)
    wearer = policies.instance("a", "10.0.0.1", wears=["public web"])
    document = _document(public, policies.group("web"), wearer)
    keys = (Visibility.PRIVATE, "web"), (Visibility.PUBLIC, "web")
    assert tuple(group.key for group in document.groups) == keys
    assert (document.instances[0].groups, document.instances[0].public_groups) == ((), ("web",))


def test_instances_are_named_by_id_only_where_a_name_is_not_enough():
    one, other = policies.instance("a", "10.0.0.1", wears=["web"]), policies.instance("b", "10.0.0.2")
    twin = replace(policies.instance("c", "10.0.0.3"), name="b", observe=True)
    document = _document(policies.group("web"), one, other, twin)
    assert {each.name for each in document.instances} == {"a", str(other.id), str(twin.id)}
    by_name = {each.name: each for each in document.instances}
    assert (by_name["a"].groups, by_name["a"].observe) == (("web",), None)
    assert by_name[str(twin.id)].observe is True


def test_a_host_that_is_its_own_instance_is_exported_with_whether_it_is_observed():
    made = policies.instance("h", "10.0.0.1")
    host = replace(made, interfaces=tuple(replace(one, kind=Kind.SELF) for one in made.interfaces))
    [exported] = _document(host).instances
    assert (exported.kind, exported.observe) == (Kind.SELF, False)
    text = write_policy(_document(host))
    [offline] = snapshot_of(read_policy(text, "policy").document).instances.values()
    assert (offline.interfaces[0].kind, offline.observe) == (Kind.SELF, False)
