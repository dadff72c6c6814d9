"""What is in a program and what becomes of ports: closed until programmed, closed when disputed, spoof-proof."""

from dataclasses import replace

import pytest

from policies import address, cidr, group, group_id, instance, mac_of, rule, snapshot
from ringfence.nft import Generation, render_text
from ringfence.policy.packet import ICMPV6, TCP, UDP, Packet
from ringfence.policy.program import names
from ringfence.policy.program.base_chains import ALLOW
from ringfence.policy.program.compile import LocalPorts, compile_program
from ringfence.policy.program.delta import diff_programs
from ringfence.policy.program.model import ORIGINAL, Dispatch, Drop, Field, Goto, Member, Program, State, Within
from ringfence.policy.program.steps import AddTable, DeleteTargets, FlushChain
from ringfence.policy.values import HostName, InterfaceName
from ringfence.policy.view import resolve_view
from simulator import again, answered, open_crossing, simulate

PORTS = LocalPorts(("veth*", "eth7"))
OPEN = group("open", "ingress all from 0.0.0.0/0", "ingress all from ::/0")
A = instance("a", "10.0.0.1", "2001:db8::1", wears=["open"])
B = instance("b", "10.0.0.2", wears=["open"])
OUTSIDE = "up-outside"


def program(*things, ports=PORTS):
    return compile_program(resolve_view(snapshot(*things)), ports)


def crossing(*, source="198.51.100.1", destination="10.0.0.1", came_by=OUTSIDE, goes_by="veth-a", mac=""):
    packet = Packet(address(source), address(destination), TCP, 40000, 80)
    return open_crossing(packet, came_by=came_by, goes_by=goes_by, mac=mac)


def passes(compiled, opened):
    outcome = simulate(compiled, opened, 1)
    return outcome.passed, outcome.counters[-1:]


def test_an_open_port_lets_in_and_out():
    compiled = program(OPEN, A)
    assert simulate(compiled, crossing(), 1).passed
    back = crossing(source="10.0.0.1", destination="198.51.100.1", came_by="veth-a", goes_by=OUTSIDE, mac=mac_of("a"))
    assert simulate(compiled, back, 1).passed


@pytest.mark.parametrize("interface", ["veth-new", "eth7"])
def test_a_port_under_our_care_is_closed_both_ways_until_it_is_programmed(interface):
    compiled = program(OPEN, A)
    assert passes(compiled, crossing(goes_by=interface)) == (False, ["closed"])
    out = crossing(came_by=interface, goes_by=OUTSIDE)
    assert simulate(compiled, out, 1).passed is False


def test_a_port_that_is_none_of_ours_is_left_alone():
    assert passes(program(OPEN, A), crossing(came_by=OUTSIDE, goes_by="eth0")) == (True, [])
    assert passes(program(OPEN, A), crossing(came_by="eth77", goes_by="eth70")) == (True, [])


@pytest.mark.parametrize(
    "text", ['"; flush ruleset; #', "\n}\ntable inet other {", "n" * 255], ids=["quote", "line", "long"]
)
def test_no_text_of_a_person_is_in_what_the_kernel_is_told(text):
    ours = group("web", "ingress tcp/22 from group app"), group("app", "egress udp/53 to 10.0.0.0/8")
    worn = [replace(one, groups=tuple(each.id for each in ours)) for one in (A, B)]
    rules = [tuple(replace(rule, description=text) for rule in each.rules) for each in ours]
    theirs = [replace(each, name=text, description=text, rules=some) for each, some in zip(ours, rules, strict=True)]
    plain, hostile = program(*ours, *worn), program(*theirs, *(replace(one, name=text) for one in worn))
    assert render_text(hostile, Generation(1), None) == render_text(plain, Generation(1), None)
    assert not diff_programs(plain, hostile)


def test_a_removed_instance_leaves_a_closed_port():
    assert not simulate(program(OPEN), crossing(), 1).passed


def test_a_port_that_two_instances_claim_is_closed():
    rival = replace(B, interfaces=(replace(B.interfaces[0], name=InterfaceName("veth-a")),))
    compiled = program(OPEN, A, rival, ports=LocalPorts())
    assert passes(compiled, crossing()) == (False, ["closed"])


def test_a_frame_with_another_mac_address_is_spoofed_even_with_the_right_ip_address():
    compiled = program(OPEN, A)
    wrong = crossing(source="10.0.0.1", destination="198.51.100.1", came_by="veth-a", goes_by=OUTSIDE, mac=mac_of("b"))
    assert passes(compiled, wrong) == (False, ["spoofed"])


def test_without_a_declared_mac_address_any_is_taken():
    compiled = program(OPEN, replace(A, interfaces=(replace(A.interfaces[0], mac=None),)))
    any_mac = crossing(
        source="10.0.0.1", destination="198.51.100.1", came_by="veth-a", goes_by=OUTSIDE, mac=mac_of("b")
    )
    assert simulate(compiled, any_mac, 1).passed


def test_one_instance_cannot_use_the_mac_and_address_of_another():
    theirs = crossing(source="10.0.0.2", destination="198.51.100.1", came_by="veth-a", goes_by=OUTSIDE, mac=mac_of("b"))
    assert passes(program(OPEN, A, B), theirs) == (False, ["spoofed"])


def test_the_hosts_own_discovery_reaches_a_port_although_it_names_it_as_where_it_came_from():
    solicitation = Packet(address("fe80::1"), address("2001:db8::1"), ICMPV6, icmp_type=135)
    own = open_crossing(solicitation, came_by="veth-a", goes_by="veth-a")
    assert simulate(program(A), replace(own, made_here=True), 1).passed
    assert passes(program(A), replace(own, came_by=OUTSIDE)) == (False, ["link"])


def test_discovery_that_is_forwarded_is_refused_to_its_sender_and_of_an_observed_one_counted():
    advertisement = Packet(address("2001:db8::1"), address("2001:db8:9::1"), ICMPV6, icmp_type=136)
    sent = open_crossing(advertisement, came_by="veth-a", goes_by=OUTSIDE, mac=mac_of("a"))
    refused = simulate(program(A), sent, 1)
    assert (refused.passed, refused.counters) == (False, ["link"])
    observed = simulate(program(replace(A, observe=True)), sent, 1)
    assert (observed.passed, observed.counters) == (True, ["link", "would_link"])


@pytest.mark.parametrize("way", ["veth-a", ""])
@pytest.mark.parametrize(
    ("source", "destination", "ports"),
    [("198.51.100.1", "10.0.0.1", (68, 67)), ("2001:db8::9", "2001:db8::1", (546, 547))],
)
def test_an_answer_that_looks_like_a_dhcp_servers_never_leaves_an_instance(source, destination, ports, way):
    rules = (f"{rule} {end}" for rule in ("ingress udp from", "egress udp to") for end in ("0.0.0.0/0", "::/0"))
    compiled = program(group("dhcp", *rules), instance("a", "10.0.0.1", "2001:db8::1", wears=["dhcp"]))
    asked = Packet(address(source), address(destination), UDP, *ports)
    opened = open_crossing(asked, came_by=OUTSIDE if way else "", goes_by="veth-a")
    assert simulate(compiled, opened, 1).passed
    assert passes(compiled, answered(opened, mac=mac_of("a"))) == (False, ["rogue"])


def test_a_flow_between_an_instance_and_the_host_is_judged_both_ways():
    lines = group("out", "egress tcp/80 to 0.0.0.0/0")
    compiled = program(lines, instance("a", "10.0.0.1", wears=["out"]))
    to_host = crossing(source="10.0.0.1", destination="198.51.100.1", came_by="veth-a", goes_by="", mac=mac_of("a"))
    assert simulate(compiled, to_host, 1).passed
    assert simulate(compiled, answered(to_host), 1).passed
    closed = program(group("out", "egress tcp/81 to 0.0.0.0/0"), instance("a", "10.0.0.1", wears=["out"]))
    assert not simulate(closed, again(to_host), 2).passed
    assert not simulate(closed, answered(to_host), 2).passed


def test_an_error_about_a_flow_passes_whatever_the_generation_and_stamps_nothing():
    compiled = program(OPEN, A)
    opened = crossing()
    simulate(compiled, opened, 1)
    error = replace(
        opened,
        packet=Packet(address("198.51.100.254"), address("10.0.0.1"), 1, icmp_type=3, icmp_code=4),
        state=State.RELATED,
        way=ORIGINAL,
    )
    assert simulate(compiled, error, 9).passed
    assert opened.flow.generation == 1


def test_an_instances_error_about_a_flow_does_not_revive_it():
    compiled = program(OPEN, A)
    cut = answered(crossing(), mac=mac_of("a"))
    error = replace(cut, packet=replace(cut.packet, protocol=1, icmp_type=3, icmp_code=4), state=State.RELATED)
    assert simulate(compiled, error, 9).passed
    assert cut.flow.generation == 0


def test_a_flow_is_stamped_only_when_both_sides_agree():
    compiled = program(OPEN, group("shut"), A, instance("b", "10.0.0.2", wears=["shut"]))
    refused = crossing(source="10.0.0.1", destination="10.0.0.2", came_by="veth-a", goes_by="veth-b", mac=mac_of("a"))
    assert not simulate(compiled, refused, 1).passed
    assert refused.flow.generation == 0


def test_instances_that_wear_the_same_groups_share_their_chains():
    alone, both = program(OPEN, A), program(OPEN, A, B)
    assert alone.chains.keys() == both.chains.keys()


def test_every_counter_set_map_and_chain_that_a_line_names_is_there():
    lines = group("own", "ingress tcp from group missing", "egress all to group own", "ingress ah from group own")
    compiled = program(lines, OPEN, instance("a", "10.0.0.1", wears=["own", "open", "gone"]))
    for chain in compiled.chains.values():
        for part in (part for line in chain.lines for part in line.parts):
            match part:
                case Member(_, name):
                    assert name in compiled.sets
                case Goto(name):
                    assert name in compiled.chains


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0", "10.0.0.0/8", "fd00::/8"])
def test_a_network_never_opens_the_other_family(text):
    lines = program(group("own", f"ingress tcp from {text}"), instance("a", "10.0.0.1", wears=["own"]))
    chain = lines.chains[names.group_chain(group_id("own"), rule(f"ingress tcp from {text}").direction)]
    assert len(chain.lines) == 1


def test_a_network_is_compared_with_its_host_bits_cleared():
    compiled = program(group("own", "ingress tcp from 10.1.2.3/8"), instance("a", "10.0.0.1", wears=["own"]))
    parts = [part for chain in compiled.chains.values() for line in chain.lines for part in line.parts]
    assert Within(Field.FLOW_SOURCE4, cidr("10.0.0.0/8").network) in parts


def test_no_name_or_description_ever_reaches_the_program():
    words = "x; flush ruleset"
    named = replace(OPEN, name=words, description=words, rules=tuple(replace(r, description=words) for r in OPEN.rules))
    assert program(named, replace(A, name=words)) == program(OPEN, A)
    assert "flush" not in repr(program(named, replace(A, name=words)))


def test_an_empty_host_still_closes_its_ports():
    compiled = compile_program(resolve_view(snapshot(OPEN, A), HostName("elsewhere")), PORTS)
    assert passes(compiled, crossing()) == (False, ["closed"])


def test_the_first_delta_makes_the_table_and_does_nothing_to_what_is_not_there():
    delta = diff_programs(Program(), program(OPEN, A))
    assert delta.flip[0] == AddTable()
    assert not any(isinstance(step, FlushChain | DeleteTargets) for step in delta.flip)


CHANGES = [
    (False, "ingress tcp/80 from 0.0.0.0/0", ["ingress tcp/80 from 0.0.0.0/0", "ingress tcp/81 from 0.0.0.0/0"]),
    (True, "ingress tcp/80 from 0.0.0.0/0", []),
    (True, "ingress tcp/80 from 0.0.0.0/0", ["ingress tcp/81 from 0.0.0.0/0"]),
    (True, "ingress tcp/80 from 0.0.0.0/0", ["ingress tcp/80 from 0.0.0.0/0", "egress tcp/80 to 0.0.0.0/0"]),
    (False, "egress tcp/80 to 0.0.0.0/0", ["egress tcp/80 to 0.0.0.0/0", "egress tcp/81 to 0.0.0.0/0"]),
    (False, "ingress tcp/80 from group own", ["ingress tcp/80 from group own", "source 192.0.2.0/24"]),
    (True, "source 192.0.2.0/24", ["source 192.0.2.0/25", "ingress tcp/80 from group own"]),
]


@pytest.mark.parametrize(("narrows", "before", "after"), CHANGES)
def test_only_a_change_that_may_take_something_away_moves_the_generation(narrows, before, after):
    wearer = instance("a", "10.0.0.1", wears=["own"])
    reference = ["ingress tcp/80 from group own"] if before.startswith("source") else []
    delta = diff_programs(program(group("own", *reference, before), wearer), program(group("own", *after), wearer))
    assert delta.narrows is narrows


def _takes_away(line):
    last = line.parts[-1]
    return isinstance(last, Drop | Dispatch) or (isinstance(last, Goto) and last.chain != ALLOW)


def test_restoring_any_line_that_takes_something_away_moves_the_generation():
    whole = program(OPEN, A)
    restored = 0
    for name, chain in whole.chains.items():
        for at, line in enumerate(chain.lines):
            if _takes_away(line):
                hole = replace(chain, lines=chain.lines[:at] + chain.lines[at + 1 :])
                assert diff_programs(replace(whole, chains={**whole.chains, name: hole}), whole).narrows, (name, line)
                restored += 1
    assert restored > 20


def test_one_more_pattern_of_ports_moves_the_generation():
    before, after = (program(OPEN, A, ports=LocalPorts(patterns)) for patterns in (("veth*",), ("tap*", "veth*")))
    assert diff_programs(before, after).narrows


def test_what_nobody_judges_goes_to_allow_and_is_stamped():
    compiled = program(A)
    out = crossing(source="10.0.0.1", destination="198.51.100.1", came_by="veth-a", goes_by=OUTSIDE, mac=mac_of("a"))
    assert simulate(compiled, out, 7).passed
    assert out.flow.generation == 7
    assert ALLOW in compiled.chains
