"""A host that is its own instance, in its own network: two uplinks, and a container whose ports Docker publishes.

The router of the world is that host. ``outside`` is behind its uplink eth0, ``beyond`` behind eth1, ``box`` and
``crate`` are containers behind docker0 and docker1, which nobody manages; ``born`` is behind an interface under a
pattern, which no instance has. A table of another program translates as Docker's does: the host's port 8080 is port 80
of ``box``, 2222 is its port 22, and what containers send by an uplink gets the host's address.
"""

import shutil
import subprocess
from dataclasses import replace
from functools import partial
from ipaddress import ip_address, ip_network

import pytest

from lab import FAMILIES, HOST, Lab, Way
from policies import ORGANISATION, group_id, instance_id, snapshot
from ringfence.nft import About
from ringfence.policy.local import Failsafe, Lifelines, LocalPorts
from ringfence.policy.model import Instance, Interface
from ringfence.policy.values import HostName, InterfaceName, Kind, Protocol
from ringfence.policy.verdict import Verdict, judge
from ringfence.policy.view import Endpoint, resolve_view
from ringfence.world.topology import Node, build_world

UPLINKS = {"outside": "eth0", "beyond": "eth1"}
OWN = {
    "eth0": (ip_address("10.77.255.1"), ip_address("fd77:ffff::1")),
    "eth1": (ip_address("10.77.254.1"), ip_address("fd77:fffe::1")),
}
NODES = (
    Node("outside", (ip_address("198.51.100.10"), ip_address("2001:db8::10")), link="eth0"),
    Node("beyond", (ip_address("203.0.113.20"), ip_address("2001:db8:b::20")), link="eth1"),
    Node("box", (ip_address("172.17.0.2"), ip_address("fd17::2")), link="docker0"),
    Node("crate", (ip_address("172.18.0.2"), ip_address("fd18::2")), link="docker1"),
    Node("born", (ip_address("10.77.9.9"), ip_address("fd77:9::9")), link="tap-born"),
)
CONTAINERS = frozenset({"box", "crate"})
PUBLISHED = {8080: 80, 2222: 22}
SAFE = (ip_network("198.51.100.0/28"), ip_network("2001:db8::/64"))
LIFELINES = Lifelines(
    (Failsafe(Protocol.TCP, 22, SAFE), Failsafe(Protocol.UDP, 51820, SAFE)),
    frozenset({(ip_address("203.0.113.20"), 8443), (ip_address("2001:db8:b::20"), 8443)}),
)
_DOCKER = """
table {ip} docker {{
    chain before {{
        type nat hook prerouting priority dstnat
        fib daddr type local meta l4proto {{ tcp, udp }} dnat to {box} : th dport map {{ {ports} }}
    }}
    chain after {{
        type nat hook postrouting priority srcnat
        {ip} saddr {{ {box}, {crate} }} oifname eth0 snat to {eth0}
        {ip} saddr {{ {box}, {crate} }} oifname eth1 snat to {eth1}
    }}
}}
"""


class SelfLab(Lab):
    """``enforce`` takes groups, and the names of those that the host wears."""

    lifelines = LIFELINES
    managed = tuple(OWN)
    observed = False
    control = "box"

    @property
    def ports(self) -> LocalPorts:
        uplinks = tuple(
            Endpoint(instance_id(HOST), HOST, InterfaceName(name), OWN[name], None, (), Kind.SELF, self.observed)
            for name in self.managed
        )
        return LocalPorts((*self.managed, "tap*"), Kind.SELF, uplinks, self.lifelines)

    def enforce(self, *groups: object, wears: tuple[str, ...] = ()) -> None:
        interfaces = tuple(
            Interface(InterfaceName(name), own, managed=name in self.managed, kind=Kind.SELF)
            for name, own in OWN.items()
        )
        worn = tuple(group_id(name) for name in wears)
        host = Instance(instance_id(HOST), ORGANISATION, HOST, HostName("h1"), interfaces, worn)
        revision = next(self._revisions)
        self.view = resolve_view(snapshot(*groups, host, revision=revision), HostName("h1"))
        self._enforcer.enforce(self.view, About(revision, "lab"), self.ports)

    def judge(self, way: Way) -> Verdict:
        """What enters by an uplink, and what leaves by one, each end for itself."""
        ends = {str(endpoint.interface): endpoint for endpoint in self.view.endpoints}
        return judge(
            self.view,
            way.packet,
            source=ends.get(UPLINKS.get(way.destination, "")),
            destination=ends.get(UPLINKS.get(way.source, "")),
            from_host=way.source == HOST,
            lifelines=self.lifelines,
        )

    def address(self, name: str, family: int):
        nodes = {node.name: node.addresses for node in NODES} | {HOST: OWN["eth0"]}
        return next(address for address in nodes[name] if address.version == family)

    def published(self, way: Way) -> Way:
        """The way of a packet to a published port of the host: it arrives at the container."""
        return replace(way, destination="box")

    def deliver_published(self, asked: Way, *, port: int) -> Way:
        """The answer of the container to a packet that came by a published port."""
        family = asked.packet.family
        inner = asked.again(destination=self.address("box", family), destination_port=port)
        return replace(inner, destination="box").back()


def open_self_lab(*, mute: bool = True) -> SelfLab:
    addresses = tuple(address for own in OWN.values() for address in own)
    lab = SelfLab(build_world(NODES, router_addresses=addresses, mute=mute))
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
    if nft is None:
        lab.close()
        pytest.skip("the nft program is not installed, which plays Docker here")
    for family in FAMILIES:
        lab.world.router.run(partial(_run, nft, _docker(lab, family)))
    return lab


def _docker(lab: SelfLab, family: int) -> str:
    ends = {name: lab.address(name, family) for name in CONTAINERS}
    ends |= {name: next(one for one in own if one.version == family) for name, own in OWN.items()}
    ports = ", ".join(f"{asked} : {real}" for asked, real in PUBLISHED.items())
    return _DOCKER.format(ip={4: "ip", 6: "ip6"}[family], ports=ports, **ends)


def _run(nft: str, text: str) -> None:
    subprocess.run((nft, "-f", "-"), input=text, text=True, check=True)  # noqa: S603  ours
