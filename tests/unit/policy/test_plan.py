"""What a change opens and closes, in words."""

from dataclasses import replace

from policies import group, instance, rule, snapshot
from ringfence.policy.insight.plan import compare
from ringfence.policy.insight.portray import portray_plan

INSTANCES = (
    instance("web-1", "192.0.2.1", wears=("web",)),
    instance("app-1", "192.0.2.2", wears=("app",)),
    instance("db-1", "192.0.2.3", wears=("db",)),
)
WEB = group("web", "ingress tcp/443 from 0.0.0.0/0", "egress tcp/5432 to group db")
APP = group("app", "egress tcp/5432 to group db")
DB = group("db", "ingress tcp/5432 from group app")
POLICY = snapshot(WEB, APP, DB, *INSTANCES)


def _said(*things):
    """What is opened, and what is closed, by a change from ``POLICY``, without the rules."""
    opens, closes = portray_plan(compare(POLICY, snapshot(*things, revision=2)))
    return tuple([(row.sources, row.destinations, row.services) for row in rows] for rows in (opens, closes))


def _with(one, *lines):
    return replace(one, rules=(*one.rules, *(rule(line, one.name) for line in lines)))


def test_a_rule_opens_what_both_sides_allow():
    opens, closes = portray_plan(
        compare(POLICY, snapshot(WEB, APP, _with(DB, "ingress tcp from group web"), *INSTANCES))
    )
    [row] = opens
    assert closes == []
    assert (row.sources, row.destinations, row.services) == (("group web",), ("group db",), "tcp/5432")
    assert [words.split(",")[1].strip() for words in row.rules] == [
        "ingress tcp from group web",
        "egress tcp/5432 to group db",
    ]


def test_a_rule_that_allows_what_another_does_changes_nothing():
    assert _said(WEB, APP, _with(DB, "ingress tcp/5432 from 192.0.2.2/32"), *INSTANCES) == ([], [])


def test_everybody_is_said_in_one_word_and_who_may_not_leave_is_left_out():
    assert _said(_with(WEB, "ingress tcp/22 from 0.0.0.0/0"), APP, DB, *INSTANCES) == (
        [(("internet", "private networks", "group db"), ("group web",), "tcp/22")],
        [],
    )
    idle = instance("idle", "192.0.2.9")
    before, after = (
        snapshot(group("idle", *lines), replace(idle, groups=(group("idle").id,)))
        for lines in ((), ("ingress tcp/22 from 0.0.0.0/0",))
    )
    [[row], []] = portray_plan(compare(before, after))
    assert row.sources == ("any",)


def test_what_is_closed_is_named_as_it_was():
    ungrouped = replace(INSTANCES[1], groups=(group("idle").id,))
    opens, closes = _said(WEB, DB, group("idle"), *INSTANCES[::2], ungrouped)
    assert opens == [
        (("group idle",), ("group web",), "tcp/443"),
        (("group idle",), ("internet", "private networks"), "any"),
    ]
    assert closes == [(("group app",), ("group db",), "tcp/5432")]


def test_a_first_egress_rule_closes_everything_else():
    opens, closes = _said(WEB, APP, _with(DB, "egress udp/53 to 192.0.2.2/32"), *INSTANCES)
    assert opens == []
    assert (("group db",), ("group web",), "tcp/443") in closes
    assert (("group db",), ("internet", "private networks"), "any") in closes


def test_an_instance_that_is_new_reaches_nobody_before():
    more = instance("app-2", "192.0.2.4", wears=("app",))
    assert _said(WEB, APP, DB, *INSTANCES, more) == ([(("app-2",), ("group db",), "tcp/5432")], [])


def test_whoever_comes_into_a_group_reaches_what_rules_allow_it():
    sourced = replace(APP, sources=group("any", "source 203.0.113.0/24").sources)
    assert _said(WEB, sourced, DB, *INSTANCES) == ([(("203.0.113.0/24",), ("group db",), "tcp/5432")], [])
    joined = replace(INSTANCES[0], groups=(*INSTANCES[0].groups, APP.id))
    assert _said(WEB, APP, DB, joined, *INSTANCES[1:]) == ([(("group web",), ("group db",), "tcp/5432")], [])


def test_a_row_names_no_rule_that_lets_something_else_pass_between_the_same_ends():
    web = group("web", "ingress tcp/443 from 0.0.0.0/0", "ingress tcp/80 from 203.0.113.0/24")
    db = group("db", "ingress tcp/443 from 0.0.0.0/0")
    before = snapshot(web, db, *INSTANCES[::2])
    after = snapshot(replace(web, rules=web.rules[:1]), replace(db, rules=()), *INSTANCES[::2])
    _, closes = portray_plan(compare(before, after))
    [row] = [row for row in closes if row.destinations == ("group web",)]
    assert [words.partition(" of group ")[2] for words in row.rules] == ["web, ingress tcp/80 from 203.0.113.0/24"]
