"""Imported rules against the kernel that holds the original: real packets come in by the same, and only by them."""

import json
import shutil
import socket
import struct
import subprocess
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest
from pyroute2 import IPRoute

from importing import lets_in, words_of
from ringfence.policy.errors import Invalid
from ringfence.policy.insight.services import place_of
from ringfence.policy.packet import ICMP, ICMPV6, TCP, UDP, Packet
from ringfence.wire.imports.chains import Leave
from ringfence.wire.imports.iptables import Wanted, accepted_by_tables, read_tables
from ringfence.wire.imports.nftables import accepted_by_ruleset
from ringfence.world.namespaces import make_namespace
from waiting import wait_until

pytestmark = pytest.mark.netns

HERE = {4: "10.66.0.1", 6: "fd66::1"}
SOURCES = ("10.66.0.2", "10.66.0.3", "10.66.1.4", "10.66.2.5", "fd66::2", "fd66::3", "fd66:0:0:1::4")
PORTS = (22, 23, 80, 443, 8005)
ECHO = {4: (ICMP, 8, 0), 6: (ICMPV6, 128, 129)}
NFT = """\
table inet filter {
  set office { type ipv4_addr; flags interval; elements = { 10.66.0.0/31, 10.66.0.3-10.66.1.9 } }
  chain services {
    tcp dport 80 return
    ip saddr 10.66.2.0/24 drop
    tcp dport { 22, 8000-8010 } accept
  }
  chain input {
    type filter hook input priority filter; policy drop;
    ct state vmap { established : accept, related : accept, invalid : drop }
    iifname "lo" accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
    ip saddr @office icmp type echo-request accept
    ip6 saddr fd66::/64 icmpv6 type echo-request counter accept comment "ping"
    ip6 saddr fd66::3 drop
    jump services
    meta l4proto { tcp, udp } th dport vmap { 80 : accept, 443 : goto secure }
  }
  chain secure { ip saddr != 10.66.0.3 udp dport 443 accept
    meta nfproto ipv6 tcp dport 443 accept
  }
}
"""
IPTABLES = """\
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:office - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -s 10.66.0.0/23 -j office
-A INPUT -p udp -m udp --dport 443 -j ACCEPT
-A INPUT ! -s 10.66.2.0/24 -p tcp -m multiport --dports 80,443 -j ACCEPT
-A office -s 10.66.0.3/32 -p udp -j DROP
-A office -p tcp -m tcp --dport 22:23 -m comment --comment "from the office" -j ACCEPT
-A office -p icmp -m icmp --icmp-type 8 -j RETURN
-A office -p udp -m udp ! --dport 80 -j ACCEPT
-A INPUT -s 10.66.1.4/32 -p icmp -m icmp --icmp-type 8 -j ACCEPT
COMMIT
"""


def _run(*line, text=None):
    return subprocess.run(line, input=text, capture_output=True, text=True, check=True).stdout  # noqa: S603  our own


def _link(netlink, name, addresses):
    index = netlink.link_lookup(ifname=name)[0]
    for address in addresses:
        is_v6 = ":" in address
        netlink.addr("add", index=index, address=address, prefixlen=32 if is_v6 else 16, flags=0x02 if is_v6 else 0)
    netlink.link("set", index=index, state="up")


@dataclass
class Pair:
    """A host that judges and one that sends to it from many addresses, with one wire between them."""

    here: object
    there: object
    doors: list = field(default_factory=list)  # sockets of the host that judges, with what they stand for

    def load(self, *line, text):
        self.here.run(lambda: _run("nft", "flush", "ruleset"))
        self.here.run(lambda: _run(*line, text=text))

    def open_doors(self):
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104  in a namespace of its own
            for port in PORTS:
                for protocol, kind in ((UDP, socket.SOCK_DGRAM), (TCP, socket.SOCK_STREAM)):
                    door = self.here.run(lambda f=family, k=kind: socket.socket(f, k))
                    if family == socket.AF_INET6:
                        door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    door.bind((address, port))
                    door.settimeout(0)
                    if protocol == TCP:
                        door.listen(32)
                    self.doors.append((door, protocol, port))

    def send_all(self):
        """One first packet of every kind from every address; what has to stay open for an answer comes back."""
        asking = []
        for source in SOURCES:
            family = ip_address(source).version
            af, target = (socket.AF_INET, HERE[4]) if family == 4 else (socket.AF_INET6, HERE[6])
            for kind, port in ((kind, port) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM) for port in PORTS):
                one = self.there.run(lambda f=af, k=kind: socket.socket(f, k))
                one.bind((source, 0))
                one.settimeout(0)
                one.connect_ex((target, port))
                if kind == socket.SOCK_DGRAM:
                    one.send(b"x")
                asking.append((one, None))
            protocol, type_, _ = ECHO[family]
            ping = self.there.run(lambda f=af, p=protocol: socket.socket(f, socket.SOCK_DGRAM, p))
            ping.bind((source, 0))
            ping.settimeout(0)
            ping.sendto(struct.pack("!BBHHH", type_, 0, 0, 0, 1), (target, 0))
            asking.append((ping, (source, protocol, 0)))
        return asking

    def arrived(self, asking, seen):
        """Adds to ``seen`` what has come in up to this moment."""
        for door, protocol, port in self.doors:
            while True:
                try:
                    peer = door.accept()[1] if protocol == TCP else door.recvfrom(8)[1]
                except BlockingIOError:
                    break
                seen.add((peer[0], protocol, port))
        for ping, stands_for in asking:
            if stands_for is not None:
                try:
                    ping.recv(64)
                except BlockingIOError:
                    continue
                seen.add(stands_for)
        return seen


@pytest.fixture
def pair():
    with ExitStack() as stack:
        here, there = (stack.enter_context(closing(make_namespace(name))) for name in ("judge", "sender"))

        def wire():
            with IPRoute() as netlink:
                netlink.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": there.fd})
                _link(netlink, "eth0", HERE.values())

        def far_end():
            with IPRoute() as netlink:
                _link(netlink, "eth0", SOURCES)

        here.run(wire)
        there.run(far_end)
        there.write_sysctl("ipv4/ping_group_range", "0 0")
        made = Pair(here, there)
        made.open_doors()
        yield made
        for door, *_ in made.doors:
            door.close()


def _wanted(drafts):
    """What the imported rules let in, of all that is sent."""
    found = set()
    for source in map(ip_address, SOURCES):
        protocol, type_, _ = ECHO[source.version]
        here = ip_address(HERE[source.version])
        asked = [(one, port) for one in (UDP, TCP) for port in PORTS]
        for number, port in (*asked, (protocol, 0)):
            packet = Packet(source, here, number, destination_port=port, icmp_type=type_)
            if lets_in(drafts, source, place_of(packet)):
                found.add((str(source), number, port))
    return found


def _check(pair, drafts):
    wanted, seen = _wanted(drafts), set()
    asking = pair.send_all()
    wait_until(lambda: pair.arrived(asking, seen) >= wanted)
    later = pair.send_all()  # by the time that these have come in, whatever of the first comes in has done so
    again = set()
    wait_until(lambda: pair.arrived(later, again) >= wanted)
    assert seen | again == wanted
    for one, _ in (*asking, *later):
        one.close()


def _listed(pair):
    return json.loads(pair.here.run(lambda: _run("nft", "-j", "list", "ruleset")))


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not here")
def test_rules_of_nft_let_in_what_the_kernel_lets_in(pair):
    pair.load("nft", "-f", "-", text=NFT)
    rules = accepted_by_ruleset(_listed(pair), "ruleset", Leave()).rules
    assert 10 < len(_wanted(rules)) < 50
    _check(pair, rules)


OTHERS = """\
table inet t {
  set changing { type ipv4_addr; flags dynamic, timeout; timeout 1m; }
  chain input { type filter hook input priority 0; policy drop;
    %s
    tcp dport 80 accept
  }
}
"""


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not here")
@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("tcp dport 22 limit rate 3/minute accept", "it limits how often"),
        ("ip daddr 192.0.2.1 tcp dport 22 accept", "destination 192.0.2.1"),
        ('iifname "eth0" tcp dport 22 accept', "interface eth0"),
        ("udp sport 53 accept", "source port 53"),
        ("ip saddr @changing tcp dport 22 accept", "a set that changes by itself"),
        ("th dport 53 accept", "ports of any protocol"),
        ("ip saddr . tcp dport { 192.0.2.1 . 22 } accept", "nothing that a rule can say"),
        ("meta l4proto sctp accept", "protocol/132"),
        ("meta skuid 0 accept", "meta skuid"),
    ],
)
def test_what_no_rule_can_say_is_refused_by_its_handle_or_left_out_where_that_was_asked(pair, line, why):
    pair.load("nft", "-f", "-", text=OTHERS % line)
    ruleset = _listed(pair)
    with pytest.raises(Invalid, match=f"^rules: table inet t, chain input, handle [0-9]+: .*{why}.*--leave-out"):
        accepted_by_ruleset(ruleset, "rules", Leave())
    found = accepted_by_ruleset(ruleset, "rules", Leave(unclear=True))
    assert [words_of(rule) for rule in found.rules] == ["tcp/80 0.0.0.0/0", "tcp/80 ::/0"]


@pytest.mark.skipif(shutil.which("iptables-nft-restore") is None, reason="iptables is not here")
def test_rules_of_iptables_let_in_what_the_kernel_lets_in(pair):
    pair.load("iptables-nft-restore", text=IPTABLES)
    pair.here.run(lambda: _run("ip6tables-nft-restore", text="*filter\n:INPUT DROP [0:0]\nCOMMIT\n"))
    wanted = Wanted("iptables-save", 4)
    saved = pair.here.run(lambda: _run("iptables-nft-save"))
    rules = accepted_by_tables(read_tables(saved, wanted), wanted, Leave(), input_only=False).rules
    assert 10 < len(_wanted(rules)) < 30
    _check(pair, rules)
    with pytest.raises(Invalid, match=r"table ip filter, chain .*xt"):
        accepted_by_ruleset(_listed(pair), "ruleset", Leave())
