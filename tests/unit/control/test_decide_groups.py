"""Groups, rules and external sources: every decision and every refusal, without store or hosts."""

import pytest

from desk import NOWHERE, OPERATOR, OWNER, STRANGER, Desk, cidr, tcp
from ringfence.control.actor import Actor, Role, require_writer
from ringfence.policy.commands import (
    AddRule,
    AddSource,
    Attach,
    CreateGroup,
    DeleteGroup,
    DeleteRule,
    GroupReference,
    RemoveSource,
    RuleDraft,
)
from ringfence.policy.errors import Conflict, Denied, Invalid, NotFound
from ringfence.policy.model import GroupPeer
from ringfence.policy.values import Direction, Icmp, Protocol, Visibility


@pytest.fixture
def desk():
    return Desk()


def test_a_created_group_has_its_name_and_description_and_nothing_else(desk):
    (fact,) = desk.do(CreateGroup("web", "the web"))
    group = desk.snapshot.groups[fact.group.id]
    assert (group.name, group.description, group.rules, group.sources) == ("web", "the web", (), ())
    assert group.organisation == OWNER.organisation


def test_a_taken_name_conflicts_so_that_a_retried_create_makes_no_second_group(desk):
    desk.create("web")
    with pytest.raises(Conflict, match="a security group named web already exists"):
        desk.do(CreateGroup("web"))


def test_default_is_taken_from_the_start(desk):
    with pytest.raises(Conflict, match="named default already exists"):
        desk.do(CreateGroup("default"))


def test_names_are_unique_per_organisation_only(desk):
    desk.create("web")
    assert desk.create("web", STRANGER)


def test_a_public_and_a_private_group_may_have_the_same_name(desk):
    desk.create("web", OPERATOR, Visibility.PUBLIC)
    assert desk.create("web")


def test_only_the_operator_makes_public_groups(desk):
    with pytest.raises(Denied, match="by the operator"):
        desk.do(CreateGroup("dns", visibility=Visibility.PUBLIC))


def test_public_names_are_unique_over_all_organisations(desk):
    desk.create("dns", OPERATOR, Visibility.PUBLIC)
    stranger_operator = Actor(STRANGER.organisation, OPERATOR.name, Role.OPERATOR)
    with pytest.raises(Conflict, match="named dns already exists"):
        desk.do(CreateGroup("dns", visibility=Visibility.PUBLIC), stranger_operator)


def test_a_reader_may_change_nothing():
    with pytest.raises(Denied, match="may only read"):
        require_writer(Actor(OWNER.organisation, "EXOreader", Role.READER))


def commands_on(group, rule):
    return [
        DeleteGroup(group),
        AddRule(group, tcp("10.0.0.0/8")),
        DeleteRule(group, rule),
        AddSource(group, cidr("192.0.2.0/24")),
        RemoveSource(group, cidr("192.0.2.0/24")),
        Attach(group, NOWHERE),
    ]


@pytest.mark.parametrize("number", range(6))
def test_another_organisations_group_does_not_exist(desk, number):
    group = desk.create("web")
    rule = desk.add_rule(group, tcp("0.0.0.0/0"))
    with pytest.raises(NotFound, match=f"there is no security group {group}"):
        desk.do(commands_on(group, rule)[number], STRANGER)


@pytest.mark.parametrize("number", range(6))
def test_an_unknown_group_is_not_found(desk, number):
    with pytest.raises(NotFound, match=f"there is no security group {NOWHERE}"):
        desk.do(commands_on(NOWHERE, NOWHERE)[number])


@pytest.mark.parametrize("number", range(6))
def test_a_public_groups_id_is_unknown_to_callers_of_the_api(desk, number):
    group = desk.create("dns", OPERATOR, Visibility.PUBLIC)
    with pytest.raises(NotFound, match=f"there is no security group {group}"):
        desk.do(commands_on(group, NOWHERE)[number])


def test_the_operator_may_change_a_public_group(desk):
    group = desk.create("dns", OPERATOR, Visibility.PUBLIC)
    assert desk.do(AddSource(group, cidr("192.0.2.0/24")), OPERATOR)


def test_default_cannot_be_deleted(desk):
    with pytest.raises(Conflict, match="default cannot be deleted"):
        desk.do(DeleteGroup(desk.default))


def test_a_worn_group_cannot_be_deleted_and_its_wearers_are_named(desk):
    group = desk.create("web")
    for number in (2, 1):
        desk.do(Attach(group, desk.add_instance(f"web-{number}", f"10.0.0.{number}")))
    with pytest.raises(Conflict, match="in use by instances web-1, web-2"):
        desk.do(DeleteGroup(group))


def test_many_wearers_are_named_in_part(desk):
    group = desk.create("web")
    for number in range(12):
        desk.do(Attach(group, desk.add_instance(f"i-{number:02}", f"10.0.0.{number + 1}")))
    with pytest.raises(Conflict, match="i-08, i-09 and 2 more"):
        desk.do(DeleteGroup(group))


def test_a_group_that_anothers_rule_names_cannot_be_deleted(desk):
    web, db = desk.create("web"), desk.create("db")
    desk.add_rule(db, tcp(web))
    with pytest.raises(Conflict, match="referenced by rules of group db"):
        desk.do(DeleteGroup(web))


def test_a_public_group_that_a_stranger_names_cannot_be_deleted(desk):
    dns = desk.create("dns", OPERATOR, Visibility.PUBLIC)
    desk.add_rule(desk.create("app", STRANGER), tcp(GroupReference(None, "dns", Visibility.PUBLIC)), STRANGER)
    with pytest.raises(Conflict, match="referenced by rules of group app"):
        desk.do(DeleteGroup(dns), OPERATOR)


def test_a_rule_that_names_its_own_group_does_not_keep_it(desk):
    web = desk.create("web")
    desk.add_rule(web, tcp(web))
    desk.do(DeleteGroup(web))
    assert web not in desk.snapshot.groups


def test_an_added_rule_is_kept_as_given_and_comes_last(desk):
    web = desk.create("web")
    first = desk.add_rule(web, tcp("10.0.0.1/8", description="first"))
    second = desk.add_rule(web, tcp("10.0.0.1/8", description="second"))
    rules = desk.snapshot.groups[web].rules
    assert [rule.id for rule in rules] == [first, second]
    assert rules[0].peer.text == "10.0.0.1/8"


ICMP = RuleDraft(Direction.INGRESS, Protocol.ICMP, cidr("0.0.0.0/0"), icmp=Icmp(8, 0))


@pytest.mark.parametrize("draft", [tcp("10.0.0.0/8"), tcp("10.0.0.0/8", description="x"), ICMP])
def test_a_rule_equal_in_every_field_is_not_added_twice(desk, draft):
    web = desk.create("web")
    desk.add_rule(web, draft)
    assert desk.do(AddRule(web, draft)) == ()


@pytest.mark.parametrize(
    "other",
    [
        tcp("10.0.0.0/8", 23),
        tcp("10.0.0.0/8", description=""),
        tcp("10.0.0.1/8"),
        RuleDraft(Direction.EGRESS, Protocol.TCP, cidr("10.0.0.0/8"), 22, 22),
        RuleDraft(Direction.INGRESS, Protocol.UDP, cidr("10.0.0.0/8"), 22, 22),
        RuleDraft(Direction.INGRESS, Protocol.TCP, cidr("10.0.0.0/8"), 22, None),
    ],
)
def test_a_rule_that_differs_in_any_field_is_another_rule(desk, other):
    web = desk.create("web")
    desk.add_rule(web, tcp("10.0.0.0/8"))
    assert desk.add_rule(web, other)


def test_a_private_peer_is_found_by_its_id_whatever_name_comes_with_it(desk):
    web, db = desk.create("web"), desk.create("db")
    desk.add_rule(db, tcp(GroupReference(web, "db")))
    assert desk.snapshot.groups[db].rules[0].peer == GroupPeer(web)


def test_a_public_peer_is_found_by_its_name(desk):
    dns, web = desk.create("dns", OPERATOR, Visibility.PUBLIC), desk.create("web")
    desk.create("dns")
    desk.add_rule(web, tcp(GroupReference(None, "dns", Visibility.PUBLIC)))
    assert desk.snapshot.groups[web].rules[0].peer == GroupPeer(dns)


def test_a_peer_that_does_not_exist_is_refused_and_the_field_is_named(desk):
    web, foreign = desk.create("web"), desk.create("theirs", STRANGER)
    public = desk.create("dns", OPERATOR, Visibility.PUBLIC)
    references = [
        GroupReference(NOWHERE, None),
        GroupReference(foreign, None),
        GroupReference(public, None),
        GroupReference(None, "web", Visibility.PUBLIC),
    ]
    for reference in references:
        with pytest.raises(NotFound) as refusal:
            desk.do(AddRule(web, tcp(reference)))
        assert refusal.value.field == "$.security-group"


def test_a_private_peer_without_an_id_is_invalid(desk):
    with pytest.raises(Invalid) as refusal:
        desk.do(AddRule(desk.create("web"), tcp(GroupReference(None, "web"))))
    assert refusal.value.field == "$.security-group"


def test_protocol_all_needs_the_setting(desk):
    web = desk.create("web")
    command = AddRule(web, RuleDraft(Direction.INGRESS, Protocol.ALL, cidr("0.0.0.0/0")))
    with pytest.raises(Invalid, match=r"\$\.protocol: protocol all is not offered"):
        desk.do(command)
    assert desk.do(command, offer_all=True)


def test_a_deleted_rule_is_gone_and_deleting_it_again_finds_nothing(desk):
    web = desk.create("web")
    rule = desk.add_rule(web, tcp("10.0.0.0/8"))
    desk.do(DeleteRule(web, rule))
    assert desk.snapshot.groups[web].rules == ()
    with pytest.raises(NotFound, match=f"has no rule {rule}"):
        desk.do(DeleteRule(web, rule))


def test_a_rule_is_deleted_only_through_its_own_group(desk):
    web, db = desk.create("web"), desk.create("db")
    rule = desk.add_rule(web, tcp("10.0.0.0/8"))
    with pytest.raises(NotFound):
        desk.do(DeleteRule(db, rule))


def test_sources_are_a_set_by_network_that_keeps_the_first_spelling(desk):
    web = desk.create("web")
    desk.do(AddSource(web, cidr("2001:DB8::1/32")))
    assert desk.do(AddSource(web, cidr("2001:db8::/32"))) == ()
    assert [source.text for source in desk.snapshot.groups[web].sources] == ["2001:DB8::1/32"]


def test_a_source_is_removed_by_any_spelling_of_its_network(desk):
    web = desk.create("web")
    desk.do(AddSource(web, cidr("10.0.0.1/8")))
    desk.do(RemoveSource(web, cidr("10.200.0.0/8")))
    assert desk.snapshot.groups[web].sources == ()


def test_removing_an_absent_source_finds_nothing(desk):
    web = desk.create("web")
    desk.do(AddSource(web, cidr("10.0.0.0/8")))
    with pytest.raises(NotFound, match=r"has no external source 10\.0\.0\.0/9"):
        desk.do(RemoveSource(web, cidr("10.0.0.0/9")))
