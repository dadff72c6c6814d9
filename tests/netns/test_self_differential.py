"""Model and kernel agree on every packet at a host that is its own instance: random policies, packets of all kinds."""

import random
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address
from itertools import groupby

import pytest

from counts import count
from lab import HOST
from nasty import ICMP_TYPES, is_generic
from policies import group
from ringfence.policy.packet import ICMP, ICMPV6, TCP, UDP
from ringfence.policy.verdict import Default
from self_lab import CONTAINERS, PUBLISHED, UPLINKS, open_self_lab

pytestmark = [pytest.mark.netns, pytest.mark.full]

PACKETS = count(reduced=4_000, stated=40_000)
PER_POLICY = 200
PORTS = (22, 53, 80, 8080, 2222, 8443, 51820, 68, 546)
NETWORKS = (
    *("0.0.0.0/0", "::/0", "198.51.100.10/32", "198.51.100.0/24", "203.0.113.0/24", "10.77.255.1/32", "172.17.0.0/16"),
    *("2001:db8::/64", "2001:db8:b::20/128", "2001:db8::/32", "fd77:ffff::/64"),
)
GROUPS = ("a", "b", "c")
LINK_TYPES = (130, 132, 133, 134, 135, 136, 137, 143)
MET = frozenset(Default) - {Default.SPOOFED, Default.ROGUE}
MARTIANS = {4: ("127.0.0.1", "10.77.255.1", "10.77.254.1"), 6: ("::1", "fd77:ffff::1", "fd77:fffe::1")}


def _rule(rng):
    direction = rng.choice(("ingress", "ingress", "egress"))
    protocol = rng.choice(("tcp", "tcp", "udp", "udp", "icmp", "icmpv6", "esp", "ah", "gre", "all"))
    what = ""
    if protocol in ("tcp", "udp") and rng.random() < 0.8:
        first, last = sorted(rng.choices(PORTS, k=2))
        what = rng.choice((f"/{first}", f"/{first}-{last}"))
    elif protocol in ("icmp", "icmpv6") and rng.random() < 0.6:
        what = f"/{rng.choice(ICMP_TYPES[ICMP if protocol == 'icmp' else ICMPV6])}"
    peer = rng.choice(NETWORKS) if rng.random() < 0.7 else f"group {rng.choice(GROUPS)}"
    return f"{direction} {protocol}{what} {'from' if direction == 'ingress' else 'to'} {peer}"


def _groups(rng):
    for name in GROUPS:
        rules = {_rule(rng) for _ in range(rng.randrange(5))}
        sources = {f"source {rng.choice(NETWORKS)}" for _ in range(rng.randrange(2))}
        yield group(name, *sorted(rules | sources))


def _way(rng, lab):
    source = rng.choice(("outside", "outside", "beyond", "box", HOST, HOST))
    others = {*UPLINKS, *CONTAINERS, HOST} - {source}
    if source in CONTAINERS:
        others -= {HOST}  # what a container asks of a published port goes back to it
    destination = rng.choice(sorted(others))
    family = rng.choice((4, 6))
    number = rng.choice((TCP, TCP, UDP, UDP, {4: ICMP, 6: ICMPV6}[family], 47, 50, 51, 89))
    types = ICMP_TYPES.get(number, (0,))
    fields = {
        "destination_port": rng.choice((*PORTS, rng.randrange(1, 65536))),
        "icmp_type": rng.choice((*types, *(LINK_TYPES if number == ICMPV6 and HOST in (source, destination) else ()))),
        "icmp_code": rng.choice((0, 1)),
        "opening": rng.random() > 0.2,
        "hop_limit": 64,
    }
    if fields["icmp_type"] in LINK_TYPES:
        fields["hop_limit"] = rng.choice((255, 254, 1))
    if source in UPLINKS and destination == HOST and rng.random() < 0.1:
        fields["source"] = ip_address(rng.choice(MARTIANS[family]))
    if rng.random() < 0.1:
        fields["source_port"] = rng.choice((22, 51820, 8443, 67, 547))
    way = lab.way(source, destination, number, family, **fields)
    asks_published = number in (TCP, UDP) and way.packet.destination_port in PUBLISHED
    return replace(way, destination="box") if destination == HOST and asks_published else way


def _round(way):
    """What may be sent together: no packet may belong to the flow of another, translated or not."""
    packet = way.packet
    unnumbered = is_generic(packet) or packet.protocol == 89
    taken = packet.source_port < 20000 and packet.protocol in (TCP, UDP)
    return (way.source == HOST, way.source in CONTAINERS, unnumbered and packet.source > packet.destination, taken)


def test_kernel_and_model_agree_on_every_packet_at_a_self_host():
    rng = random.Random(20261125)
    sent, allowed, differences, reasons = 0, 0, [], set()
    with closing(open_self_lab()) as lab:
        while sent < PACKETS:
            groups = list(_groups(rng))
            lab.enforce(*groups, wears=tuple(rng.sample(GROUPS, rng.randrange(3))))
            ways = sorted((_way(rng, lab) for _ in range(PER_POLICY)), key=_round)
            for _, together in groupby(ways, key=_round):
                volley = list(together)
                lab.forget_flows()
                for way, arrived in zip(volley, lab.send(*volley), strict=True):
                    verdict = lab.judge(way)
                    reasons |= {side.reason for side in (verdict.egress, verdict.ingress) if side}
                    sent += 1
                    allowed += verdict.allowed
                    if verdict.allowed != (arrived == way.destination):
                        differences.append(f"{way} arrived at {arrived} but {verdict}")
    assert not differences, "\n".join((f"{len(differences)} of {sent}", *differences[:5]))
    assert {reason for reason in reasons if isinstance(reason, Default)} == MET
    assert 0.2 < allowed / sent < 0.8
