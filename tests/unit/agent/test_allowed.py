"""Allowed connections: whose they are, which rule let them pass, and never more of them than a bound."""

import asyncio
import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from fake_doors import FakeClock, FakeConnections, FakeFiles
from ringfence.agent.allowed import BURST, AllowedLog
from ringfence.agent.counters import Gain
from ringfence.agent.flows import FILE, FlowLog
from ringfence.nft.connections import Connection, Way
from ringfence.policy.local import Lifelines
from ringfence.policy.values import Kind
from ringfence.policy.view import PeerAddresses
from views import GROUPS, endpoint, ingress, view

FOLDER = Path("/agent")
WEB, APP = GROUPS[:2]
RULE = ingress(80, APP)
END = endpoint("web", WEB)
HERE, THERE = END.addresses[0], ip_address("198.51.100.10")
VIEW = view(1, END, rules={WEB: (RULE,)}, peers={APP: PeerAddresses(frozenset({THERE}))})


def connection(protocol, original, reply):
    return Connection(ended=False, protocol=protocol, original=original, reply=reply)


INWARDS = connection(6, Way(THERE.packed, HERE.packed, 4000, 80), Way(HERE.packed, THERE.packed, 80, 4000))
OUTWARDS = connection(6, Way(HERE.packed, THERE.packed, 4001, 25), Way(THERE.packed, HERE.packed, 25, 4001))


class Scene:
    def __init__(self):
        self.door, self.files, self.clock = FakeConnections(), FakeFiles(), FakeClock()
        self.flows = FlowLog(self.files, self.clock, FOLDER)
        self.log = AllowedLog(self.door, self.flows, self.clock)
        self.log.listen(on=True)

    def follow(self, *some, seen=VIEW):
        self.door.tell(*some)
        asyncio.run(self.log.follow(lambda: (seen, Lifelines())))
        return self.lines()

    def lines(self):
        self.flows.flush()
        return [json.loads(line) for line in self.files.contents.get(FOLDER / FILE, b"").splitlines()]


@pytest.fixture
def scene():
    return Scene()


def test_a_connection_is_told_with_the_rule_that_let_it_pass(scene):
    [line] = scene.follow(INWARDS)
    assert (line["instance"], line["direction"], line["verdict"]) == (str(END.instance), "ingress", "allow")
    assert (line["reason"], line["rule"], line["peer-groups"]) == ("rule", str(RULE.id), [str(APP)])
    assert (line["source"], line["source-port"]) == (str(THERE), 4000)
    assert (line["destination"], line["destination-port"]) == (str(HERE), 80)
    assert scene.log.take_gains() == {RULE.id: Gain(connections=1)}


def test_what_leaves_without_an_egress_rule_leaves_by_default(scene):
    [line] = scene.follow(OUTWARDS)
    assert (line["direction"], line["reason"], line["rule"]) == ("egress", "default egress", None)


def test_a_rule_gains_what_its_connections_carried_when_they_end(scene):
    ended = replace(INWARDS, ended=True, packets=7, octets=900)
    assert scene.follow(ended, ended, replace(INWARDS, ended=True)) == []
    assert scene.log.take_gains() == {RULE.id: Gain(0, 14, 1800)}
    assert scene.log.take_gains() == {}


def test_of_the_answer_the_view_in_force_decides(scene):
    scene.follow(INWARDS)
    assert [line["reason"] for line in scene.follow(INWARDS, seen=view(2, END))] == ["rule", "unattributed"]


def test_connections_of_others_and_of_what_nobody_can_tell_apart_are_left_out(scene):
    other = ip_address("203.0.113.1").packed
    foreign = connection(17, Way(other, THERE.packed, 1, 2), Way(THERE.packed, other, 2, 1))
    assert scene.follow(foreign) == []
    twice = view(1, END, replace(endpoint("app", WEB), addresses=END.addresses))
    assert scene.follow(OUTWARDS, seen=twice) == []


def test_a_translated_connection_is_judged_by_what_it_reached(scene):
    public = ip_address("192.0.2.80").packed
    [line] = scene.follow(replace(INWARDS, original=Way(THERE.packed, public, 4000, 8080)))
    assert (line["destination"], line["destination-port"], line["rule"]) == (str(HERE), 80, str(RULE.id))


def test_of_an_observed_instance_only_what_is_allowed_is_told(scene):
    closed = replace(VIEW, endpoints=(replace(END, observe=True),))
    other_port = replace(INWARDS, reply=replace(INWARDS.reply, source_port=81))
    assert [line["rule"] for line in scene.follow(INWARDS, other_port, seen=closed)] == [str(RULE.id)]


def test_a_self_host_is_asked_by_the_port_on_the_wire_and_loopback_is_nobodys(scene):
    host = replace(VIEW, endpoints=(replace(END, kind=Kind.SELF),))
    container = ip_address("172.17.0.2").packed
    published = replace(INWARDS, reply=Way(container, THERE.packed, 8000, 4000))
    loop = connection(6, Way(HERE.packed, HERE.packed, 1, 80), Way(HERE.packed, HERE.packed, 80, 1))
    [line] = scene.follow(published, loop, seen=host)
    assert (line["direction"], line["destination-port"], line["rule"]) == ("ingress", 80, str(RULE.id))


def test_more_than_an_instance_may_have_is_told_as_a_number(scene):
    assert len(scene.follow(*[INWARDS] * (BURST + 5))) == BURST
    assert scene.log.take_gains() == {RULE.id: Gain(connections=BURST + 5)}
    scene.door.dropped = 3
    scene.log.note_denied()
    scene.log.note_denied()
    denied, lost = scene.lines()[BURST:]
    assert (denied["interface"], denied["reason"], denied["packets"]) == ("veth-web", "rate limit", 5)
    assert (lost["interface"], lost["instance"], lost["packets"]) == ("*", None, 3)


def test_nothing_is_heard_once_nobody_wants_to(scene):
    scene.log.listen(on=False)
    scene.door.tell(INWARDS)
    assert scene.door.take() == ()
