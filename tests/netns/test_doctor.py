"""``ringfence doctor`` on a real kernel: what it finds in a namespace, and with which exit status."""

import json
import shutil
import subprocess
from contextlib import closing

import pytest

from flows import add_flow
from ringfence.cli.app import run
from ringfence.world.namespaces import make_namespace

pytestmark = pytest.mark.netns
NFT = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
FOREIGN = "table ip filter {\nchain FORWARD {\ntype filter hook forward priority 0; policy drop;\n}\n}\n"


@pytest.fixture
def namespace():
    with closing(make_namespace("patient")) as made:
        yield made


def _examined(namespace, capsys):
    status = namespace.run(lambda: run(("doctor", "-o", "json")))
    return status, {row["about"]: row for row in json.loads(capsys.readouterr().out)}


def test_a_bare_namespace_has_no_problem_and_no_table(namespace, capsys):
    status, found = _examined(namespace, capsys)
    assert status == 0
    assert {found[about]["state"] for about in ("nf_tables", "conntrack", "connection marks", "br_netfilter")} == {"ok"}
    assert found["table"]["state"] == found["agent"]["state"] == "warning"
    assert found["inventory"]["state"] == "skipped"


def test_foreign_marks_are_a_problem_and_the_exit_status_says_so(namespace, capsys):
    namespace.run(lambda: add_flow(0x00010000, 53))
    status, found = _examined(namespace, capsys)
    assert status == 1
    assert found["connection marks"]["state"] == "problem"


@pytest.mark.skipif(NFT is None, reason="no nft program: apt install nftables")
def test_another_firewall_that_drops_is_found(namespace, capsys):
    namespace.run(lambda: subprocess.run((NFT, "-f", "-"), input=FOREIGN, text=True, check=True))  # noqa: S603  ours
    status, found = _examined(namespace, capsys)
    assert status == 0
    assert "table ip filter, chain FORWARD" in found["other firewall"]["text"]


def test_br_netfilter_that_is_off_is_told(namespace, capsys):
    namespace.write_sysctl("bridge/bridge-nf-call-iptables", 0)
    assert _examined(namespace, capsys)[1]["br_netfilter"]["state"] == "warning"
