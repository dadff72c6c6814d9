"""Flows that a helper of conntrack expects, which another program set: FTP's data connections, raw on the wire."""

import shutil
import subprocess
from contextlib import closing
from dataclasses import replace

import pytest

from lab import open_lab
from policies import group
from ringfence.policy.values import Kind
from segments import ACK, PUSH, SYN, said

pytestmark = pytest.mark.netns

ALLOWED, DENIED = True, False
NFT = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
HELPER = """
table inet helping {
    ct helper ftp { type "ftp" protocol tcp; }
    chain before { type filter hook prerouting priority -150; tcp dport 21 ct helper set "ftp"; }
}
"""
CONTROL = "ingress tcp/21 from 0.0.0.0/0"
PORT = 5555


@pytest.fixture(params=[Kind.ROUTED, Kind.BRIDGED], ids=lambda kind: kind.value, scope="module")
def helped(request):
    with closing(open_lab(bridged=request.param is Kind.BRIDGED)) as lab:
        load = (NFT, "-f", "-")
        loaded = NFT and lab.world.router.run(lambda: subprocess.run(load, input=HELPER.encode(), check=False))  # noqa: S603  as others would
        if not loaded or loaded.returncode:
            pytest.skip("no nft, or a kernel without conntrack's helper for FTP")
        yield lab


def _ask_for_data(lab):
    """A control connection on which the server ``web`` names the port where it expects the client's data."""
    lab.forget_flows()
    ask = lab.tcp("outside", "web", 21)
    there, back = ask.packet, ask.back().packet
    greeting, passive = b"220 here\r\n", b"227 Entering Passive Mode (10,77,0,1,%d,%d)\r\n" % divmod(PORT, 256)
    for name, octets in (
        ("outside", said(there, SYN, 100, 0)),
        ("web", said(back, SYN | ACK, 500, 101)),
        ("outside", said(there, ACK, 101, 501)),
        ("web", said(back, ACK | PUSH, 501, 101, greeting)),
        ("web", said(back, ACK | PUSH, 501 + len(greeting), 101, passive)),
    ):
        lab.range.taps[name].send(octets)
        lab.range.settle(name)
    assert b"dport=%d" % PORT in lab.world.router.run(_expected)


def _expected():
    with open("/proc/thread-self/net/nf_conntrack_expect", "rb") as file:  # noqa: PTH123  the thread's own namespace
        return file.read()


def test_what_a_helper_expects_needs_a_rule_and_begins_with_a_plain_syn(helped):
    data = helped.tcp("outside", "web", PORT)
    for rule, allowed in (((), DENIED), ((f"ingress tcp/{PORT} from 0.0.0.0/0",), ALLOWED)):
        helped.enforce(group("g", CONTROL, *rule), helped.instance("web", "g"))
        _ask_for_data(helped)
        helped.expect_fate(DENIED, data.again(opening=False))
        _ask_for_data(helped)
        helped.expect_fate(allowed, data)
        helped.expect_fate(allowed, replace(data.back(), packet=replace(data.back().packet, opening=False)))
