"""Totals of rules' counters survive what the kernel's do not: a table made anew, a restarted agent, a lost server."""

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from fake_doors import FakeFiles
from fake_server import FakeServer
from ringfence.agent.counters import FILE, Gain, RuleCounts
from ringfence.policy.errors import OperatorError
from ringfence.policy.program.names import parse_rule_counter, rule_counter
from ringfence.policy.values import RuleId
from ringfence.wire.counters import MOST_COUNTS

FOLDER = Path("/agent")
ONE, TWO = RuleId(UUID(int=1)), RuleId(UUID(int=2))


class Scene:
    def __init__(self):
        self.files, self.server = FakeFiles(), FakeServer()
        self.counts = RuleCounts(self.files, FOLDER)

    def read(self, now=100.0, **packets):
        named = {"one": ONE, "two": TWO}
        others = {"spoofed": 9, "r_theirs": 9}
        self.counts.update({rule_counter(named[name]): n for name, n in packets.items()} | others, now)

    def restart(self):
        self.counts.save()
        self.counts = RuleCounts(self.files, FOLDER)
        self.counts.load()

    def told(self):
        asyncio.run(self.counts.send(self.server))
        return {rule: (count.judged, count.last_hit, count.since) for rule, count in self.server.counts.items()}


@pytest.fixture
def scene():
    return Scene()


def test_only_a_rules_counter_is_one():
    assert parse_rule_counter(rule_counter(ONE)) == ONE
    for name in ("r_", "spoofed", f"r_{'x' * 32}", rule_counter(ONE) + "0", f"d_{ONE.hex}"):
        assert parse_rule_counter(name) is None


def test_what_grew_is_added_and_dated(scene):
    scene.read(one=0, two=5)
    scene.read(110.0, one=3, two=5)
    assert scene.told() == {ONE: (3, 110.0, 100.0), TWO: (5, 100.0, 100.0)}


def test_a_counter_that_is_made_anew_loses_nothing_of_what_was_seen(scene):
    scene.read(one=7)
    scene.read(110.0, one=2)
    scene.read(120.0, one=0)
    scene.read(130.0, one=0)
    assert scene.told() == {ONE: (9, 110.0, 100.0)}


def test_a_restarted_agent_counts_nothing_twice_and_forgets_nothing(scene):
    scene.read(one=7)
    scene.restart()
    scene.read(200.0, one=8)
    assert scene.told() == {ONE: (8, 200.0, 100.0)}


def test_a_damaged_file_is_a_new_beginning(scene):
    for octets in (b"{", b'{"format":1,"rules":{"x":[1,1,null,0]}}', b"\xff"):
        scene.files.contents[FOLDER / FILE] = octets
        with pytest.raises(OperatorError, match="another version"):
            scene.counts.load()
        scene.read(one=1)
        assert scene.told()[ONE][0] == 1


def test_a_rule_that_is_gone_is_told_of_no_more(scene):
    scene.read(one=1, two=1)
    scene.counts.keep_only([ONE])
    assert scene.told().keys() == {ONE}


def test_a_table_that_is_gone_for_a_while_takes_no_total_with_it(scene):
    scene.read(one=7)
    scene.counts.update({}, 110.0)
    scene.read(120.0, one=0)
    scene.read(130.0, one=1)
    assert scene.told() == {ONE: (8, 130.0, 100.0)}


def test_a_rule_that_was_never_hit_is_told_of_too(scene):
    scene.read(one=0)
    assert scene.told() == {ONE: (0, None, 100.0)}


def test_only_what_changed_is_told_until_the_server_knows_nothing_any_more(scene):
    scene.read(one=1, two=1)
    scene.told()
    scene.server.counts.clear()
    scene.read(one=2, two=1)
    assert scene.told().keys() == {ONE}
    scene.server.counts.clear()
    scene.counts.tell_all()
    assert scene.told().keys() == {ONE, TWO}


def test_what_could_not_be_told_is_told_later(scene):
    scene.server.down = True
    scene.read(one=1)
    with pytest.raises(OperatorError):
        scene.told()
    scene.server.down = False
    assert scene.told().keys() == {ONE}


def test_many_rules_are_told_of_in_bounded_reports(scene):
    many = {rule_counter(RuleId(UUID(int=n))): 1 for n in range(2 * MOST_COUNTS + 1)}
    scene.counts.update(many, 1.0)
    assert len(scene.told()) == len(many)


def test_what_did_not_change_is_not_written_again(scene):
    scene.read(one=1)
    scene.counts.save()
    stamp = scene.files.stamp(FOLDER / FILE)
    scene.read(one=1)
    scene.counts.save()
    assert scene.files.stamp(FOLDER / FILE) == stamp


def test_what_connections_brought_adds_up_and_survives_a_restart(scene):
    scene.counts.add({ONE: Gain(2, 7, 900), TWO: Gain(1)}, 110.0)
    scene.restart()
    scene.counts.add({ONE: Gain(0, 1, 100)}, 120.0)
    scene.told()
    one, two = scene.server.counts[ONE], scene.server.counts[TWO]
    assert (one.connections, one.packets, one.octets, one.last_hit) == (2, 8, 1000, 110.0)
    assert (two.connections, two.packets, two.octets) == (1, None, None)
