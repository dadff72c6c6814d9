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
from ringfence.policy.program.hasten import MOST_ELEMENTS, hasten
from ringfence.policy.program.model import Chain, Jump, Line
from ringfence.policy.program.names import group_chain
from ringfence.policy.program.narrow import narrow_program
from ringfence.policy.program.steps import AddCounter, AddElements, AddLine, DeleteElements
from ringfence.policy.program.waypoints import find_way
from ringfence.policy.values import Direction, Kind, RuleId
from ringfence.policy.view import PeerAddresses
from views import GROUPS, endpoint, ingress, view

WEB, PEERS = GROUPS[:2]
PORTS = LocalPorts(("veth*",))
ENDS = (endpoint("web", WEB), endpoint("app", WEB), endpoint("db", PEERS))
MEMBERS = PeerAddresses(frozenset({ip_address("10.77.0.100")}), frozenset({ip_network("192.0.2.0/25")}))
FIRST = ingress(80)
ASKED = group_chain(WEB, Direction.INGRESS)
TCP, UDP = Interval(6, 6), Interval(17, 17)


def seen(*rules, ends=ENDS, peers=MEMBERS):
    return view(1, *ends, rules={WEB: rules, PEERS: ()}, peers={PEERS: peers})


def more(number, text):
    return replace(rule(text), id=RuleId(UUID(int=number)))


def way(before, after, ports=PORTS):
    return hasten(compile_program(before, ports), compile_program(after, ports), after.endpoints)


def hasty(before, after, ports=PORTS):
    """The program of the first leg."""
    return way(before, after, ports)[0].program


def elements(program, set_="late_in_4"):
    return {(one.key, UUID(one.counter.removeprefix("r_")).int) for one in program.sets[set_].elements}


def net(text):
    network = ip_network(text)
    return Interval(int(network.network_address), int(network.broadcast_address))


def test_a_rule_that_comes_is_its_counter_and_an_element_for_each_instance_and_then_a_line():
    first, second, last = way(seen(FIRST), seen(FIRST, more(2, "ingress udp/50-60 from 10.0.0.0/8")))
    assert elements(first.program) == {
        ((net("10.0.0.0/8"), end, UDP, Interval(50, 60)), 2) for end in ("veth-web", "veth-app")
    }
    steps = [[type(step) for step in (*leg.delta.prepare, *leg.delta.flip)] for leg in (first, second, last)]
    assert steps == [[AddCounter, AddElements], [AddLine], [DeleteElements]]
    assert not any(leg.delta.narrows for leg in (first, second, last))


def test_a_group_as_peer_is_its_members_and_its_sources():
    peers = {key[0] for key, _ in elements(hasty(seen(FIRST), seen(FIRST, ingress(443, PEERS, number=2))))}
    assert peers == {net("10.77.0.100"), net("192.0.2.0/25")}


def test_the_first_rule_of_a_group_needs_no_line_of_its_profiles():
    first = way(seen(), seen(FIRST))[0]
    keys = {key[1:] for key, _ in elements(first.program)}
    assert keys == {(end, TCP, Interval(80, 80)) for end in ("veth-web", "veth-app")}
    assert not any(isinstance(step, AddLine) for step in first.delta.flip)


def test_a_groups_first_rule_that_is_for_nobody_is_asked_for_by_a_line_all_the_same():
    nobody = PeerAddresses()
    first, second, _ = way(seen(peers=nobody), seen(ingress(80, PEERS), peers=nobody))
    assert not elements(first.program)
    assert any(isinstance(step, AddLine) for step in second.delta.flip)


def test_rules_that_come_before_the_first_is_a_line_are_elements_beside_it():
    two = more(2, "ingress tcp/50 from 10.0.0.0/8"), more(3, "ingress tcp/51 from 10.0.0.0/8")
    held = hasty(seen(FIRST), seen(FIRST, two[0]))
    first = hasten(held, compile_program(seen(FIRST, *two), PORTS), ENDS)[0]
    assert [type(step) for step in first.delta.flip] == [AddCounter, AddElements]
    assert {number for _, number in elements(first.program)} == {2, 3}


MANY = PeerAddresses(frozenset(ip_address("10.0.0.0") + n for n in range(MOST_ELEMENTS // 2 + 1)))
FEWER = PeerAddresses(frozenset(), MEMBERS.sources)
WITHIN = (more(2, "ingress tcp/50-60 from 10.0.0.0/8"), more(3, "ingress tcp/60-70 from 10.1.0.0/16"))


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(seen(FIRST, more(2, "ingress icmp from 10.0.0.0/8")), id="icmp, which has a form of no flow"),
        pytest.param(seen(FIRST, more(2, "ingress esp from 10.0.0.0/8")), id="neither tcp nor udp"),
        pytest.param(seen(FIRST, more(2, "ingress all from 10.0.0.0/8")), id="any protocol"),
        pytest.param(seen(FIRST, more(2, "egress tcp to 10.0.0.0/8")), id="the first of egress, which closes the rest"),
        pytest.param(seen(FIRST, ingress(1, PEERS, number=2), peers=MANY), id="too many"),
        pytest.param(seen(FIRST, *WITHIN), id="two that overlap"),
        pytest.param(seen(more(2, "ingress tcp/80 from 10.0.0.0/8")), id="one goes for another"),
        pytest.param(seen(FIRST, more(2, "ingress tcp from 10.0.0.0/8"), peers=FEWER), id="a member goes"),
        pytest.param(
            seen(FIRST, more(2, "ingress tcp from 10.0.0.0/8"), ends=(*ENDS, endpoint("new", WEB))), id="a port comes"
        ),
        pytest.param(seen(FIRST), id="nothing comes"),
    ],
)
def test_what_is_no_element(after):
    before = seen(FIRST, ends=ENDS) if after.peers[PEERS] != MANY else seen(FIRST, peers=MANY)
    named = ingress(7, PEERS, number=9)  # so that somebody asks for the members
    with_named = [replace(one, rules={**one.rules, WEB: (named, *one.rules[WEB])}) for one in (before, after)]
    assert way(*with_named) == ()


def test_no_element_stands_for_a_group_that_a_profile_did_not_ask():
    desired = compile_program(seen(FIRST), PORTS)
    profile = next(name for name, chain in desired.chains.items() if Line((Jump(ASKED),)) in chain.lines)
    lines = tuple(line for line in desired.chains[profile].lines if line != Line((Jump(ASKED),)))
    actual = replace(desired, chains={**desired.chains, profile: Chain(lines)})
    assert hasten(actual, desired, ENDS) == ()


def test_a_bridged_instance_is_known_by_its_addresses_and_a_self_host_by_its_ports():
    ends = tuple(replace(end, mac=f"02:00:00:00:00:0{number}") for number, end in enumerate(ENDS))
    before, after = seen(FIRST, ends=ends), seen(FIRST, more(2, "ingress tcp/1 from 10.0.0.0/8"), ends=ends)
    found = hasty(before, after, replace(PORTS, kind=Kind.BRIDGED))
    assert {key[1] for key, _ in elements(found)} == {net("10.77.0.119"), net("10.77.0.97")}
    found = hasty(before, after, replace(PORTS, kind=Kind.SELF))
    assert {key[1] for key, _ in elements(found)} == {"veth-web", "veth-app"}


class TestAfterACrash:
    """Whoever reads the table finds elements of which it knows only that they are there."""

    AFTER = seen(FIRST, ingress(443, PEERS, number=2))

    def setup_method(self):
        self.held = hasty(seen(FIRST), self.AFTER)

    def go(self, desired):
        table = Table.holding(self.held)
        legs = find_way(self.held, desired)
        for leg in legs:
            table.carry_out(leg.delta.prepare)
            table.carry_out(leg.delta.flip)
        assert table.program == desired
        return legs

    def test_elements_go_when_no_packet_is_under_way_that_has_not_met_the_lines(self):
        between, _ = self.go(compile_program(seen(FIRST, ingress(443, PEERS, number=2)), PORTS))
        assert elements(between.program) == elements(self.held)

    def test_of_a_rule_that_goes_the_elements_go_before_their_counter_and_flows_are_cut(self):
        (leg,) = self.go(compile_program(seen(FIRST), PORTS))
        assert leg.delta.narrows

    def test_without_a_view_the_elements_stay_as_rules_do(self):
        assert narrow_program(self.held, ENDS, PORTS).sets["late_in_4"] == self.held.sets["late_in_4"]


def test_the_counter_of_a_rule_that_goes_stays_as_long_as_an_element_leads_to_it():
    """Another rule takes its place, so that the element goes a grace period after the line came."""
    goes, comes = (more(number, f"ingress tcp/8{number} from 10.0.0.0/8") for number in (2, 3))
    held = hasty(seen(FIRST), seen(FIRST, goes))
    wanted = compile_program(seen(FIRST, comes), PORTS)
    onward, table = find_way(held, wanted), Table.holding(held)
    assert len(onward) == 2
    for leg in onward:
        table.carry_out((*leg.delta.prepare, *leg.delta.flip))
        assert table.program == leg.program
    assert table.program == wanted


def test_the_counter_of_a_rule_is_there_before_its_element():
    actual = compile_program(seen(FIRST), PORTS)
    found = hasty(seen(FIRST), seen(FIRST, ingress(443, number=2)))
    table = Table.holding(actual)
    table.carry_out(diff_programs(actual, found).flip)
    assert table.program == found
