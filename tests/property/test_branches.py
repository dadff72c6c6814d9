"""A tree of chains says of every packet what the lines in a row would: the same first match, whatever overlaps."""

import random
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counts import count
from generated import differences
from nasty import NETWORKS, NODES
from policies import group, instance, snapshot
from ringfence.policy.program.branches import MOST_LINES, branch_out
from ringfence.policy.program.model import Chain, Count, Equal, Field, Goto, Jump, Line, Within

pytestmark = pytest.mark.full
FIELDS = {4: Field.FLOW_SOURCE4, 6: Field.FLOW_SOURCE6}
BITS = {4: 32, 6: 128}


def line(number, network, port=None):
    ports = () if port is None else (Equal(Field.FLOW_PORT, port),)
    return Line((*ports, Within(FIELDS[network.version], network), Count(f"r_{number}"), Goto("allow")))


def first_match(chains, name, address, port):
    """The counter of the line by which the packet leaves for ``allow``; None when it comes back."""
    for each in chains[name].lines:
        if not all(holds(part, address, port) for part in each.parts):
            continue
        last = each.parts[-1]
        if last == Goto("allow"):
            return next(part.counter for part in each.parts if isinstance(part, Count))
        found = first_match(chains, last.chain, address, port)
        if found is not None or isinstance(last, Goto):
            return found
    return None


def holds(part, address, port):
    match part:
        case Within(field, network):
            return field is FIELDS[address.version] and address in network
        case Equal(_, value):
            return port == value
    return True


def depth(chains, name):
    leads = [part.chain for each in chains[name].lines for part in each.parts if isinstance(part, Jump | Goto)]
    return 1 + max((depth(chains, chain) for chain in leads if chain in chains), default=0)


def random_lines(rng, many, version):
    """Networks of every length, many of them inside one another or alike, some lines of another kind in between."""
    bits = BITS[version]
    near = rng.getrandbits(bits)
    for number in range(many):
        value = near ^ rng.getrandbits(rng.choice((8, 12, 24, bits)))
        length = rng.choice((0, 8, 20, 24, bits, bits))
        network = ip_network((value.to_bytes(bits // 8, "big"), length), strict=False)
        yield line(number, network, rng.choice((None, 22, 443)))
        if rng.random() < 0.01:
            yield Line((Equal(Field.FLOW_PORT, 53), Count(f"r_x{number}"), Goto("allow")))


@given(st.integers(0, 2**32), st.sampled_from([4, 6]), st.sampled_from([0, 20, 100, 400]))
def test_the_first_line_that_matches_is_the_same(seed, version, many):
    rng = random.Random(seed)
    lines = tuple(random_lines(rng, many, version))
    plain, tree = {"g": Chain(lines)}, branch_out("g", lines, most=16)
    networks = [part.network for each in lines for part in each.parts if isinstance(part, Within)]
    for _ in range(count(reduced=30, stated=200)):
        network = rng.choice(networks) if networks else ip_network("10.0.0.0/8")
        edge = int(rng.choice((network.network_address, network.broadcast_address))) + rng.choice((-1, 0, 1))
        address = ip_address((edge & (1 << BITS[network.version]) - 1).to_bytes(BITS[network.version] // 8, "big"))
        port = rng.choice((22, 53, 443, 80))
        assert first_match(tree, "g", address, port) == first_match(plain, "g", address, port)
    assert depth(tree, "g") <= 7


@pytest.mark.parametrize("seed", range(1))
def test_a_group_of_very_many_rules_judges_as_the_verdict_says(seed):
    rng = random.Random(seed)
    networks = [f"{network}" for network in NETWORKS] + ["10.77.0.0/24", "198.51.100.0/25", "2001:db8::/64"]
    rules = dict.fromkeys(
        f"{rng.choice(('ingress', 'egress'))} {rng.choice(('tcp', 'udp'))}/{rng.randrange(20, 60)} from {network}"
        for network in networks
        for _ in range(count(reduced=8, stated=15))
    )
    dwellers = [instance(node.name, *map(str, node.addresses), wears=["web"]) for node in NODES if node.managed]
    assert len(rules) > 2 * MOST_LINES
    assert not differences(snapshot(group("web", *rules), *dwellers), seed, count(reduced=3, stated=100))


def test_few_lines_stay_in_one_chain():
    lines = tuple(line(number, ip_network(f"10.{number}.0.0/16")) for number in range(64))
    assert branch_out("g", lines) == {"g": Chain(lines)}


def test_a_packet_meets_few_of_many_lines():
    lines = tuple(line(number, ip_network((0x0A000000 + number * 256, 24))) for number in range(20_000))
    tree = branch_out("g", lines)
    assert max(len(chain.lines) for chain in tree.values()) <= 16
    assert depth(tree, "g") <= 7
    address = ip_address(0x0A000000 + 12_345 * 256 + 7)
    assert first_match(tree, "g", address, 22) == "r_12345"


def test_lines_that_all_ask_for_the_same_network_stay_in_one_chain():
    lines = tuple(line(number, ip_network("10.0.0.0/8"), number) for number in range(300))
    assert branch_out("g", lines) == {"g": Chain(lines)}
