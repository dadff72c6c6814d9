"""Hypothesis strategies for nasty policies, and the packets that look at a policy's edges."""

import random
from dataclasses import dataclass, replace
from ipaddress import ip_address

from hypothesis import strategies as st

import nasty
from policies import ORGANISATION, cidr, group_id, instance_id, mac_of
from ringfence.policy.model import Group, GroupPeer, Instance, Interface, Rule
from ringfence.policy.packet import ICMP, ICMPV6, Packet
from ringfence.policy.program import names
from ringfence.policy.program.compile import LocalPorts, compile_program
from ringfence.policy.program.refusal import Refusal
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import (
    PROTOCOL_NUMBER,
    Direction,
    HostName,
    Icmp,
    InterfaceName,
    Protocol,
    Revision,
    RuleId,
)
from ringfence.policy.verdict import Allowance, Default, Verdict, find_endpoint, judge
from ringfence.policy.view import Endpoint, HostView, resolve_view
from simulator import Crossing, open_crossing, simulate

PORTS = LocalPorts(("veth*", "tap*"))
OUTSIDE = "up-outside"
MANAGED = tuple(node for node in nasty.NODES if node.managed)
_NODE_ADDRESSES = frozenset(address for node in nasty.NODES for address in node.addresses)
MISSING = group_id("missing")
UNDECLARED_MAC = "delta"  # the instance whose MAC address nobody declared

_networks = st.sampled_from(nasty.NETWORKS).map(cidr)
_group_ids = st.sampled_from([*map(group_id, nasty.GROUPS), MISSING])
_seldom = st.sampled_from((False, False, False, True))
_peers = st.one_of(_networks, _group_ids.map(GroupPeer))


@st.composite
def rules(draw):
    """Any rule that the API accepts, from small domains so that rules meet."""
    protocol = draw(st.sampled_from(list(Protocol)))
    ports, icmp = (None, None), None
    if protocol.has_ports and draw(st.booleans()):
        ports = tuple(sorted((draw(st.sampled_from(nasty.PORTS)), draw(st.sampled_from(nasty.PORTS)))))
    if protocol.has_types and draw(st.booleans()):
        type_ = draw(st.sampled_from((-1, *nasty.ICMP_TYPES[PROTOCOL_NUMBER[protocol]])))
        icmp = Icmp(type_, draw(st.sampled_from((-1, 0, 1))) if type_ >= 0 else -1)
    return Rule(
        RuleId(draw(st.uuids(version=4))), draw(st.sampled_from(Direction)), protocol, draw(_peers), *ports, icmp=icmp
    )


@st.composite
def snapshots(draw, *, revision=1):
    """Groups of up to four rules and two sources, worn by the managed nodes of ``nasty``; "empty" has neither."""
    groups = {}
    for name in nasty.GROUPS:
        lines = [] if name == "empty" else draw(st.lists(rules(), max_size=4))
        sources = draw(st.lists(_networks, max_size=2, unique_by=lambda source: source.network))
        groups[group_id(name)] = Group(
            group_id(name), ORGANISATION, name, rules=tuple(lines), sources=() if name == "empty" else tuple(sources)
        )
    worn = st.lists(st.sampled_from([*groups]), max_size=3, unique=True)
    instances = {instance_id(node.name): dweller(node, draw(worn), observe=draw(_seldom)) for node in MANAGED}
    return Snapshot(Revision(revision), {}, groups, instances)


def dweller(node, groups, *, observe=False):
    """The instance that lives at a node of ``nasty``."""
    mac = None if node.name == UNDECLARED_MAC else mac_of(node.name)
    interface = Interface(InterfaceName(node.port), node.addresses, mac)
    id_ = instance_id(node.name)
    return Instance(id_, ORGANISATION, node.name, HostName("h1"), (interface,), tuple(groups), observe=observe)


@st.composite
def changed(draw, snapshot):
    """The snapshot after one or two single changes: a rule, a source or a worn group more or less."""
    groups, instances = dict(snapshot.groups), dict(snapshot.instances)
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(groups)))
        kind = draw(st.sampled_from(["rule+", "rule-", "source+", "source-", "worn", "observe"]))
        group = groups[name]
        match kind:
            case "rule+":
                groups[name] = replace(group, rules=(*group.rules, draw(rules())))
            case "rule-":
                at = draw(st.integers(0, 5))
                groups[name] = replace(group, rules=group.rules[:at] + group.rules[at + 1 :])
            case "source+":
                source = draw(_networks)
                if all(source.network != kept.network for kept in group.sources):
                    groups[name] = replace(group, sources=(*group.sources, source))
            case "source-":
                groups[name] = replace(group, sources=group.sources[1:])
            case "observe":
                id_ = draw(st.sampled_from(sorted(instances)))
                instances[id_] = replace(instances[id_], observe=not instances[id_].observe)
            case "worn":
                id_ = draw(st.sampled_from(sorted(instances)))
                worn = instances[id_].groups
                changed_worn = tuple(g for g in worn if g != name) if name in worn else (*worn, name)
                instances[id_] = replace(instances[id_], groups=changed_worn)
    return replace(snapshot, revision=Revision(snapshot.revision + 1), groups=groups, instances=instances)


@dataclass(frozen=True, slots=True)
class Way:
    """A packet and its ends; None is an unmanaged one, or with ``host`` this host itself."""

    packet: Packet
    source: Endpoint | None
    destination: Endpoint | None
    host: bool = False

    def judged(self, view: HostView) -> Verdict:
        from_host = self.host and None in (self.source, self.destination)
        return judge(view, self.packet, source=self.source, destination=self.destination, from_host=from_host)

    def under(self, view: HostView) -> "Way":
        """The same way between the same interfaces as another view knows them."""
        known = {endpoint.interface: endpoint for endpoint in view.endpoints}
        ends = [known[end.interface] if end else None for end in (self.source, self.destination)]
        return replace(self, source=ends[0], destination=ends[1])

    def crossing(self) -> Crossing:
        # What is for all on a link goes no further than to the host.
        elsewhere = "" if self.host or self.packet.destination.is_multicast else OUTSIDE
        return open_crossing(
            self.packet,
            came_by=str(self.source.interface) if self.source else elsewhere,
            goes_by=str(self.destination.interface) if self.destination else elsewhere,
            mac=mac_at(self.source),
        )


def mac_at(endpoint):
    """The source address of frames that come from an endpoint, or from elsewhere."""
    return "02:ff:ff:ff:ff:ff" if endpoint is None or endpoint.mac is None else str(endpoint.mac)


def ways(view, seed, count=100):
    """Packets for a view: half at random, half at the edges of its rules. The same for the same seed."""
    rng = random.Random(seed)
    found = [_random_way(view, rng, number) for number in range(count // 2)]
    edges = sorted(_edge_packets(view), key=repr)  # a set's order is another in every process
    found += [_way(view, packet, rng) for packet in rng.sample(edges, min(len(edges), count // 2))]
    return [way for way in found if way.source or way.destination]


def _random_way(view, rng, number):
    source, destination, packet = nasty.random_packet(rng, number)
    by_name = {endpoint.name: endpoint for endpoint in view.endpoints}
    return Way(packet, by_name.get(source), by_name.get(destination), rng.random() < 0.2)


def _way(view, packet, rng):
    source, destination = find_endpoint(view, packet.source), find_endpoint(view, packet.destination)
    return Way(packet, source, destination, rng.random() < 0.2)


def _edge_packets(view):
    for endpoint in view.endpoints:
        for group in endpoint.groups:
            for rule in view.rules.get(group, ()):
                yield from _around(view, endpoint, rule)


def _around(view, endpoint, rule):
    for own in endpoint.addresses:
        for peer in _peer_edges(view, rule):
            if peer.version != own.version or peer == own:
                continue
            ends = (peer, own) if rule.direction is Direction.INGRESS else (own, peer)
            yield from _payloads(rule, *ends)


def _peer_edges(view, rule):
    if not isinstance(rule.peer, GroupPeer):
        return _edges(rule.peer.network) | _NODE_ADDRESSES
    peer = view.peers[rule.peer.group]
    return {*peer.members, *_NODE_ADDRESSES}.union(*map(_edges, peer.sources))


def _edges(network):
    """The first and last address of a network, and those just outside."""
    first, last = network.network_address, network.broadcast_address
    top = (1 << network.max_prefixlen) - 1
    make = type(first)
    found = {first, last, make(max(int(first) - 1, 0)), make(min(int(last) + 1, top))}
    # Nothing is sent from nowhere or to everybody: those addresses have rules of their own.
    return {address for address in found if not (address.is_unspecified or address == ip_address("255.255.255.255"))}


def _payloads(rule, source, destination):
    number = PROTOCOL_NUMBER.get(rule.protocol, 47)
    packet = Packet(source, destination, number, source_port=40000)
    if rule.protocol.has_ports:
        around = {rule.ports.first - 1, rule.ports.first, rule.ports.last, rule.ports.last + 1}
        for port in sorted(port for port in around if 0 <= port <= 65535):
            yield replace(packet, destination_port=port)
    elif rule.protocol.has_types:
        opening = {ICMP: 8, ICMPV6: 128}[number]
        type_ = rule.icmp.type if rule.icmp and not rule.icmp.any_type else opening
        for code in (0, 1):
            yield replace(packet, icmp_type=type_, icmp_code=code)
        yield replace(packet, icmp_type=opening)
    else:
        yield packet


def difference(view, program, way):
    """How the program's answer differs from the verdict, in words; None when it does not."""
    verdict, outcome = way.judged(view), simulate(program, way.crossing(), 1)
    if verdict.allowed == outcome.passed and expected_counters(view, way) == outcome.counters:
        return None
    return f"verdict {verdict}, program {outcome}, packet {way.packet}, host {way.host}"


def expected_counters(view, way):
    """The counters that a packet must go by according to its verdict: what explain says, in numbers."""
    verdict = way.judged(view)
    found = []
    for side in (verdict.egress, verdict.ingress):
        if side is None:
            continue
        found += _counters(side)
        if not side.passes:
            break
        if side.reason is Default.SPOOFED:  # observed: it goes on, and what it may send is asked all the same
            honest = replace(way.source, addresses=(*way.source.addresses, way.packet.source))
            found += _counters(replace(way, source=honest).judged(view).egress)
    return found


def _counters(side):
    found = [counter] if (counter := _counter(side)) else []
    return found if side.allowed else [*found, *([_would_counter(side)] if side.passes else [])]


def _would_counter(side):
    denied = {Direction.INGRESS: Refusal.DENIED_IN, Direction.EGRESS: Refusal.DENIED_OUT}[side.direction]
    special = {
        Default.MID_STREAM: Refusal.STRAY,
        Default.SPOOFED: Refusal.SPOOFED,
        Default.ROGUE: Refusal.ROGUE,
        Default.FOREIGN_LINK: Refusal.LINK,
    }
    return names.would_counter(special.get(side.reason, denied).value)


def _counter(side):
    profile = names.profile_of(side.endpoint.groups)
    match side.reason:
        case Allowance(_, rule):
            return names.rule_counter(rule.id)
        case Default.EGRESS_OPEN:
            return names.open_counter(profile)
        case Default.NO_INGRESS_RULE | Default.NO_EGRESS_RULE | Default.UNTRACKABLE:
            return names.denied_counter(profile, side.direction)
        case Default.LINK:
            return None
        case other:
            return {
                Default.MID_STREAM: names.STRAY_COUNTER,
                Default.SPOOFED: names.SPOOFED_COUNTER,
                Default.ROGUE: names.ROGUE_COUNTER,
                Default.FOREIGN_LINK: names.LINK_COUNTER,
            }[other]


def differences(snapshot, seed, count=100):
    """Every way in which the compiled program disagrees with the verdict on packets of this seed."""
    view = resolve_view(snapshot)
    program = compile_program(view, PORTS)
    return [found for way in ways(view, seed, count) if (found := difference(view, program, way))]
