"""The server's memory of refused packets: bounded, numbered, and no host believed about another's instances."""

import msgspec
import pytest

from policies import instance, snapshot
from ringfence.control.flow_book import MOST_KEPT, FlowBook
from ringfence.policy.errors import Invalid
from ringfence.policy.values import Direction
from ringfence.wire.flows import (
    MOST_RECORDS,
    FlowRecord,
    FlowReport,
    decode_flow_report,
    encode_flow_report,
)

WEB, DB = instance("web", "10.0.0.1"), instance("db", "10.0.0.2", host="h2")
SNAPSHOT = snapshot(WEB, DB)
RECORD = FlowRecord(
    1.5, "veth-web", WEB.id, Direction.INGRESS, "drop", "default ingress", 6, "10.0.0.9", "10.0.0.1", 1, 22
)


def test_records_are_numbered_over_all_hosts_and_found_by_number_and_host():
    book = FlowBook()
    for host in ("h1", "h2", "h1"):
        book.add(host, FlowReport((RECORD,)), SNAPSHOT)
    assert [(kept.number, kept.host) for kept in book.after(0)] == [(1, "h1"), (2, "h2"), (3, "h1")]
    assert [kept.number for kept in book.after(1, "h1")] == [3]
    book.forget("h1")
    assert [kept.number for kept in book.after(0)] == [2]


def test_who_knows_a_number_of_before_a_restart_gets_all_that_came_since():
    book = FlowBook()
    assert book.after(500) == []
    book.add("h1", FlowReport((RECORD, RECORD)), SNAPSHOT)
    assert [kept.number for kept in book.after(500)] == [1, 2]
    assert [kept.number for kept in book.after(2)] == []


def test_a_host_that_floods_pushes_out_its_own_records_alone():
    book = FlowBook()
    book.add("h2", FlowReport((RECORD,)), SNAPSHOT)
    for _ in range(MOST_KEPT // MOST_RECORDS + 2):
        book.add("h1", FlowReport((RECORD,) * MOST_RECORDS, untold=3), SNAPSHOT)
    assert len(book.after(0, "h1")) == MOST_KEPT
    assert len(book.after(0, "h2")) == 1


def test_what_was_not_told_stands_with_the_next_record():
    book = FlowBook()
    book.add("h1", FlowReport((), untold=3), SNAPSHOT)
    book.add("h1", FlowReport((RECORD, RECORD), untold=4), SNAPSHOT)
    assert [kept.untold for kept in book.after(0)] == [7, 0]


def test_an_instance_that_is_not_the_hosts_own_is_not_believed():
    book = FlowBook()
    foreign = msgspec.structs.replace(RECORD, instance=DB.id, peer_groups=(WEB.groups or (DB.id,)))
    book.add("h1", FlowReport((RECORD, foreign)), SNAPSHOT)
    assert [kept.record.instance for kept in book.after(0)] == [WEB.id, None]
    assert book.after(0)[1].record.peer_groups == ()


def test_a_report_comes_over_as_it_was_sent():
    report = FlowReport((RECORD, msgspec.structs.replace(RECORD, instance=None, source="::", icmp_type=8)), untold=2)
    assert decode_flow_report(encode_flow_report(report)) == report


def test_what_a_newer_agent_says_besides_is_passed_over():
    document = msgspec.json.decode(encode_flow_report(FlowReport((RECORD,))))
    newer = document | {"extra": 1, "records": [document["records"][0] | {"more": 1}]}
    assert decode_flow_report(msgspec.json.encode(newer)) == FlowReport((RECORD,))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 1},
        {"format": None},
        {"untold": -1},
        {"records": [{}] * (MOST_RECORDS + 1)},
        *(
            {"records": [{**msgspec.to_builtins(RECORD), field: value}]}
            for field, value in {
                "source": "10.0.0.0/8",
                "destination": "x" * 46,
                "interface": "veth web",
                "verdict": "drop\x1b[2J",
                "reason": "R" * 40,
                "direction": "sideways",
                "source-port": 65536,
                "protocol": 256,
                "instance": "web",
                "at": "now",
                "peer-groups": [str(WEB.id)] * 33,
            }.items()
        ),
    ],
)
def test_a_report_of_another_shape_is_refused_whole(change):
    document = msgspec.json.decode(encode_flow_report(FlowReport((RECORD,))))
    decode_flow_report(msgspec.json.encode(document))
    with pytest.raises(Invalid):
        decode_flow_report(msgspec.json.encode({**document, **change}))


@pytest.mark.parametrize("octets", [b"", b"[]", b"\xff", b"[" * 5000])
def test_what_is_no_report_is_refused(octets):
    with pytest.raises(Invalid):
        decode_flow_report(octets)


def test_records_of_one_flow_add_up_beyond_what_is_kept_of_each_and_a_flood_pushes_out_its_own_hosts_alone():
    book = FlowBook()
    book.add("h2", FlowReport((msgspec.structs.replace(RECORD, instance=DB.id),)), SNAPSHOT)
    for at in range(2, 10):
        again = msgspec.structs.replace(RECORD, at=float(at), source_port=at)
        book.add("h1", FlowReport((again,) * MOST_RECORDS), SNAPSHOT)
    [tally, other] = sorted(book.tallies(), key=lambda tally: -tally.packets)
    assert (tally.packets, tally.first, tally.last, tally.record.source_port) == (8 * MOST_RECORDS, 2.0, 9.0, 9)
    many = [msgspec.structs.replace(RECORD, destination_port=port) for port in range(MOST_KEPT)]
    for start in range(0, MOST_KEPT, MOST_RECORDS):
        book.add("h1", FlowReport(tuple(many[start : start + MOST_RECORDS])), SNAPSHOT)
    assert len(book.tallies()) == MOST_KEPT + 1
    assert other in book.tallies()
    allowed = msgspec.structs.replace(RECORD, verdict="allow")
    book.add("h1", FlowReport((allowed,)), SNAPSHOT)
    assert len(book.tallies(allowed=True)) == MOST_KEPT + 2
    book.forget("h1")
    assert book.tallies(allowed=True) == [other]


def test_a_flow_that_goes_on_is_not_pushed_out_by_others_that_began_later():
    book = FlowBook()

    def add(*ports):
        book.add(
            "h1", FlowReport(tuple(msgspec.structs.replace(RECORD, destination_port=port) for port in ports)), SNAPSHOT
        )

    add(22)
    for start in range(1000, 1000 + MOST_KEPT, MOST_RECORDS):
        add(22, *range(start, start + MOST_RECORDS - 1))
    [steady] = [tally for tally in book.tallies() if tally.record.destination_port == 22]
    add(*range(5000, 5000 + MOST_RECORDS))
    assert steady in book.tallies()
