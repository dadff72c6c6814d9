"""What ``doctor`` finds: a healthy host has no problem, and each thing that is wrong is found by its name."""

from pathlib import Path

import pytest

from fake_doors import FakeBridging, FakeConntrack, FakeFiles, FakeLinks, FakeMachine, FakeNftables
from ringfence.agent.doctor import Instruments, State, examine, read_inventory
from ringfence.agent.doors.links import Master
from ringfence.agent.enforce import CLOSED
from ringfence.nft import About, Generation
from ringfence.nft.foreign import ForeignChain
from ringfence.policy.errors import OperatorError
from ringfence.policy.program.compile import LocalPorts, compile_program
from ringfence.policy.program.delta import diff_programs
from ringfence.policy.program.model import Program
from ringfence.policy.program.steps import SetGeneration
from views import view

FILE = Path("/etc/inventory.toml")
INVENTORY = """
host = "h1"
managed = ["veth*"]
[[instance]]
name = "web"
interface = "veth-web"
addresses = ["10.77.0.1"]
mac = "02:00:00:00:00:01"
"""
FORWARDING = {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}


class Host:
    """A host on which nothing is wrong."""

    def __init__(self):
        self.nftables, self.conntrack, self.links = FakeNftables(), FakeConntrack(), FakeLinks("veth-web")
        steps = diff_programs(Program(), compile_program(view(7), LocalPorts(("veth*",)))).flip
        self.nftables.commit(steps, generation=Generation(256), about=About(7, "e1"))
        self.files, self.bridging, self.machine = FakeFiles(), FakeBridging(), FakeMachine()
        self.machine.settings = {
            **FORWARDING,
            "net/core/wmem_max": "16777216",
            "net/bridge/bridge-nf-call-iptables": "1",
        }
        self.write(INVENTORY)

    def write(self, text):
        self.files.replace(FILE, text.encode())

    def examine(self, file=FILE):
        doors = (self.links, self.files, self.bridging, self.machine)
        return examine(
            Instruments(lambda: self.nftables, lambda: self.conntrack, *doors), *read_inventory(doors[1], file)
        )

    def said(self, state):
        return [f"{one.about}: {one.text}" for one in self.examine() if one.state is state]


@pytest.fixture
def host():
    return Host()


def test_on_a_healthy_host_everything_is_fine(host):
    findings = host.examine()
    assert {one.state for one in findings} == {State.OK}
    assert "the table ringfence is in force: revision 7" in {one.text for one in findings}
    assert {one.about for one in findings} >= {"nf_tables", "conntrack", "br_netfilter", "forwarding", "inventory"}


def test_without_the_right_to_look_it_says_what_it_skipped(host):
    def refuse():
        raise OperatorError("open a netlink socket to netfilter", "Operation not permitted (EPERM)")

    doors = (host.links, host.files, host.bridging, host.machine)
    findings = examine(Instruments(refuse, refuse, *doors), *read_inventory(doors[1], None))
    skipped = {one.about: one.text for one in findings if one.state is State.SKIPPED}
    assert skipped.keys() == {"nf_tables", "conntrack", "inventory"}
    assert "Operation not permitted" in skipped["nf_tables"]


def test_without_a_table_or_an_agent_it_says_that_nothing_is_enforced(host):
    host.nftables.table, host.machine.agent_runs = None, False
    warnings = host.said(State.WARNING)
    assert "table: no table of ringfence: nothing is enforced here" in warnings
    assert "agent: no agent runs in this network namespace" in warnings
    host.machine.agent_runs = True
    (problem,) = host.said(State.PROBLEM)
    assert "table: no table of ringfence" in problem


def test_a_table_without_a_policy_is_no_good_news(host):
    host.nftables.commit((SetGeneration(),), generation=Generation(256), about=CLOSED)
    assert host.said(State.WARNING) == [
        "table: the table ringfence is in force without a policy: none has come from a server yet"
    ]


def test_another_firewall_that_may_drop_is_told_with_whose_it_is(host):
    host.nftables.foreign = [ForeignChain("ip", "filter", "FORWARD", "forward", 0, policy_drops=True, drops=False)]
    (warning,) = host.said(State.WARNING)
    assert "iptables-nft" in warning
    assert "its policy is drop" in warning


def test_another_program_that_sets_connection_marks_is_named(host):
    chain = ForeignChain("ip", "mangle", "PREROUTING", "prerouting", -150, policy_drops=False, drops=False, marks=True)
    host.nftables.foreign = [chain]
    (warning,) = host.said(State.WARNING)
    assert "table ip mangle, chain PREROUTING (prerouting, priority -150) may set connection marks" in warning


def test_a_conntrack_that_is_nearly_full_is_told_before_it_drops(host):
    host.machine.settings |= {"net/netfilter/nf_conntrack_count": "89", "net/netfilter/nf_conntrack_max": "100"}
    assert not host.said(State.PROBLEM)
    host.machine.settings["net/netfilter/nf_conntrack_count"] = "90"
    (problem,) = host.said(State.PROBLEM)
    assert problem.startswith("conntrack: 90 of at most 100 flows")
    host.machine.settings["net/netfilter/nf_conntrack_max"] = "0"  # which the kernel takes for "as many as there are"
    assert not host.said(State.PROBLEM)


def test_what_the_log_of_allowed_connections_needs_is_asked_for_with_it_alone(host):
    host.machine.settings |= {"net/netfilter/nf_conntrack_events": "0", "net/netfilter/nf_conntrack_acct": "0"}
    assert not host.said(State.PROBLEM)
    host.write(f'flow_log = "all"\n{INVENTORY}')
    assert [text.partition(":")[0] for text in host.said(State.PROBLEM)] == ["connection events"]
    assert [text.partition(":")[0] for text in host.said(State.WARNING)] == ["connection bytes"]


def test_flows_with_marks_that_were_never_given_out_are_a_problem(host):
    host.conntrack.marks = [256 << 16, 255 << 16, 0x0000FFFF]
    assert not host.said(State.PROBLEM)
    host.conntrack.marks += [0x80000000, 0x80000001]
    (problem,) = host.said(State.PROBLEM)
    assert "2 flows or more carry bits of 0xffff0000" in problem


@pytest.mark.parametrize(("kind", "state"), [("routed", State.WARNING), ("bridged", State.PROBLEM)])
def test_br_netfilter_is_a_problem_where_ports_are_bridged(host, kind, state):
    host.write(f'kind = "{kind}"\n{INVENTORY}')
    host.bridging.on = False
    assert host.said(state) == ["br_netfilter: switched off: what crosses a bridge is not judged"]
    del host.machine.settings["net/bridge/bridge-nf-call-iptables"]
    assert host.said(state) == ["br_netfilter: not here: bridged ports cannot be filtered"]


def test_a_port_that_is_not_where_the_inventory_says_is_named(host):
    host.links.masters = {"veth-web": Master("br0", is_bridge=True)}
    (problem,) = host.said(State.PROBLEM)
    assert "'veth-web' is a port of the bridge 'br0', and the inventory says routed" in problem
    host.write(f'kind = "self"\n{INVENTORY}')
    (problem,) = host.said(State.PROBLEM)
    assert "'veth-web' is a port of the bridge 'br0', and the inventory says self" in problem
    host.write(f'kind = "bridged"\n{INVENTORY}')
    assert not host.said(State.PROBLEM)
    host.links.masters = {"veth-web": Master("ovs-system")}
    assert "instead of a macvtap a tap" in next(one.advice for one in host.examine() if one.state is State.PROBLEM)
    (problem,) = host.said(State.PROBLEM)
    assert "'veth-web' is a port of the device 'ovs-system', and the inventory says bridged: what" in problem
    host.links.masters = {}
    assert host.said(State.WARNING) == ["instance: instance 'web': 'veth-web' is in no bridge, and so closed"]


def test_an_uplink_that_is_a_bridge_is_told_of_where_the_rules_see_what_crosses_it(host):
    host.write(f'kind = "self"\n{INVENTORY}')
    assert not host.said(State.WARNING)
    host.links.bridges = {"veth-web"}
    (warning,) = host.said(State.WARNING)
    assert "'veth-web' is a bridge: what crosses it to virtual machines and others is judged by" in warning
    host.bridging.on = False
    assert [one.about for one in host.examine() if one.state is State.WARNING] == ["br_netfilter"]


def test_settings_that_are_in_the_way_are_told_with_the_command_that_changes_them(host):
    host.machine.settings |= {
        "net/ipv4/ip_forward": "0",
        "net/core/wmem_max": "212992",
        "user/max_user_namespaces": "0",
    }
    advice = {one.about: one.advice for one in host.examine() if one.state is State.WARNING}
    assert advice.keys() == {"forwarding", "send buffer", "user namespaces"}
    assert advice["forwarding"] == "sysctl -w net.ipv4.ip_forward=1"
    assert advice["send buffer"].startswith("sysctl -w net.core.wmem_max=")


def test_an_inventory_that_cannot_be_read_is_a_problem(host):
    host.write("host = 1")
    (problem,) = host.said(State.PROBLEM)
    assert "inventory /etc/inventory.toml: host: expected a text in quotes" in problem


def test_instances_and_patterns_that_lack_something_are_named(host):
    other = '[[instance]]\nname = "app"\ninterface = "tap9"\naddresses = ["10.77.0.2"]\n'
    host.write(INVENTORY.replace('"veth*"', '"veth*", "vnet*"') + other)
    assert host.said(State.WARNING) == [
        "managed: no interface matches 'vnet*'",
        "instance: instance 'app': there is no interface 'tap9'",
        "instance: instance 'app' declares no mac: it may send from any MAC address and any link-local address",
    ]
