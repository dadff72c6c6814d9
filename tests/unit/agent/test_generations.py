"""No generation is used while a flow may still carry it: over the wrap, restarts and tables made anew."""

import random

import pytest

from fake_doors import FakeConntrack
from ringfence.agent.generations import Generations, block_number
from ringfence.nft import BLOCK, mark_of

FOREIGN = [0, 7, 0x0000FFFF]  # never judged by us: somebody else's flows


def _conntrack():
    """A flow for every generation there is, and some of others."""
    conntrack = FakeConntrack()
    conntrack.marks = [*FOREIGN, *(mark_of(generation) | 5 for generation in range(1, 1 << 16))]
    return conntrack


def _flows_of(conntrack, block):
    return [mark for mark in conntrack.marks if block_number(mark >> 16) == block and mark >> 16]


@pytest.mark.parametrize(("last", "first"), [(None, 256), (0, 256), (7, 2048), (254, 65280), (255, 1)])
def test_a_table_made_anew_begins_with_a_block_that_no_flow_carries(last, first):
    conntrack = _conntrack()
    assert Generations(conntrack).begin(last) == first
    assert _flows_of(conntrack, block_number(first)) == []
    assert conntrack.marks[: len(FOREIGN)] == FOREIGN


def test_the_next_block_is_swept_ahead_once():
    conntrack = _conntrack()
    generations = Generations(conntrack)
    generations.sweep_ahead(600)
    generations.sweep_ahead(601)
    assert conntrack.deletions == [(0x03000000, 0xFF000000)]


def test_a_block_that_was_swept_ahead_is_entered_without_a_word_to_the_kernel():
    conntrack = _conntrack()
    generations = Generations(conntrack)
    generations.sweep_ahead(700)
    before = list(conntrack.deletions)
    assert generations.follow(767) == 768
    assert conntrack.deletions == before


def test_a_block_that_nobody_swept_ahead_is_swept_when_it_is_entered():
    conntrack = _conntrack()
    assert Generations(conntrack).follow(767) == 768
    assert _flows_of(conntrack, 3) == []


def test_within_a_block_nothing_is_swept():
    conntrack = _conntrack()
    assert Generations(conntrack).follow(600) == 601
    assert conntrack.deletions == []


def test_the_first_block_is_swept_without_the_flows_that_were_never_judged():
    conntrack = _conntrack()
    assert Generations(conntrack).follow(65535) == 1
    assert _flows_of(conntrack, 0) == []
    assert conntrack.marks[: len(FOREIGN)] == FOREIGN


def test_no_generation_ever_comes_round_on_a_flow_that_carries_it():
    rng = random.Random(4)
    conntrack = FakeConntrack()
    generations = Generations(conntrack)
    present = generations.begin(None)
    for _ in range(3 * (1 << 16)):
        following = generations.follow(present)
        if block_number(following) != block_number(present):
            assert _flows_of(conntrack, block_number(following)) == []
        present = following
        if rng.random() < 0.02:
            conntrack.marks.append(mark_of(present))  # a flow is judged, and then idle for ever
        if rng.random() < 0.5:
            generations.sweep_ahead(present)
        if rng.random() < 0.0005:
            generations = Generations(conntrack)  # the agent starts anew; the kernel's table tells the generation
        assert len(conntrack.marks) < 1 << 12


def test_what_cannot_be_swept_is_said_and_stops_nothing():
    conntrack = _conntrack()
    generations = Generations(conntrack)
    conntrack.refusal = "Operation not supported"
    assert generations.follow(767) == 768
    assert "Operation not supported" in generations.problem
    conntrack.refusal = None
    generations.sweep_ahead(768)
    assert generations.problem is None


def test_a_failed_sweep_is_tried_again():
    conntrack = _conntrack()
    generations = Generations(conntrack)
    conntrack.refusal = "busy"
    generations.sweep_ahead(600)
    conntrack.refusal = None
    generations.sweep_ahead(601)
    assert _flows_of(conntrack, 3) == []


def test_blocks_are_as_large_as_one_masked_deletion():
    assert [block_number(g) for g in (1, BLOCK - 1, BLOCK, 65535)] == [0, 0, 1, 255]
