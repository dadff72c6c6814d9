"""What lint finds, of one rule and of what follows from who there is; and what it does not find."""

from dataclasses import replace

import pytest

from policies import group, group_id, instance, snapshot
from ringfence.policy.insight.grants import Grants
from ringfence.policy.insight.lint import Severity
from ringfence.policy.insight.lint_change import new_findings
from ringfence.policy.insight.lint_reach import lint
from ringfence.policy.insight.population import Population
from ringfence.policy.insight.reach import Reachability

WEB = instance("web-1", "192.0.2.1", "2001:db8::1", wears=("web",))
APP = instance("app-1", "192.0.2.2", wears=("app",))
OPEN = "ingress tcp/443 from 0.0.0.0/0"


def _found(*things):
    return [(one.severity, one.code.value) for one in lint(Reachability(snapshot(*things)))]


def _of(*things):
    return {code for _, code in _found(*things)}


@pytest.mark.parametrize(
    ("line", "severity", "code"),
    [
        ("ingress tcp/22 from 0.0.0.0/0", Severity.ERROR, "open-management"),
        ("ingress tcp/20-25 from ::/0", Severity.ERROR, "open-management"),
        ("ingress tcp from 0.0.0.0/1", Severity.ERROR, "open-management"),
        ("ingress udp/161 from 2000::/3", Severity.ERROR, "open-management"),
        ("ingress tcp/22 from group office", Severity.ERROR, "open-management"),
        ("ingress tcp/8080 from group empty", Severity.WARNING, "empty-peer"),
        ("ingress tcp/8080 from group missing", Severity.WARNING, "empty-peer"),
        ("ingress icmp/8 from 2001:db8::/32", Severity.WARNING, "family"),
        ("ingress icmpv6/128 from 192.0.2.0/24", Severity.WARNING, "family"),
        ("ingress tcp/8080 from 10.0.0.1/8", Severity.NOTE, "host-bits"),
        ("egress tcp/443 to 0.0.0.0/0", Severity.WARNING, "no-dns"),
        ("egress ah to 2001:db8::/32", Severity.WARNING, "no-pmtu"),
        ("ingress tcp/8080 from 127.0.0.0/8", Severity.NOTE, "no-effect"),
    ],
)
def test_a_doubtful_rule_is_found(line, severity, code):
    things = (group("web", line), group("office", "source 0.0.0.0/0"), group("empty"), WEB)
    assert (severity, code) in _found(*things)


@pytest.mark.parametrize(
    "lines",
    [
        (OPEN,),
        ("ingress tcp/22 from 203.0.113.0/24",),
        ("ingress tcp/22 from 16.0.0.0/8",),  # wide, and somebody's
        ("ingress icmpv6/128 from ::/0", "ingress icmp/8 from 0.0.0.0/0"),
        ("egress udp/53 to 9.9.9.9/32", "egress udp/53 to 2001:db8::9/128", "egress tcp/443 to 0.0.0.0/0"),
        ("egress all to ::/0", "egress all to 0.0.0.0/0", "egress tcp/22 to group web"),
        ("ingress tcp/8080 from group web", "ingress tcp/8080 from group app"),
        ("egress ah to 2001:db8::/32", "egress all to 0.0.0.0/0", "egress udp to ::/0", "ingress icmpv6/2/0 from ::/0"),
    ],
)
def test_what_is_not_doubtful_is_not_found(lines):
    assert _of(group("web", *lines), group("app", OPEN), WEB, APP) - {"redundant"} == set()


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ("ingress tcp/20-25 from 10.0.0.0/8", "ingress tcp/22 from 10.1.0.0/16", "shadowed"),
        ("ingress tcp/22 from 10.1.0.0/16", "ingress tcp/20-25 from 10.0.0.0/8", "shadowed"),
        ("ingress all from 10.0.0.0/8", "ingress icmp/8 from 10.0.0.0/8", "shadowed"),
        ("ingress tcp/22 from group app", "ingress tcp/22 from group app", "shadowed"),
        ("ingress tcp/22 from 192.0.2.0/24", "ingress tcp/22 from group app", "redundant"),
        ("ingress tcp/80-90 from 10.0.0.0/8", "ingress tcp/85-95 from 10.1.0.0/16", "overlapping"),
    ],
)
def test_of_two_rules_the_needless_or_overlapping_one_is_found_once(first, second, wanted):
    found = lint(Reachability(snapshot(group("web", first, second), group("app", OPEN), WEB, APP)))
    assert [one.code.value for one in found] == [wanted]
    assert found[0].proof


def test_all_of_a_rule_must_be_allowed_by_others_before_it_is_needless():
    halves = ("ingress tcp/80 from 0.0.0.0/1", "ingress tcp/80 from 128.0.0.0/1")
    whole = group("app", "ingress tcp/80 from 0.0.0.0/0")
    both = instance("i", "192.0.2.7", wears=("web", "app"))
    assert _of(group("web", *halves), whole, both) == {"redundant"}
    assert _of(group("web", *halves[:1]), group("app", "ingress tcp/80 from 128.0.0.0/2"), both) == set()


def test_a_rule_that_ends_earlier_makes_no_other_needless():
    web = group("web", "ingress tcp/80 from 10.0.0.0/8", "ingress tcp/80 from 10.1.0.0/16")
    wide, narrow = web.rules
    assert _of(replace(web, rules=(replace(wide, expires_at=7), narrow)), WEB) == {"overlapping"}
    assert _of(replace(web, rules=(replace(wide, expires_at=7), replace(narrow, expires_at=6))), WEB) == {"shadowed"}


@pytest.mark.parametrize(
    ("lines", "wanted"), [((OPEN,), {"unworn"}), (("source 192.0.2.0/24",), {"unworn"}), ((), set())]
)
def test_a_group_that_does_nothing_for_anybody_is_found(lines, wanted):
    assert _of(group("old", *lines)) == wanted


def test_a_source_with_bits_beyond_its_prefix_is_found_and_the_gravest_comes_first():
    things = (group("web", "source 10.0.0.1/8", "ingress tcp/22 from 0.0.0.0/0", "ingress tcp/1 from group empty"), WEB)
    assert [code for _, code in _found(*things)] == ["open-management", "empty-peer", "host-bits"]
    assert lint(Reachability(snapshot(*things)))[0].group == group_id("web")


def _new(before, after):
    population = Population(snapshot(*before), snapshot(*after))
    found = new_findings(Grants(population, 0), Grants(population, 1))
    return [(one.code.value, one.group) for one in found]


def test_a_rule_that_another_group_makes_needless_is_new():
    both = instance("x", "192.0.2.3", wears=("app", "web"))
    before = (group("app", "ingress tcp/443 from 10.0.0.0/8"), group("web"), both)
    assert _new(before, (before[0], group("web", OPEN), both)) == [("redundant", group_id("app"))]


def test_sources_that_no_rule_names_any_more_are_new():
    office = group("office", "source 203.0.113.0/24")
    before = (group("web", "ingress tcp/443 from group office"), office, WEB)
    assert _new(before, (group("web"), office, WEB)) == [("unworn", group_id("office"))]
