"""Exact answers agree with the verdict on every packet that is tried, and with a solver on all that there are."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import solver
from counts import count
from generated import snapshots, ways
from reaching import is_asked, passes
from ringfence.policy.addresses import FAMILIES
from ringfence.policy.insight.reach import Reachability
from ringfence.policy.view import resolve_view

STATED = 10_000


@given(snapshots(), st.integers(0, 2**32))
def test_an_answer_holds_exactly_the_packets_that_the_verdict_allows(snapshot, seed):
    view, reachability = resolve_view(snapshot), Reachability(snapshot)
    reach = reachability.ask()
    for way in ways(view, seed):
        ends = (way.source, way.destination)
        if is_asked(way.packet) and not way.host and _is_honest(way) and ends[0] != ends[1]:
            assert passes(reachability, reach, way.packet) == way.judged(view).allowed, way


def _is_honest(way):
    """Whether the packet's addresses are those of its ends, and of nobody's where there is none."""
    return way.source is None or way.packet.source in way.source.addresses


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_solver_finds_no_packet_on_which_answer_and_rules_differ():
    for seed in range(count(reduced=30, stated=STATED)):
        snapshot = solver.random_snapshot(random.Random(seed))
        reachability = Reachability(snapshot)
        for family in FAMILIES:
            assert solver.difference(reachability, family) is None, (seed, family)
