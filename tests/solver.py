"""The meaning of rules once more, as formulas for z3: by docs/semantics.md, without any set algebra of reach."""

from dataclasses import dataclass, replace
from ipaddress import ip_network
from uuid import UUID

import msgspec
import z3

import nasty
from generated import MANAGED, dweller
from policies import ORGANISATION, group_id, instance_id
from ringfence.policy.insight.address_axis import WHOLE
from ringfence.policy.model import Group, GroupPeer, Rule
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import PROTOCOL_NUMBER, Direction, Kind, Protocol, Revision, RuleId, parse_cidr
from ringfence.wire.decode import decode_rule

_NO_FLOW = {4: ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"), 6: ("::/127", "fe80::/10", "ff00::/8", "::ffff:0:0/96")}
_OPENING = {(1, 4): (8, 13, 15, 17), (58, 6): (128, 139)}
_YES, _NO = (z3.BoolVal(value) for value in (True, False))
_LINK_TYPES = (130, 131, 132, 133, 134, 135, 136, 137, 143)
_PLACES = {6: 0, 17: 1 << 16, 1: 2 << 16, 58: 3 << 16}


def random_snapshot(rng):
    """A nasty policy on the nodes of ``nasty``, one of which may be a host of its own."""
    ids = {name: group_id(name) for name in nasty.GROUPS}
    groups = {}
    for name, id_ in ids.items():
        drafts = [
            decode_rule(msgspec.json.encode(nasty.random_rule(rng, [*map(str, ids.values())])))
            for _ in range(0 if name == "empty" else rng.randrange(5))
        ]
        sources = {parse_cidr(rng.choice(nasty.NETWORKS), field="x") for _ in range(rng.randrange(3))}
        rules = tuple(_rule(draft, UUID(int=rng.getrandbits(128))) for draft in drafts)
        groups[id_] = Group(id_, ORGANISATION, name, rules=rules, sources=() if name == "empty" else tuple(sources))
    instances = {}
    for node in MANAGED:
        one = dweller(node, rng.sample([*ids.values()], rng.randrange(4)), observe=rng.random() < 0.1)
        kind = Kind.SELF if rng.random() < 0.2 else Kind.ROUTED
        instances[instance_id(node.name)] = replace(
            one, interfaces=tuple(replace(interface, kind=kind) for interface in one.interfaces)
        )
    return Snapshot(Revision(1), {}, groups, instances)


def _rule(draft, id_):
    peer = GroupPeer(draft.peer.id) if hasattr(draft.peer, "id") else draft.peer
    return Rule(RuleId(id_), draft.direction, draft.protocol, peer, draft.start_port, draft.end_port, draft.icmp)


@dataclass
class Packet:
    """A first packet of a family, unknown: ``value`` is its port, or type and code."""

    family: int

    def __post_init__(self):
        width = 32 if self.family == 4 else 128
        self.source, self.destination = z3.BitVecs("source destination", width)
        self.protocol, self.value = z3.BitVec("protocol", 8), z3.BitVec("value", 16)
        self.type, self.code = z3.Extract(15, 8, self.value), z3.Extract(7, 0, self.value)

    def sane(self):
        """It is one that reach speaks of."""
        ends = [z3.Not(_within(end, net)) for end in (self.source, self.destination) for net in _NO_FLOW[self.family]]
        has_value = z3.Or(*(self.protocol == number for number in _PLACES))
        on_link = z3.And(self.protocol == 58, z3.Or(*(self.type == one for one in _LINK_TYPES)))
        link = z3.BoolVal(self.family == 6)
        return z3.And(*ends, z3.Or(has_value, self.value == 0), z3.Not(z3.And(link, on_link)))

    def opens(self):
        """Conntrack makes a flow of it."""
        cases = []
        for number in (1, 58):
            types = _OPENING.get((number, self.family), ())
            cases.append(z3.Implies(self.protocol == number, z3.Or(*(self.type == one for one in types))))
        untracked = z3.And(z3.Or(self.protocol == 51, self.protocol == 59), z3.BoolVal(self.family == 6))
        return z3.And(*cases, z3.Not(untracked))


def difference(reachability, family):
    """A packet on which rules and answer differ, as z3 prints it; None when there is none."""
    packet, solver = Packet(family), z3.Solver()
    solver.add(packet.sane(), z3.Xor(_by_rules(reachability.snapshot, packet), _by_answer(reachability, packet)))
    solver.add(z3.Not(_to_itself(reachability.snapshot, packet)))
    return solver.model() if solver.check() != z3.unsat else None


def _to_itself(snapshot, packet):
    return z3.Or(
        *(
            z3.And(_is_one(packet.source, one.addresses), _is_one(packet.destination, one.addresses))
            for one in snapshot.instances.values()
        )
    )


def _by_answer(reachability, packet):
    offset = WHOLE[packet.family][0]
    population, width = reachability.population, packet.source.size()
    place = z3.ZeroExt(24, packet.protocol) + (4 << 16)
    for number, base in _PLACES.items():
        place = z3.If(packet.protocol == number, z3.ZeroExt(16, packet.value) + base, place)

    def lies(end, bits):
        spans = [span for one in population.chosen(bits) if one.family == packet.family for span in one.addresses]
        return z3.Or(*(_between(end, first - offset, last - offset, width) for first, last in spans))

    return z3.Or(
        *(
            z3.And(
                lies(packet.source, part.sources),
                lies(packet.destination, part.destinations),
                z3.Or(*(_between(place, first, last, 32) for first, last in part.services)),
            )
            for part in reachability.ask().parts
        )
    )


def _by_rules(snapshot, packet):
    known = [*snapshot.instances.values()]
    sent = [z3.And(_is_one(packet.source, one.addresses), _leaves(snapshot, one, packet)) for one in known]
    taken = [z3.And(_is_one(packet.destination, one.addresses), _arrives(snapshot, one, packet)) for one in known]
    outside = [
        z3.Not(z3.Or(*(_is_one(end, one.addresses) for one in known))) for end in (packet.source, packet.destination)
    ]
    return z3.And(z3.Or(*sent, outside[0]), z3.Or(*taken, outside[1]), z3.Not(z3.And(*outside)))


def _leaves(snapshot, instance, packet):
    if instance.observe:
        return _YES
    rules = _rules(snapshot, instance, Direction.EGRESS)
    is_open = packet.opens() if not rules else _NO
    found = z3.Or(is_open, *(_matches(snapshot, rule, packet, packet.destination) for rule in rules))
    if instance.interfaces[0].kind is Kind.SELF or packet.family == 6:
        return found
    return z3.And(found, z3.Not(z3.And(packet.protocol == 1, packet.type == 5)))


def _arrives(snapshot, instance, packet):
    if instance.observe:
        return _YES
    rules = _rules(snapshot, instance, Direction.INGRESS)
    return z3.Or(*(_matches(snapshot, rule, packet, packet.source) for rule in rules))


def _rules(snapshot, instance, direction):
    worn = [snapshot.groups[group] for group in instance.groups]
    return [rule for group in worn for rule in group.rules if rule.direction is direction]


def _matches(snapshot, rule, packet, peer):
    if isinstance(rule.peer, GroupPeer):
        wearers = [one for one in snapshot.instances.values() if rule.peer.group in one.groups]
        sources = [str(source.network) for source in snapshot.groups[rule.peer.group].sources]
        right = z3.Or(
            *(_is_one(peer, one.addresses) for one in wearers), *(_within(peer, source) for source in sources)
        )
    else:
        right = _within(peer, str(rule.peer.network))
    return z3.And(right, _asks(rule, packet))


def _asks(rule, packet):
    if rule.protocol is Protocol.ALL:
        return packet.opens()
    found = [packet.protocol == PROTOCOL_NUMBER[rule.protocol]]
    if rule.protocol.has_ports:
        found.append(_between(packet.value, rule.ports.first, rule.ports.last, 16))
    if rule.protocol.has_types:
        found.append(z3.BoolVal((rule.protocol is Protocol.ICMP) == (packet.family == 4)))
        if rule.icmp is not None and not rule.icmp.any_type:
            found.append(packet.type == rule.icmp.type)
        if rule.icmp is not None and not rule.icmp.any_code:
            found.append(packet.code == rule.icmp.code)
    return z3.And(*found)


def _is_one(end, addresses):
    width = {32: 4, 128: 6}[end.size()]
    return z3.Or(*(end == int(address) for address in addresses if address.version == width))


def _within(end, text):
    network = ip_network(text)
    if network.max_prefixlen != end.size():
        return _NO
    return end & int(network.netmask) == int(network.network_address)


def _between(value, first, last, width):
    return z3.And(z3.ULE(z3.BitVecVal(first, width), value), z3.ULE(value, z3.BitVecVal(last, width)))
