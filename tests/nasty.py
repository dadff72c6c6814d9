"""Seeded, nasty policies and packets: overlaps, /0, /32, host bits, empty groups, self and mutual references.

A policy is made as the bodies of API calls, so that it can be applied over HTTP or straight to a snapshot.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from ringfence.policy.packet import AH, ICMP, ICMPV6, TCP, UDP, Packet
from ringfence.world.topology import Node

NODES = (
    Node("alpha", (ip_address("10.77.0.1"), ip_address("fd77::1"))),
    Node("bravo", (ip_address("10.77.0.2"), ip_address("fd77::2"))),
    Node("charlie", (ip_address("10.77.0.3"), ip_address("10.77.1.3"), ip_address("fd77::3"))),
    Node("delta", (ip_address("10.77.0.4"),)),
    Node("outside", (ip_address("198.51.100.10"), ip_address("2001:db8::10")), managed=False),
)
ROUTER = (ip_address("10.77.255.1"), ip_address("fd77:ffff::1"))
GROUPS = ("empty", "web", "app", "db", "loner")

NETWORKS = (
    "0.0.0.0/0",
    "::/0",
    "10.77.0.1/8",
    "10.77.0.1/32",
    "10.77.0.2/31",
    "10.77.0.0/30",
    "10.77.0.4/30",
    "128.0.0.0/1",
    "198.51.100.10/24",
    "198.51.100.0/28",
    "203.0.113.0/24",
    "fd77::/64",
    "fd77::2/128",
    "fd77::3/127",
    "2001:DB8::/32",
    "2001:db8::10/128",
    "8000::/1",
    "10.77.0.0/16",
    "10.77.1.3/32",
)
PORTS = (1, 22, 53, 80, 443, 8080, 65535)
ICMP_TYPES = {ICMP: (0, 3, 5, 8, 11, 13, 42, 254), ICMPV6: (1, 2, 3, 4, 100, 128, 129, 139, 200)}
LINK_TYPES = (130, 133, 135, 136, 143)
GENERIC = (4, 47, 50, 51)  # protocols without ports: one flow per pair of addresses


def random_rule(rng: random.Random, group_ids: list[str]) -> dict:
    """The body of an add-rule call."""
    protocol = rng.choice(("tcp", "tcp", "udp", "icmp", "icmpv6", "esp", "ah", "gre", "ipip", "all"))
    body: dict = {"flow-direction": rng.choice(("ingress", "ingress", "ingress", "egress")), "protocol": protocol}
    if rng.random() < 0.5:
        body["network"] = rng.choice(NETWORKS)
    else:
        body["security-group"] = {"id": rng.choice(group_ids)}
    if protocol in ("tcp", "udp") and rng.random() < 0.85:
        body["start-port"] = rng.choice(PORTS)
        if rng.random() < 0.6:
            body["end-port"] = rng.choice([port for port in PORTS if port >= body["start-port"]])
    if protocol in ("icmp", "icmpv6") and rng.random() < 0.7:
        number = ICMP if protocol == "icmp" else ICMPV6
        types = (*ICMP_TYPES[number], -1)
        type_ = rng.choice(types)
        body["icmp"] = {"type": type_, "code": rng.choice((0, 1, -1)) if type_ >= 0 else -1}
    return body


def random_packet(rng: random.Random, number: int) -> tuple[str, str, Packet]:
    """Where it is sent, whose address it is for, and the packet; ports and numbers make every flow one of its own."""
    while True:
        source, destination = rng.sample(NODES, 2)
        family = rng.choice((4, 6))
        ends = [[a for a in node.addresses if a.version == family] for node in (source, destination)]
        if all(ends):
            break
    protocol = rng.choice((TCP, TCP, TCP, UDP, UDP, ICMP, ICMPV6, *GENERIC, 41))
    if protocol in (ICMP, ICMPV6):
        # Mostly the family's own; sometimes icmp over IPv6 and the other way round.
        protocol = rng.choice([{4: ICMP, 6: ICMPV6}[family]] * 9 + [ICMP, ICMPV6])
    types = ICMP_TYPES.get(protocol, (0,))
    if protocol == ICMPV6 and rng.random() < 0.15:
        types = LINK_TYPES
    claimed = rng.choice(ends[0])
    if source.managed and rng.random() < 0.03:
        claimed = ip_address("10.99.0.9" if family == 4 else "fd99::9")
    return (
        source.name,
        destination.name,
        Packet(
            source=claimed,
            destination=rng.choice(ends[1]),
            protocol=protocol,
            source_port=20000 + number % 40000,
            destination_port=rng.choice((*PORTS, rng.randrange(1, 65536))),
            icmp_type=rng.choice(types),
            icmp_code=rng.choice((0, 1, 7)),
            opening=rng.random() > 0.1,
        ),
    )


def is_generic(packet: Packet) -> bool:
    """Whether all packets of the protocol between two addresses are one flow, in both directions."""
    return packet.protocol in (*GENERIC, 41) and not (packet.protocol == AH and packet.family == 6)


@dataclass
class Plan:
    """What a policy is made of, kept so that it can be changed a step at a time."""

    rng: random.Random
    group_ids: dict[str, str] = field(default_factory=dict)
    rules: list[tuple[str, str]] = field(default_factory=list)  # group id, rule id
    sources: list[tuple[str, str]] = field(default_factory=list)  # group id, network
    worn: set[tuple[str, str]] = field(default_factory=set)  # group id, instance id

    def rounds(self, size: int, start: int) -> Iterator[list[tuple[str, str, Packet]]]:
        """Packets in rounds within which no two generic packets can belong to one flow the other way round."""
        first: list[tuple[str, str, Packet]] = []
        second: list[tuple[str, str, Packet]] = []
        for number in range(start, start + size):
            shot = random_packet(self.rng, number)
            packet = shot[2]
            (second if is_generic(packet) and packet.source > packet.destination else first).append(shot)
        yield first
        yield second
