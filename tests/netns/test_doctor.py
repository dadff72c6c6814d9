"""``ringfence doctor`` on a real kernel: what it finds in a namespace, and with which exit status."""

import json
import shutil
import subprocess
import sys
from contextlib import closing

import pytest

from flows import add_flow
from ringfence.agent.credential import HostCredential, render_credential
from ringfence.agent.doors.files import SystemFiles
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


@pytest.mark.long
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt install strace")
def test_the_inventory_is_read_once_whatever_is_asked_of_it(namespace, tmp_path):
    inventory, data, trace = (tmp_path / name for name in ("inventory.toml", "agent", "trace"))
    inventory.write_text('host = "h1"\nmanaged = ["veth*"]\n')
    credential = HostCredential("h1", bytes(range(32)), "http://127.0.0.1:1")
    SystemFiles().replace(data / "credential", render_credential(credential))
    command = [*f"strace -f -e trace=openat -o {trace}".split(), sys.executable, "-m", "ringfence", "doctor"]
    command += ["--inventory", str(inventory), "--data", str(data)]
    done = namespace.run(lambda: subprocess.run(command, capture_output=True, check=False))  # noqa: S603  our own
    if b"ptrace" in done.stderr:
        pytest.skip(f"no permission to trace: {done.stderr.decode().strip()}")
    assert b"kept policy" in done.stdout
    assert b"http://127.0.0.1:1" in done.stdout
    assert trace.read_text().count(f'"{inventory}"') == 1


def test_br_netfilter_that_is_off_is_told(namespace, capsys):
    namespace.write_sysctl("bridge/bridge-nf-call-iptables", 0)
    assert _examined(namespace, capsys)[1]["br_netfilter"]["state"] == "warning"
