"""A fleet's policy of any size: role groups, groups that many roles share, and rules of all kinds between them."""

import random
from ipaddress import IPv4Network, IPv6Network, ip_address
from uuid import UUID

from bench.sized import group_id
from policies import ORGANISATION
from ringfence.policy.model import Group, GroupPeer, Instance, Interface, Rule
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import Cidr, Direction, HostName, InstanceId, InterfaceName, Protocol, Revision, RuleId

SHARED = 20  # of so many groups, one is shared by many roles
RULES = 10  # of each group


def fleet_snapshot(groups: int, instances: int, seed: int = 1) -> Snapshot:
    """Every instance wears its role, mostly the shared groups of its role, and one in ten a shared one of its own."""
    rng = random.Random(seed)
    shared = range(groups // SHARED)
    roles = range(groups // SHARED, groups)
    usual = {role: rng.sample(shared, rng.randrange(3)) for role in roles}
    made = {group_id(n): _group(n, groups, rng) for n in range(groups)}
    found = {}
    for number in range(instances):
        role = roles[number % len(roles)]
        worn = [role, *usual[role], *([rng.choice(shared)] if rng.random() < 0.1 else [])]
        one = _instance(number, tuple(dict.fromkeys(worn)))
        found[one.id] = one
    return Snapshot(Revision(1), {}, made, found)


def _instance(number: int, worn: tuple[int, ...]) -> Instance:
    addresses = (ip_address(0x0A000000 + number * 3 + 1), ip_address((0xFD77 << 112) + number))
    interface = Interface(InterfaceName(f"tap{number}"), addresses)
    host = HostName(f"h{number % 100}")
    groups = tuple(map(group_id, worn))
    return Instance(InstanceId(UUID(int=1 << 100 | number)), ORGANISATION, f"i{number}", host, (interface,), groups)


def _group(number: int, groups: int, rng: random.Random) -> Group:
    restricts = rng.random() < 0.5
    rules = tuple(
        _rule(UUID(int=1 << 110 | number << 8 | n), groups, rng, leaves=restricts and n < RULES * 4 // 10)
        for n in range(RULES)
    )
    sources = (_network(rng),) if rng.random() < 0.1 else ()
    return Group(group_id(number), ORGANISATION, f"g{number}", rules=rules, sources=sources)


def _rule(id_: UUID, groups: int, rng: random.Random, *, leaves: bool) -> Rule:
    direction = Direction.EGRESS if leaves else Direction.INGRESS
    protocol = rng.choice((Protocol.TCP, Protocol.TCP, Protocol.TCP, Protocol.UDP))
    first = rng.choice((22, 53, 80, 443, 5432, 8080, 9090, rng.randrange(1024, 60000)))
    last = first + rng.choice((0, 0, 0, 100))
    draw = rng.random()
    if draw < 0.5:
        return Rule(RuleId(id_), direction, protocol, GroupPeer(group_id(rng.randrange(groups))), first, last)
    if draw < 0.6:
        everywhere = IPv4Network("0.0.0.0/0") if rng.random() < 0.7 else IPv6Network("::/0")
        return Rule(RuleId(id_), direction, protocol, Cidr(str(everywhere), everywhere), first, last)
    return Rule(RuleId(id_), direction, protocol, _network(rng), first, last)


def _network(rng: random.Random) -> Cidr:
    base = rng.choice((0x0A000000 + rng.randrange(1 << 15), rng.randrange(1 << 24, 0xDF000000)))
    network = IPv4Network((base, rng.choice((24, 26, 28, 32))), strict=False)
    return Cidr(str(network), network)
