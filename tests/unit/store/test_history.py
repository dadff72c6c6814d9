"""The chain of the history: whole after every way of writing, and broken visibly by every way of tampering."""

import json
from dataclasses import asdict
from hashlib import sha256
from uuid import UUID, uuid4

import pytest

from desk import ORGANISATION
from ringfence.control.use_cases import found_organisation
from ringfence.policy.facts import GroupCreated, apply_facts
from ringfence.policy.model import Group
from ringfence.store import AuditLine, Decision, HistoryQuery, Tidied, next_revision
from ringfence.store.history import check_lines, hash_of

AUDIT = AuditLine(ORGANISATION, 1000, "EXOowner", "CreateGroup", "web", "192.0.2.7", "request-1", "laptop")


@pytest.fixture
def store(place):
    """A store with a line of its founding, and one for each of the seconds 1000 to 1005."""
    store = place.open()
    store.submit(found_organisation(ORGANISATION, UUID(int=0xD), 900)).result()
    for future in [store.submit(creating(second)) for second in range(1000, 1006)]:
        future.result()
    yield store
    store.close()


def creating(second):
    def decide(snapshot):
        facts = (GroupCreated(Group(uuid4(), ORGANISATION, f"g{second}")),)
        after = apply_facts(snapshot, facts, revision=next_revision(snapshot))
        return Decision(None, facts=facts, after=after, audit=AUDIT._replace(at=second, subject=f"g{second} \u00e9"))

    return decide


def tidy(store, before):
    store.submit(lambda _: Decision(None, records=(Tidied(0, before),))).result()


def test_a_line_says_who_from_where_what_and_what_came_of_it(store):
    line = store.read_history(HistoryQuery(since=1005))[0]
    assert (line.number, line.at, line.actor, line.actor_name, line.address) == (
        7,
        1005,
        "EXOowner",
        "laptop",
        "192.0.2.7",
    )
    assert (line.action, line.subject, line.request_id) == ("CreateGroup", "g1005 \u00e9", "request-1")
    assert (line.revision_before, line.revision_after, line.result) == (6, 7, "applied")


QUERIES = [
    (HistoryQuery(after=3, limit=2), [4, 5]),
    (HistoryQuery(since=1003), [5, 6, 7]),
    (HistoryQuery(since=1001, until=1003), [3, 4]),
    (HistoryQuery(limit=2, newest=True), [6, 7]),
    (HistoryQuery(organisation=ORGANISATION, limit=1), [1]),
    (HistoryQuery(organisation=UUID(int=0xE)), []),
]


@pytest.mark.parametrize(("wanted", "numbers"), QUERIES)
def test_a_part_of_it_is_read(store, wanted, numbers):
    assert [line.number for line in store.read_history(wanted)] == numbers


def test_the_chain_goes_on_over_restarts_and_refused_changes(store, place):
    def refusing(_):
        raise ValueError

    with pytest.raises(Exception, match="deciding"):
        store.submit(refusing).result()
    store.close()
    again = place.open()
    again.submit(creating(1006)).result()
    assert asdict(again.check_history()) == {"lines": 8, "unchained": 0, "broken": None}
    again.close()


PUT_IN = """
    INSERT INTO audit (number, organisation, at, actor, action, subject, revision_before, revision_after, result, hash)
    SELECT 8, organisation, at, actor, action, subject, revision_before, revision_after, result, hash
    FROM audit WHERE number = 7
"""
TAMPERED = [
    ("UPDATE audit SET subject = 'other' WHERE number = 4", 4),
    ("UPDATE audit SET actor = 'EXOother' WHERE number = 7", 7),
    ("UPDATE audit SET at = at + 1 WHERE number = 1", 1),
    ("UPDATE audit SET result = 'unchanged' WHERE number = 5", 5),
    ("DELETE FROM audit WHERE number = 3", 4),
    ("DELETE FROM audit WHERE number <= 2", 3),
    ("UPDATE audit SET hash = NULL WHERE number <= 2", 3),
    ("UPDATE audit SET hash = NULL WHERE number = 4", 4),
    (PUT_IN, 8),
]


@pytest.mark.parametrize(("statement", "broken"), TAMPERED)
def test_the_first_line_that_is_not_what_was_written_is_found(store, place, statement, broken):
    assert store.check_history().broken is None
    place.run(statement)
    assert store.check_history().broken == broken


def test_what_is_forgotten_leaves_an_anchor_and_an_unbroken_chain(store, place):
    tidy(store, 1002)
    assert [line.at for line in store.read_history(HistoryQuery())] == [1002, 1003, 1004, 1005]
    assert asdict(store.check_history()) == {"lines": 4, "unchained": 0, "broken": None}
    exported = [asdict(line) for line in store.read_history(HistoryQuery())]
    assert check_lines(exported).broken is None
    tidy(store, 1002)
    tidy(store, 9999)  # the newest stays, whatever its age: the next one is chained to it
    store.submit(creating(1006)).result()
    assert [line.at for line in store.read_history(HistoryQuery())] == [1005, 1006]
    assert store.check_history().broken is None
    place.run("UPDATE meta SET value = '6 0000' WHERE name = 'history-anchor'")
    assert store.check_history().broken == 7


def test_lines_from_before_the_chain_are_counted_apart(store, place):
    store.close()
    place.run("UPDATE audit SET hash = NULL")
    again = place.open()
    again.submit(creating(1006)).result()
    again.submit(creating(1007)).result()
    assert asdict(again.check_history()) == {"lines": 2, "unchained": 7, "broken": None}
    tidy(again, 1003)
    assert asdict(again.check_history()) == {"lines": 2, "unchained": 3, "broken": None}
    again.close()


def test_an_exported_chain_shows_what_is_missing_in_it(store):
    exported = [asdict(line) for line in store.read_history(HistoryQuery())]
    assert check_lines(exported).broken is None
    assert check_lines([*exported[:3], *exported[4:]]).broken == 5
    assert check_lines([exported[1], exported[0]]).broken == 1
    assert check_lines([{**exported[0], "note": "x"}]).broken == 1


@pytest.mark.parametrize("texts", ["".join(map(chr, range(32))), *map(chr, range(32, 256)), "\u2028", "\U0001f512"])
def test_the_hash_is_of_ascii_json_with_sorted_keys_whatever_is_in_the_line(texts):
    line = {"b": texts, "a": 1, "c": None}
    expected = json.dumps(line, sort_keys=True, separators=(",", ":")).encode("ascii")
    assert hash_of({**line, "hash": "not part of it"}) == sha256(expected).hexdigest()
