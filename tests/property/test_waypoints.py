"""No packet meets a mixture: on the way from one program to another each is judged as by one of the two."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counts import count
from generated import PORTS, Way, changed, snapshots, ways
from kernel import Table
from mixtures import strays
from policies import group, instance, snapshot
from ringfence.policy.packet import TCP, Packet
from ringfence.policy.program.compile import compile_program
from ringfence.policy.program.waypoints import find_way
from ringfence.policy.view import resolve_view

pytestmark = pytest.mark.full
SEEDS = st.integers(0, 1 << 32)
PACKETS = count(reduced=12, stated=40)


@st.composite
def pairs(draw):
    """Two snapshots of the same instances at the same ports: rules, sources and worn groups change at once."""
    before = draw(snapshots())
    after = before
    for _ in range(draw(st.integers(1, 4))):
        after = draw(changed(after))
    other = draw(st.one_of(st.just(after), st.just(after), snapshots()))
    instances = {id_: replace(other.instances[id_], observe=one.observe) for id_, one in before.instances.items()}
    return before, replace(other, revision=2, instances=instances)


@st.composite
def arrivals(draw):
    """Two snapshots with the same groups, each with instances of its own at the ports."""
    whole = draw(snapshots())
    held = [draw(st.sets(st.sampled_from(sorted(whole.instances)))) for _ in range(2)]
    return [replace(whole, instances={id_: whole.instances[id_] for id_ in sorted(some)}) for some in held]


def _strays(views, packets):
    actual, desired = (compile_program(view, PORTS) for view in views)
    return list(strays([actual, *(leg.program for leg in find_way(actual, desired))], packets))


@given(pairs(), SEEDS)
def test_a_packet_under_way_is_judged_as_by_the_old_program_or_the_new(pair, seed):
    views = [resolve_view(one) for one in pair]
    assert not _strays(views, [way for view in views for way in ways(view, seed, count=PACKETS)])


@given(arrivals(), SEEDS)
def test_a_packet_under_way_meets_no_port_half_programmed(pair, seed):
    """The packet of an instance whose port is closed at any moment of the way may not pass for a stranger's."""
    views = [resolve_view(one) for one in pair]
    assert not _strays(views, [way for view in views for way in ways(view, seed, count=PACKETS)])


@given(pairs())
def test_every_way_ends_in_what_is_desired(pair):
    actual, desired = (compile_program(resolve_view(one), PORTS) for one in pair)
    table = Table.holding(actual)
    for leg in find_way(actual, desired):
        table.carry_out(leg.delta.prepare)
        table.carry_out(leg.delta.flip)
        assert table.program == leg.program
    assert table.program == desired


DB = group("db", "ingress tcp/80 from group peers")
PEERS = group("peers")
KEPT = (instance("charlie", "10.77.0.3", wears=["peers"]), instance("delta", "10.77.0.4", wears=["db"]))
CROSSINGS = {
    "the peers gain one when an instance leaves": ((["db"], []), ([], ["peers"])),
    "the peers lose one when an instance comes": (([], ["peers"]), (["db"], [])),
}


@pytest.mark.parametrize("worn", CROSSINGS.values(), ids=CROSSINGS)
def test_neither_a_group_nor_its_peers_of_then_meet_those_of_before(worn):
    """Bravo is a peer, and alpha wears the group, but never both at once."""
    views = [
        resolve_view(
            snapshot(
                *(DB, PEERS, *KEPT),
                instance("alpha", "10.77.0.1", wears=alpha),
                instance("bravo", "10.77.0.2", wears=bravo),
            )
        )
        for alpha, bravo in worn
    ]
    alpha, bravo = (next(one for one in views[0].endpoints if one.name == name) for name in ("alpha", "bravo"))
    packet = Packet(bravo.addresses[0], alpha.addresses[0], TCP, 1024, 80)
    assert not _strays(views, [Way(packet, bravo, alpha)])
