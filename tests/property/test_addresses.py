"""Laws of merged intervals: the same addresses, disjoint, never adjacent, whatever the order."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ringfence.policy.addresses import Interval, merge_networks

ADDRESS = {4: IPv4Address, 6: IPv6Address}
TOP = {4: (1 << 32) - 1, 6: (1 << 128) - 1}


def _network(family, near, prefix):
    make, size = (IPv4Network, 32) if family == 4 else (IPv6Network, 128)
    base = near % (1 << size)
    return make((base >> (size - prefix) << (size - prefix), prefix))


# Few places and many sizes, so that networks overlap, nest and touch.
_places = st.sampled_from([0, 10 << 24, (10 << 24) + 256, 0x2001 << 112, (0x2001 << 112) + 1, -1, -512])
_offsets = st.integers(0, 1024)
_prefixes = {4: st.integers(0, 32), 6: st.integers(0, 128)}
_lists = {
    family: st.lists(st.builds(lambda p, o, n, f=family: _network(f, p + o, n), _places, _offsets, _prefixes[family]))
    for family in (4, 6)
}


@pytest.mark.parametrize("family", [4, 6])
@given(data=st.data())
def test_merged_intervals_hold_exactly_the_addresses_of_the_networks(family, data):
    networks = data.draw(_lists[family])
    merged = merge_networks(networks, family)
    edges = {int(network.network_address) for network in networks} | {int(n.broadcast_address) for n in networks}
    probes = {edge + step for edge in edges for step in (-1, 0, 1)} | {0, TOP[family]}
    for probe in probes:
        if not 0 <= probe <= TOP[family]:
            continue
        address = ADDRESS[family](probe)
        assert any(address in interval for interval in merged) == any(address in network for network in networks)


@pytest.mark.parametrize("family", [4, 6])
@given(data=st.data())
def test_merged_intervals_neither_overlap_nor_touch(family, data):
    spans = sorted(merge_networks(data.draw(_lists[family]), family))
    assert all(span.first <= span.last for span in spans)
    assert all(one.last + 1 < other.first for one, other in pairwise(spans))


@given(_lists[4], st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_of_networks_matters(networks, rng):
    shuffled = networks + networks[:2]
    rng.shuffle(shuffled)
    assert merge_networks(shuffled, 4) == merge_networks(networks, 4)


@given(_lists[4], _lists[6])
@example([IPv4Network("0.0.0.0/0")], [])
def test_a_family_never_takes_from_the_other(ipv4, ipv6):
    assert merge_networks(ipv4 + ipv6, 4) == merge_networks(ipv4, 4)
    assert merge_networks(ipv4 + ipv6, 6) == merge_networks(ipv6, 6)


def test_the_whole_family_is_one_interval():
    halves = [IPv4Network("0.0.0.0/1"), IPv4Network("128.0.0.0/1")]
    assert merge_networks(halves, 4) == {Interval(0, TOP[4])}
