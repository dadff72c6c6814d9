"""What was refused of instances, as rows: whose addresses they are, what adds up, and in which order."""

from dataclasses import replace

import msgspec

from policies import group, instance, snapshot
from ringfence.control.flow_book import Tally
from ringfence.control.observations import report_refused
from ringfence.policy.values import Direction
from ringfence.wire.flows import RATE_LIMIT, FlowRecord

WEB = instance("web", "10.0.0.1", "fd00::1")
APP = instance("app", "10.0.0.2", "10.0.0.3")
TWIN = replace(instance("twin", "10.0.0.2"), realm="other")
RECORD = FlowRecord(
    1.5, "veth-web", WEB.id, Direction.INGRESS, "would-drop", "default ingress", 6, "10.0.0.2", "10.0.0.1", 1, 22
)


def _tally(packets=1, at=1.5, **changes):
    return Tally(msgspec.structs.replace(RECORD, **changes), packets, at, at + 1)


def test_the_addresses_of_one_peer_add_up_and_the_most_comes_first():
    tallies = [_tally(2, at=9.0), _tally(3, at=4.0, source="10.0.0.3"), _tally(7, source="192.0.2.9")]
    rows = report_refused(snapshot(WEB, APP), [WEB], tallies)
    assert [(row["peer"], row["service"], row["packets"]) for row in rows] == [
        ("192.0.2.9", "tcp/22", 7),
        ("app", "tcp/22", 5),
    ]
    assert (rows[1]["first"], rows[1]["last"]) == ("1970-01-01T00:00:04+00:00", "1970-01-01T00:00:10+00:00")
    assert report_refused(snapshot(WEB, APP), [WEB], tallies[::-1]) == rows


def test_an_address_that_nobody_has_is_shown_with_the_groups_whose_source_it_is():
    groups = group("office", "source 192.0.2.0/24"), group("all6", "source ::/0"), group("away", "source 192.0.3.0/24")
    [row] = report_refused(snapshot(WEB, *groups), [WEB], [_tally(source="192.0.2.9")])
    assert (row["peer"], row["groups"]) == ("192.0.2.9", ["office"])


def test_an_address_that_two_have_is_nobodys_name():
    [row] = report_refused(snapshot(WEB, APP, TWIN), [WEB], [_tally()])
    assert row["peer"] == "10.0.0.2"


def test_of_what_leaves_the_peer_is_the_destination_and_others_instances_and_allowed_flows_are_left_out():
    leaving = _tally(direction=Direction.EGRESS, source="10.0.0.1", destination="10.0.0.3")
    others = _tally(instance=APP.id), _tally(verdict="allow"), _tally(instance=None)
    [row] = report_refused(snapshot(WEB, APP), [WEB], [leaving, *others])
    assert (row["direction"], row["peer"]) == ("egress", "app")


def test_what_was_only_counted_and_what_has_no_ports_is_shown_as_such():
    counted = Tally(FlowRecord(1.0, "veth-web", WEB.id, None, "would-drop", RATE_LIMIT, packets=90), 90, 1.0, 1e300)
    echo = _tally(protocol=1, destination_port=None, icmp_type=8, icmp_code=0)
    strange = _tally(protocol=132, destination_port=None, source="192.0.2.9")
    rows = report_refused(snapshot(WEB, APP), [WEB], [echo, counted, strange])
    assert [(row["peer"], row["service"]) for row in rows] == [
        (None, None),
        ("192.0.2.9", "protocol 132"),
        ("app", "icmp/8/0"),
    ]
