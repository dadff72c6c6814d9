"""What the agent writes and sends of refused packets: whose they are, why, and never more than a bound."""

import asyncio
import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from fake_doors import FakeClock, FakeFiles, FakePackets
from fake_server import FakeServer
from ringfence.agent.flows import FILE, FlowLog
from ringfence.agent.refused import RefusedLog
from ringfence.nft.packetlog import Told
from ringfence.policy.errors import OperatorError
from ringfence.policy.packet import ICMP, TCP, Packet
from ringfence.policy.program.refusal import Fate, Refusal, log_prefix, parse_log_prefix
from ringfence.policy.values import Kind
from ringfence.policy.view import PeerAddresses
from ringfence.wire.flows import MOST_RECORDS
from views import GROUPS, endpoint, ingress, view

FOLDER = Path("/agent")
WEB, APP = GROUPS[:2]
HERE, THERE = ip_address("10.77.0.1"), ip_address("198.51.100.10")
END = endpoint("web", WEB, addresses=(HERE,))
VIEW = view(1, END, rules={WEB: (ingress(80, APP),)}, peers={APP: PeerAddresses(frozenset({THERE}))})
INWARDS = Packet(THERE, HERE, TCP, source_port=4000, destination_port=22)


def told(refusal=Refusal.DENIED_IN, fate=Fate.DROP, *, packet=INWARDS, leaves=False, index=7):
    return Told(log_prefix(refusal, fate), index, leaves, packet)


class Scene:
    def __init__(self):
        self.packets = FakePackets(**{"veth-web": 7, "veth-bare": 8})
        self.files, self.clock, self.server = FakeFiles(), FakeClock(), FakeServer()
        self.log = FlowLog(self.files, self.clock, FOLDER)
        self.refused = RefusedLog(self.packets, self.log, self.clock)

    def follow(self, *some, seen=VIEW):
        self.packets.tell(*some)
        asyncio.run(self.refused.follow(lambda: seen))
        return self.lines()

    def lines(self):
        self.log.flush()
        return [json.loads(line) for line in self.files.contents.get(FOLDER / FILE, b"").splitlines()]

    def send(self):
        async def run():
            sending = asyncio.ensure_future(self.log.send(self.server))
            await asyncio.sleep(0)
            self.clock.advance(1)
            await sending

        asyncio.run(run())
        return [record for report in self.server.flow_reports for record in report.records]


@pytest.fixture
def scene():
    return Scene()


def test_what_was_counted_and_not_told_is_told_as_a_number_when_it_is_sure(scene):
    drops, would = ("drops", "veth-web"), ("would_drops", "veth-web")

    def note(drop, would_drop):
        scene.refused.note_tallies({("drops", "veth-bare"): 5, drops: drop, would: would_drop}, VIEW)
        lines = scene.lines()
        return [(line["verdict"], line["packets"]) for line in lines if line["reason"] == "rate limit"]

    assert note(1000, 0) == []  # from before it listened
    scene.follow(told(), told())
    assert note(1100, 7) == []  # some may be under way still
    scene.follow(told(fate=Fate.WOULD_DROP))
    assert note(1100, 7) == [("drop", 98), ("would-drop", 6)]
    assert note(1100, 7) == [("drop", 98), ("would-drop", 6)]
    assert note(3, 7) == [("drop", 98), ("would-drop", 6)]  # the table was made anew
    assert note(3, 7)[2:] == [("drop", 3)]
    scene.refused.on = False
    note(50, 7)
    scene.refused.on = True
    note(900, 7)
    assert note(900, 7)[3:] == note(900, 7)[3:] == []


def test_of_ports_that_are_gone_nothing_is_kept(scene):
    for n in range(50):
        scene.packets.tell(Told(log_prefix(Refusal.DENIED_IN, Fate.DROP), 7, leaves=False, packet=INWARDS))
        scene.packets.names = {7: f"veth{n}"}
        scene.follow()
        scene.refused.note_tallies({("drops", f"veth{n}"): 1} if n % 2 else {}, VIEW)
    assert len(scene.refused._told) + len(scene.refused._counted) < 5


def test_a_prefix_says_why_and_what_became_of_the_packet():
    for refusal in Refusal:
        for fate in Fate:
            assert parse_log_prefix(log_prefix(refusal, fate)) == (refusal, fate)
    for text in ("", "ringfence", "ringfence drop", "ringfence drop x", "theirs drop spoofed", "ringfence x spoofed"):
        assert parse_log_prefix(text) is None


def test_a_record_says_whose_packet_it_was_and_why_it_was_refused(scene):
    [line] = scene.follow(told())
    assert line == {
        "at": 1_700_000_000.0,
        "interface": "veth-web",
        "instance": str(END.instance),
        "direction": "ingress",
        "verdict": "drop",
        "reason": "default ingress",
        "protocol": 6,
        "source": "198.51.100.10",
        "destination": "10.77.0.1",
        "source-port": 4000,
        "destination-port": 22,
        "icmp-type": None,
        "icmp-code": None,
        "peer-groups": [str(APP)],
        "rule": None,
        "packets": 1,
    }


def test_an_answer_is_told_as_what_it_answers(scene):
    asked, answer = scene.follow(told(), told(packet=Packet(HERE, THERE, TCP, 22, 4000, opening=False), leaves=True))
    assert answer == asked
    ping, pong = Packet(HERE, THERE, ICMP, icmp_type=8), Packet(THERE, HERE, ICMP, icmp_type=0)
    asked, answer = scene.follow(*(told(Refusal.DENIED_OUT, packet=one) for one in (ping, pong)))[2:]
    assert answer == asked
    assert (asked["source"], asked["icmp-type"]) == (str(HERE), 8)


def test_where_the_log_is_off_nothing_is_written(scene):
    scene.refused.on = False
    assert scene.follow(told()) == []


def test_a_file_of_the_operators_own_is_written_instead_and_never_rotated(scene, monkeypatch):
    monkeypatch.setattr("ringfence.agent.flows.FILE_SIZE_BYTES", 1000)
    own = Path("/var/log/flows.jsonl")
    scene.log = FlowLog(scene.files, scene.clock, FOLDER, file=own)
    scene.refused = RefusedLog(scene.packets, scene.log, scene.clock)
    for _ in range(2):
        assert scene.follow(*[told()] * 5) == []
    assert scene.files.contents.keys() == {own}


def test_a_port_without_an_instance_is_told_of_by_its_interface(scene):
    [line] = scene.follow(told(Refusal.CLOSED, index=8, leaves=True))
    assert (line["interface"], line["instance"], line["direction"]) == ("veth-bare", None, "egress")


def test_a_would_be_drop_is_told_as_such_and_an_icmp_packet_by_its_type(scene):
    packet = Packet(HERE, THERE, ICMP, icmp_type=8, icmp_code=0)
    [line] = scene.follow(told(Refusal.DENIED_OUT, Fate.WOULD_DROP, packet=packet, leaves=True))
    assert (line["verdict"], line["reason"], line["direction"]) == ("would-drop", "default egress", "egress")
    assert (line["icmp-type"], line["icmp-code"], line["source-port"]) == (8, 0, None)


def test_what_comes_in_by_an_uplink_enters_a_host_that_is_its_own_instance(scene):
    host = view(1, replace(END, kind=Kind.SELF))
    [line] = scene.follow(told(Refusal.STRAY, leaves=True), seen=host)
    assert line["direction"] == "ingress"


def test_what_is_not_ours_or_makes_no_sense_is_left_out(scene):
    strange = [replace(told(), prefix="theirs"), replace(told(), packet=None), told(index=99)]
    assert len(scene.follow(*strange, told())) == 1


def test_everything_reaches_the_server_once_in_bounded_reports(scene):
    scene.follow(*[told()] * (2 * MOST_RECORDS + 1))
    assert len(scene.send()) == 2 * MOST_RECORDS + 1
    assert {len(report.records) for report in scene.server.flow_reports} == {MOST_RECORDS, 1}
    assert len(scene.send()) == 2 * MOST_RECORDS + 1


def test_while_there_is_no_server_a_bounded_number_waits_and_the_rest_is_counted(scene):
    scene.server.down = True
    scene.follow(*[told()] * 1500)
    with pytest.raises(OperatorError):
        scene.send()
    scene.server.down = False
    assert len(scene.send()) == 1000
    assert sum(report.untold for report in scene.server.flow_reports) == 500


def test_a_file_that_cannot_be_written_is_a_problem_and_no_reason_not_to_tell_the_server(scene):
    scene.files.broken.add(FOLDER / FILE)
    scene.packets.tell(told())
    asyncio.run(scene.refused.follow(lambda: VIEW))
    scene.log.flush()
    assert "the flow log is not written" in scene.log.problem
    assert len(scene.send()) == 1
    scene.files.broken.clear()
    scene.follow(told())
    assert scene.log.problem is None


def test_what_waits_for_a_disk_that_hangs_is_bounded(scene, monkeypatch):
    monkeypatch.setattr("ringfence.agent.flows._MOST_UNWRITTEN_BYTES", 1000)
    scene.packets.tell(*[told()] * 100)
    asyncio.run(scene.refused.follow(lambda: VIEW))
    assert "records are lost" in scene.log.problem
    assert 0 < len(scene.lines()) < 4
    assert scene.log.problem is None
