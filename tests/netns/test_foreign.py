"""Other programs' base chains, made by nft itself and read by us: which of them may drop what ours lets pass."""

import shutil
import subprocess
from contextlib import closing

import pytest

from ringfence.agent.doors.nftables import KernelNftables
from ringfence.nft import Generation
from ringfence.nft.foreign import meets
from ringfence.policy.local import LocalPorts
from ringfence.policy.program.compile import compile_program
from ringfence.policy.program.delta import diff_programs
from ringfence.policy.program.model import Program
from ringfence.policy.values import Direction, Kind
from ringfence.world.namespaces import make_namespace
from views import view

pytestmark = pytest.mark.netns

NFT = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
LEGACY = shutil.which("iptables-legacy", path="/usr/sbin:/sbin:/usr/bin:/bin")
RULESET = """
table ip filter {
    chain FORWARD { type filter hook forward priority filter; policy drop; }
    chain INPUT { type filter hook input priority -10; ip saddr 10.0.0.0/8 jump deep; }
    chain deep { tcp dport 22 goto deeper; accept; }
    chain deeper { drop; }
    chain OUTPUT { type filter hook output priority filter; jump harmless; accept; }
    chain harmless { counter; jump harmless_too; }
    chain harmless_too { return; }
}
table inet mapped {
    chain pre { type filter hook prerouting priority 5; tcp dport vmap { 22 : drop }; }
    chain post { type filter hook postrouting priority 5; meta mark set 1; }
}
table ip6 polite {
    chain c { type filter hook forward priority 1; reject; }
}
"""


@pytest.fixture
def namespace():
    with closing(make_namespace("foreign")) as made:
        yield made


@pytest.fixture
def door(namespace):
    with closing(namespace.run(KernelNftables)) as opened:
        yield opened


def _load(namespace, ruleset):
    command = (NFT, "-f", "-")
    namespace.run(lambda: subprocess.run(command, input=ruleset.encode(), check=True))  # noqa: S603  as others would


def test_nobody_else_is_nothing_and_our_own_table_is_not_foreign(namespace, door):
    assert namespace.run(door.read_foreign) == ()
    delta = diff_programs(Program(), compile_program(view(0), LocalPorts(("veth*",))))
    door.commit(delta.flip, generation=Generation(1), about=None)
    assert namespace.run(door.read_foreign) == ()


def test_of_every_foreign_base_chain_it_is_known_whether_it_may_drop_and_why(namespace, door):
    _load(namespace, RULESET)
    found = {f"{one.table} {one.chain}": one for one in namespace.run(door.read_foreign)}
    assert {name for name, one in found.items() if one.may_drop} == {
        "filter FORWARD",
        "filter INPUT",
        "mapped pre",
        "polite c",
    }
    assert found.keys() - {name for name, one in found.items() if one.may_drop} == {"filter OUTPUT", "mapped post"}
    assert found["filter FORWARD"].text == ("table ip filter, chain FORWARD (forward, priority 0): its policy is drop")
    assert found["filter INPUT"].text == (
        "table ip filter, chain INPUT (input, priority -10): it holds lines that drop"
    )
    assert found["polite c"].family == "ip6"


@pytest.mark.skipif(LEGACY is None, reason="iptables-legacy is not here: apt install iptables")
def test_chains_of_iptables_legacy_are_read_too_and_no_table_is_made(namespace, door):
    def legacy(*words, family=4):
        command = LEGACY if family == 4 else LEGACY.replace("iptables", "ip6tables")
        return namespace.run(lambda: subprocess.run((command, "-w", *words), check=False, capture_output=True))  # noqa: S603  as others would

    assert namespace.run(door.read_foreign) == ()
    if legacy("-P", "FORWARD", "DROP").returncode:
        pytest.skip("this kernel has no tables of iptables-legacy")
    for line in ("-N deep", "-N deeper", "-A deeper -j REJECT", "-A deep -g deeper", "-A INPUT -s 10.0.0.0/8 -j deep"):
        assert legacy(*line.split()).returncode == 0
    assert legacy("-A", "OUTPUT", "-j", "DROP", family=6).returncode == 0
    found = {f"{one.family} {one.chain}": one for one in namespace.run(door.read_foreign)}
    assert found.keys() == {f"{family} {chain}" for family in ("ip", "ip6") for chain in ("INPUT", "FORWARD", "OUTPUT")}
    assert {name for name, one in found.items() if one.drops} == {"ip INPUT", "ip6 OUTPUT"}
    assert {name for name, one in found.items() if one.policy_drops} == {"ip FORWARD"}
    text = "table ip iptables-legacy filter, chain FORWARD (forward, priority 0): its policy is drop"
    assert found["ip FORWARD"].text == text


def test_reading_them_changes_nothing(namespace, door):
    _load(namespace, RULESET)
    before = door.count_changes()
    namespace.run(door.read_foreign)
    assert door.count_changes() == before


def test_who_may_set_connection_marks_is_known_and_who_only_reads_them_is_not(namespace, door):
    _load(
        namespace,
        """
        table inet marking {
            chain sets { type filter hook prerouting priority 1; jump deep; }
            chain deep { ct mark set 7; }
            chain reads { type filter hook prerouting priority 2; ct mark 7 counter; meta mark set ct mark; }
        }
        """,
    )
    assert {chain.chain: chain.marks for chain in namespace.run(door.read_foreign)} == {"sets": True, "reads": False}


@pytest.mark.parametrize(
    ("chain", "kind", "side", "version"),
    [
        ("filter INPUT", Kind.SELF, Direction.INGRESS, 4),
        ("filter FORWARD", Kind.ROUTED, Direction.INGRESS, 4),
        ("mapped pre", Kind.BRIDGED, Direction.EGRESS, 6),
        ("polite c", Kind.ROUTED, Direction.EGRESS, 6),
    ],
)
def test_which_packets_come_through_a_foreign_chain(namespace, door, chain, kind, side, version):
    _load(namespace, RULESET)
    (found,) = (one for one in namespace.run(door.read_foreign) if f"{one.table} {one.chain}" == chain)
    assert meets(found, side, version=version, kind=kind)
    assert meets(found, side, version=10 - version, kind=kind) == (found.family == "inet")
    if found.hook == "input":
        assert not meets(found, Direction.EGRESS, version=version, kind=Kind.SELF)
        assert not meets(found, Direction.INGRESS, version=version, kind=Kind.ROUTED)
