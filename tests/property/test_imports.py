"""Random chains of iptables: a packet is let in by the imported rules exactly when the chains accept it."""

import random
from ipaddress import ip_address, ip_network

import pytest

from counts import count
from importing import lets_in
from ringfence.policy.errors import Invalid
from ringfence.policy.insight.services import place_of
from ringfence.policy.packet import ICMP, TCP, UDP, Packet
from ringfence.wire.imports.chains import Leave
from ringfence.wire.imports.iptables import Wanted, accepted_by_tables, read_tables

NETWORKS = ("10.0.0.0/8", "10.0.0.0/30", "10.0.0.2/32", "192.0.2.0/24", "128.0.0.0/1", "0.0.0.0/0")
SOURCES = ("10.0.0.1", "10.0.0.2", "10.0.0.5", "10.200.0.1", "192.0.2.7", "203.0.113.9", "8.8.8.8")
PORTS = (22, 23, 80, 443, 8080)
CHAINS = ("INPUT", "a", "b", "c")
TARGETS = ("ACCEPT", "ACCEPT", "DROP", "RETURN")
NUMBERS = {"tcp": TCP, "udp": UDP, "icmp": ICMP}


def _rule(rng, chain):
    """A line as what it asks for and what it does: source, protocol, ports or type, target."""
    deeper = [name for name in CHAINS if name > chain] if chain != "INPUT" else ["a", "b", "c"]
    targets = [*TARGETS, *(f"-j {name}" for name in deeper), *(f"-g {name}" for name in deeper)]
    protocol = rng.choice((None, "tcp", "tcp", "udp", "icmp"))
    what = None
    if protocol in ("tcp", "udp") and rng.random() < 0.8:
        what = tuple(sorted(rng.choices(PORTS, k=2)))
    if protocol == "icmp" and rng.random() < 0.5:
        what = (rng.choice((0, 8, 13)),) * 2
    negated = rng.random() < 0.2
    target = rng.choice([target for target in targets if not (chain == "INPUT" and target == "RETURN")])
    return rng.choice((None, *NETWORKS)), negated, protocol, what, target


def _text(chain, rule):
    network, negated, protocol, what, target = rule
    words = [f"{'! ' if negated else ''}-s {network}"] if network else []
    words += [f"-p {protocol}"] if protocol else []
    if what:
        words.append(f"--icmp-type {what[0]}" if protocol == "icmp" else f"--dport {what[0]}:{what[1]}")
    return f"-A {chain} {' '.join([*words, target if target.startswith('-') else f'-j {target}'])}"


def _matches(rule, packet):
    network, negated, protocol, what, _ = rule
    if network and (packet.source in ip_network(network)) == negated:
        return False
    if protocol and packet.protocol != NUMBERS[protocol]:
        return False
    value = packet.icmp_type if protocol == "icmp" else packet.destination_port
    return what is None or what[0] <= value <= what[1]


def _verdict(chains, name, packet):
    """ACCEPT or DROP, or None for a packet that comes back."""
    for rule in chains[name]:
        if not _matches(rule, packet):
            continue
        target = rule[-1]
        if target in ("ACCEPT", "DROP"):
            return target
        if target == "RETURN":
            return None
        verdict = _verdict(chains, target[3:], packet)
        if verdict is not None or target.startswith("-g"):
            return verdict
    return None


def _packets():
    for source in SOURCES:
        for protocol in (TCP, UDP):
            for port in (*PORTS, 81):
                yield Packet(ip_address(source), ip_address("192.0.2.1"), protocol, destination_port=port)
        for type_ in (8, 13):
            yield Packet(ip_address(source), ip_address("192.0.2.1"), ICMP, icmp_type=type_)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(count(reduced=20, stated=2000)))
def test_the_rules_let_in_exactly_what_the_chains_accept(seed):
    rng = random.Random(seed)
    chains = {name: [_rule(rng, name) for _ in range(rng.randrange(1, 6))] for name in CHAINS}
    policy = rng.choice(("ACCEPT", "DROP", "DROP"))
    declared = [f":INPUT {policy} [0:0]", *(f":{name} - [0:0]" for name in CHAINS[1:])]
    lines = [_text(name, rule) for name, rules in chains.items() for rule in rules]
    text = "\n".join(["*filter", *declared, *lines, "COMMIT", ""])
    wanted = Wanted("rules", 4)
    try:
        rules = accepted_by_tables(read_tables(text, wanted), wanted, Leave(unclear=True), input_only=False).rules
    except Invalid as error:
        if "takes more than" in str(error):
            return  # of what is dropped here and there too many networks are left, and that is said
        raise
    for packet in _packets():
        accepted = (_verdict(chains, "INPUT", packet) or policy) == "ACCEPT"
        assert lets_in(rules, packet.source, place_of(packet)) == accepted, (text, packet)
