"""What a change would do beside opening and closing: the hosts, and the connections that it would cut."""

from dataclasses import replace

import msgspec

from policies import group, instance, rule, snapshot
from ringfence.control.flow_book import Tally
from ringfence.control.planning import Seen, look_ahead, show_outlook
from ringfence.control.views import find_touched
from ringfence.policy.values import Direction, HostName
from ringfence.wire.flows import ALLOWED, FlowRecord

WEB = group("web", "ingress tcp/443 from 0.0.0.0/0", "ingress tcp/80 from 0.0.0.0/0")
APP = group("app")
DB = group("db", "ingress tcp/5432 from group app")
INSTANCES = (
    instance("web-1", "192.0.2.1", wears=("web",), host="h1"),
    instance("app-1", "192.0.2.2", wears=("app",), host="h2"),
    instance("db-1", "192.0.2.3", wears=("db",), host="h3"),
)
BEFORE = snapshot(WEB, APP, DB, *INSTANCES)
COUNTED = FlowRecord(1.0, "tap0", None, Direction.INGRESS, "would-drop", "rate limit")
AFTER = snapshot(replace(WEB, rules=WEB.rules[:1]), APP, DB, *INSTANCES, revision=2)


def _began(port, source_port=40000, **known):
    record = FlowRecord(1767225600.0, "tap0", None, None, ALLOWED, "rule", 6, "203.0.113.9", "192.0.2.1")
    return msgspec.structs.replace(record, destination_port=port, source_port=source_port, **known)


def test_only_hosts_that_would_get_other_rules_are_named():
    assert find_touched(BEFORE, AFTER) == ["h1"]
    assert find_touched(BEFORE, snapshot(WEB, replace(APP, sources=DB.sources), DB, *INSTANCES)) == []
    moved = replace(INSTANCES[1], groups=(WEB.id,))
    assert find_touched(BEFORE, snapshot(WEB, APP, DB, INSTANCES[0], moved, INSTANCES[2])) == ["h2", "h3"]


def test_connections_that_would_be_cut_are_counted_once_of_those_that_a_host_told_of():
    told = [_began(80), _began(80), _began(80, 40001), _began(443), _began(80, source=None)]
    [cut] = show_outlook(look_ahead(BEFORE, AFTER), Seen({HostName("h1"): told}))["connections"]
    assert cut == {"host": "h1", "cut": 2, "since": "2026-01-01T00:00:00+00:00"}


def test_of_a_host_that_told_of_none_the_number_is_unknown_and_without_closing_nobody_is_asked():
    [cut] = show_outlook(look_ahead(BEFORE, AFTER), Seen({}))["connections"]
    assert (cut["cut"], cut["since"]) == (None, None)
    assert show_outlook(look_ahead(AFTER, BEFORE), Seen({}))["connections"] == []


def test_an_assertion_that_fails_afterwards_is_shown_with_its_packet():
    outlook = look_ahead(BEFORE, AFTER, ["internet -> web tcp/80 allow", "internet -> web tcp/443 allow"])
    [fails] = show_outlook(outlook)["fails"]
    assert fails["assertion"] == "internet -> web tcp/80 allow"
    assert fails["packet"]["service"] == "tcp/80"


def test_a_finding_that_was_there_before_is_none_of_the_change_s():
    opened = snapshot(replace(WEB, rules=(*WEB.rules, rule("ingress tcp/22 from 0.0.0.0/0"))), APP, DB, *INSTANCES)
    [finding] = show_outlook(look_ahead(BEFORE, opened))["findings"]
    assert (finding["code"], finding["group"]) == ("open-management", "web")
    again = replace(opened, groups={id_: replace(one, description="x") for id_, one in opened.groups.items()})
    assert show_outlook(look_ahead(opened, again))["findings"] == []


def test_what_passed_because_it_was_observed_and_no_rule_lets_in_by_now_would_be_dropped():
    watched = snapshot(WEB, APP, DB, replace(INSTANCES[0], observe=True), *INSTANCES[1:])

    def seen(port, reason="default ingress", verdict="would-drop", instance_=INSTANCES[0]):
        record = _began(port, verdict=verdict, reason=reason, instance=instance_.id, direction=Direction.INGRESS)
        return Tally(record, 2, 1.0, 2.0)

    told = [seen(8080), seen(443), seen(443, "mid-stream"), seen(22, verdict="drop"), seen(22, instance_=INSTANCES[1])]
    told.append(Tally(msgspec.structs.replace(COUNTED, instance=INSTANCES[0].id), 9, 1.0, 2.0))
    drops = show_outlook(look_ahead(watched, BEFORE), Seen({}, told))["drops"]
    assert [(row["service"], row["reason"], row["packets"]) for row in drops] == [
        (None, "rate limit", 9),
        ("tcp/8080", "default ingress", 2),
        ("tcp/443", "mid-stream", 2),
    ]
    assert show_outlook(look_ahead(BEFORE, AFTER), Seen({}, told))["drops"] == []
