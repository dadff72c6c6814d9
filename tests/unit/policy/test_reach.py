"""Ends in words, and the cells of a matrix."""

import pytest

from policies import group, instance, snapshot
from ringfence.policy.errors import Invalid, NotFound
from ringfence.policy.insight.matrix import draw_matrix
from ringfence.policy.insight.portray import portray_matrix, portray_reach
from ringfence.policy.insight.reach import Reachability
from ringfence.policy.insight.services import parse_services

POLICY = snapshot(
    group("web", "ingress tcp/443 from 0.0.0.0/0", "egress tcp/5432 to group db", "egress icmp to 0.0.0.0/0"),
    group("db", "ingress tcp/5432-5433 from group web", "ingress icmp from group web"),
    group("office", "source 203.0.113.0/24"),
    group("twin"),
    instance("web-1", "192.0.2.1", wears=("web",)),
    instance("db-1", "192.0.2.2", "2001:db8::2", wears=("db",)),
    instance("twin", "192.0.2.3", wears=("twin",)),
)


def _rows(source, destination):
    made = Reachability(POLICY)
    return [(row.sources, row.destinations, row.services) for row in portray_reach(made, made.ask(source, destination))]


def test_both_sides_must_allow_and_only_what_both_do_is_in_the_answer():
    assert _rows("web", "db") == [
        (("group web",), ("group db",), "tcp/5432, icmp/0-4, icmp/6-255"),
    ]


def test_a_group_stands_for_its_sources_too():
    assert _rows("office", "web-1") == [(("203.0.113.0/24",), ("web-1",), "tcp/443")]


def test_nobody_is_reached_over_a_family_that_no_rule_opens():
    assert _rows("2001:db8::99", "db") == []


def test_an_instance_reaches_itself_in_no_row():
    assert _rows("db-1", "db-1") == []


@pytest.mark.parametrize("word", ["twin", "dbb", "10.0.0.0/99", "127.0.0.1"])
def test_a_word_that_means_nobody_or_several_is_refused(word):
    with pytest.raises((Invalid, NotFound), match=r"^to: "):
        Reachability(POLICY).ask("any", word)
    assert len(Reachability(POLICY).ask("any", "instance:twin").parts) == 0


def test_the_matrix_holds_every_pair_that_may_talk_with_its_rules():
    made = Reachability(POLICY)
    rows = {(row.sources[0], row.destinations[0]): row for row in portray_matrix(POLICY, draw_matrix(made.grants))}
    assert rows["web", "db"].services == "tcp/5432, icmp/0-4, icmp/6-255"
    assert len(rows["web", "db"].rules) == 4
    assert rows["internet", "web"].services == "tcp/443"
    assert rows["office", "web"].services == "tcp/443"
    assert ("office", "db") not in rows
    assert ("web", "web") not in rows
    asked = parse_services("tcp/5432", field="it")
    found = portray_matrix(POLICY, draw_matrix(made.grants), asked)
    row = next(row for row in found if (row.sources[0], row.destinations[0]) == ("web", "db"))
    assert (row.services, ["icmp" in rule for rule in row.rules]) == ("tcp/5432", [False, False])
