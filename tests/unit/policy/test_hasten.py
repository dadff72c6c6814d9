"""Rules as elements until their lines are there: which, what stands in the sets, and what becomes of them."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from uuid import UUID

import pytest

from kernel import Table
from policies import rule
from ringfence.policy.addresses import Interval
from ringfence.policy.local import LocalPorts
from ringfence.policy.program.compile import compile_program
from ringfence.policy.program.delta import diff_programs
from ringfence.policy.program.hasten import MOST_ELEMENTS, drop_late, hasten, linger
from ringfence.policy.program.model import Counted
from ringfence.policy.program.names import rule_counter
from ringfence.policy.program.narrow import narrow_program
from ringfence.policy.program.steps import AddCounter, AddElements
from ringfence.policy.values import Kind, RuleId
from ringfence.policy.view import PeerAddresses
from views import GROUPS, endpoint, ingress, view

WEB, PEERS = GROUPS[:2]
PORTS = LocalPorts(("veth*",))
ENDS = (endpoint("web", WEB), endpoint("app", WEB), endpoint("db", PEERS))
MEMBERS = PeerAddresses(frozenset({ip_address("10.77.0.100")}), frozenset({ip_network("192.0.2.0/25")}))
FIRST = ingress(80)
ANY, TCP, UDP = Interval(0, 65535), Interval(6, 6), Interval(17, 17)


def seen(*rules, ends=ENDS, peers=MEMBERS, revision=1):
    return view(revision, *ends, rules={WEB: rules, PEERS: ()}, peers={PEERS: peers})


def more(number, text):
    return replace(rule(text), id=RuleId(UUID(int=number)))


def hastened(before, after, ports=PORTS):
    return hasten(compile_program(before, ports), compile_program(after, ports), after.endpoints)


def elements(program, set_="late_in_4"):
    return {(one.key, UUID(one.counter.removeprefix("r_")).int) for one in program.sets[set_].elements}


def net(text):
    network = ip_network(text)
    return Interval(int(network.network_address), int(network.broadcast_address))


def test_a_rule_that_comes_is_its_counter_and_an_element_for_each_instance_and_no_line():
    before, after = seen(FIRST), seen(FIRST, more(2, "ingress udp/50-60 from 10.0.0.0/8"))
    actual, found = compile_program(before, PORTS), hastened(before, after)
    assert elements(found) == {((net("10.0.0.0/8"), end, UDP, Interval(50, 60)), 2) for end in ("veth-web", "veth-app")}
    delta = diff_programs(actual, found)
    assert [type(step) for step in delta.flip] == [AddCounter, AddElements]
    assert (delta.prepare, delta.walks, delta.narrows) == ((), False, False)


def test_a_group_as_peer_is_its_members_and_its_sources():
    named = ingress(443, PEERS, number=2)
    found = hastened(seen(FIRST), seen(FIRST, named))
    peers = {key[0] for key, _ in elements(found)}
    assert peers == {net("10.77.0.100"), net("192.0.2.0/25")}


def test_the_first_rule_of_a_group_needs_no_line_of_its_profiles():
    found = hastened(seen(), seen(FIRST))
    assert {key[1:] for key, _ in elements(found)} == {(end, TCP, Interval(80, 80)) for end in ("veth-web", "veth-app")}
    assert not diff_programs(compile_program(seen(), PORTS), found).walks


def test_two_rules_that_overlap_share_what_they_hold_without_a_piece_in_both():
    wide, narrow = more(2, "ingress tcp/50-60 from 10.0.0.0/8"), more(3, "ingress tcp/55-70 from 10.1.0.0/16")
    found = hastened(seen(FIRST), seen(FIRST, wide, narrow))
    assert {(key[0], key[3]) for key, number in elements(found) if number == 3} == {
        (net("10.1.0.0/16"), Interval(61, 70))
    }
    within = more(3, "ingress tcp/55 from 10.1.0.0/16")
    assert {number for _, number in elements(hastened(seen(FIRST), seen(FIRST, wide, within)))} == {2}


MANY = PeerAddresses(frozenset(ip_address("10.0.0.0") + n for n in range(MOST_ELEMENTS // 2 + 1)))


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(seen(FIRST, more(2, "ingress icmp from 10.0.0.0/8")), id="icmp, which has a form of no flow"),
        pytest.param(seen(FIRST, more(2, "ingress esp from 10.0.0.0/8")), id="neither tcp nor udp"),
        pytest.param(seen(FIRST, more(2, "ingress all from 10.0.0.0/8")), id="any protocol"),
        pytest.param(seen(FIRST, more(2, "egress tcp to 10.0.0.0/8")), id="the first of egress, which closes the rest"),
        pytest.param(seen(FIRST, ingress(1, PEERS, number=2), peers=MANY), id="too many"),
        pytest.param(seen(more(2, "ingress tcp/80 from 10.0.0.0/8")), id="one goes for another"),
        pytest.param(
            seen(FIRST, more(2, "ingress tcp from 10.0.0.0/8"), ends=(*ENDS, endpoint("new", WEB))), id="walks"
        ),
        pytest.param(seen(FIRST), id="nothing comes"),
    ],
)
def test_what_is_no_element(after):
    assert hastened(seen(FIRST), after) is None


def test_a_bridged_instance_is_known_by_its_addresses_and_a_self_host_by_the_port_on_the_wire():
    ends = tuple(replace(end, mac=f"02:00:00:00:00:0{number}") for number, end in enumerate(ENDS))
    before, after = seen(FIRST, ends=ends), seen(FIRST, more(2, "ingress tcp/1 from 10.0.0.0/8"), ends=ends)
    found = hastened(before, after, replace(PORTS, kind=Kind.BRIDGED))
    assert {key[1] for key, _ in elements(found)} == {net("10.77.0.119"), net("10.77.0.97")}
    found = hastened(before, after, replace(PORTS, kind=Kind.SELF))
    assert {key[1] for key, _ in elements(found)} == {"veth-web", "veth-app"}


class TestSettling:
    """A packet under way through lines of before looks elements up as they are now: they go last."""

    AFTER = seen(FIRST, ingress(443, PEERS, number=2))

    def setup_method(self):
        self.desired = compile_program(self.AFTER, PORTS)
        self.held = hastened(seen(FIRST), self.AFTER)

    def test_the_lines_come_while_the_elements_stay_and_these_go_without_a_cut(self):
        between = linger(self.held, self.desired, self.AFTER.endpoints)
        assert elements(between) == elements(self.held)
        assert between.chains == self.desired.chains
        assert not diff_programs(self.held, between).narrows
        delta = drop_late(between, self.desired)
        table = Table.holding(between)
        table.carry_out(delta.flip)
        assert table.program == self.desired
        assert not delta.narrows

    def test_of_elements_only_those_linger_that_are_still_wanted(self):
        fewer = seen(FIRST, ingress(443, PEERS, number=2), peers=PeerAddresses(frozenset(), MEMBERS.sources))
        between = linger(self.held, compile_program(fewer, PORTS), fewer.endpoints)
        assert {key[0] for key, _ in elements(between)} == {net("192.0.2.0/25")}

    def test_a_member_that_comes_and_one_that_goes_are_so_in_the_elements(self):
        peers = PeerAddresses(MEMBERS.members | {ip_address("10.77.0.101")}, MEMBERS.sources)
        wider = seen(FIRST, ingress(443, PEERS, number=2), peers=peers)
        found = hasten(self.held, compile_program(wider, PORTS), wider.endpoints)
        assert elements(self.held) < elements(found)
        again = hasten(found, self.desired, self.AFTER.endpoints)
        assert elements(again) == elements(self.held)
        assert diff_programs(found, again).narrows

    def test_a_rule_that_goes_takes_its_elements_along_and_cuts(self):
        before = compile_program(seen(FIRST), PORTS)
        delta = diff_programs(self.held, linger(self.held, before, ENDS))
        table = Table.holding(self.held)
        table.carry_out(delta.flip)
        assert table.program == before
        assert (delta.narrows, delta.walks) == (True, False)

    def test_without_a_view_the_elements_stay_as_rules_do(self):
        assert narrow_program(self.held, ENDS, PORTS).sets["late_in_4"] == self.held.sets["late_in_4"]


def test_the_counter_of_a_rule_is_there_before_its_element_and_the_element_goes_before_it():
    before = compile_program(seen(FIRST), PORTS)
    found = hastened(seen(FIRST), seen(FIRST, ingress(443, number=2)))
    table = Table.holding(before)
    table.carry_out(diff_programs(before, found).flip)
    assert Counted(next(iter(found.sets["late_in_4"].elements)).key, rule_counter(RuleId(UUID(int=2)))) in (
        table.program.sets["late_in_4"].elements
    )
    table.carry_out(diff_programs(found, before).flip)
    assert table.program == before
