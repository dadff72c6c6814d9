"""A line as expressions and back, without a kernel; and whatever else stands there is foreign, never an error."""

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generated import snapshots
from ringfence.nft.decoding import decode_line
from ringfence.nft.expressions import encode_line
from ringfence.nft.generation import DEFAULT_MASK, Generation, largest_generation
from ringfence.nft.netlink import pack, pack_nested, pack_number, pack_text
from ringfence.nft.text import render_line
from ringfence.policy.program.compile import LocalPorts, compile_program
from ringfence.policy.program.model import (
    Accept,
    Field,
    Foreign,
    Fresh,
    Goto,
    InState,
    Line,
    NotOpening,
    Stamp,
    StartsWith,
    State,
    Within,
)
from ringfence.policy.view import resolve_view

NAMES = ["meta", "ct", "payload", "bitwise", "cmp", "lookup", "objref", "immediate", "counter", "log", ""]


def _lines(snapshot):
    program = compile_program(resolve_view(snapshot), LocalPorts(("veth*", "eth7")))
    return {line for chain in program.chains.values() for line in chain.lines}


@settings(deadline=None, max_examples=30)
@given(snapshots(), st.integers(1, largest_generation()))
def test_every_line_that_we_write_is_read_as_itself(snapshot, generation):
    for line in _lines(snapshot):
        found, held = decode_line(encode_line(line, Generation(generation)))
        assert found == line
        assert held == (generation if Stamp() in line.parts else None)


@pytest.mark.parametrize("mask", [DEFAULT_MASK, 0x0000FFFF, 0x0FFF0000])
def test_the_generation_is_read_back_under_any_mask(mask):
    for line, generation in ((Line((Fresh(), Accept())), None), (Line((Stamp(),)), 0x123)):
        assert decode_line(encode_line(line, Generation(0x123), mask), mask) == (line, generation)


def test_a_foreign_line_is_never_written():
    with pytest.raises(TypeError, match="a foreign line is never written"):
        encode_line(Line((Foreign("somebody's"),)), Generation(1))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_line_or_a_foreign_one(blob):
    line, _ = decode_line(blob)
    assert isinstance(line, Line)


_values = st.one_of(
    st.integers(0, 40).map(lambda number: number.to_bytes(4, "big")),
    st.binary(max_size=20),
    st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=20)), max_size=3).map(
        lambda parts: b"".join(pack(type_, value) for type_, value in parts)
    ),
)
_expressions = st.builds(
    lambda name, parts: pack_nested(
        1, pack_text(1, name), pack_nested(2, *(pack(type_, value) for type_, value in parts.items()))
    ),
    st.sampled_from(NAMES),
    st.dictionaries(st.integers(1, 7), _values, max_size=6),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(_expressions, max_size=5))
def test_any_expressions_are_a_line_or_a_foreign_one(expressions):
    line, _ = decode_line(b"".join(expressions))
    assert isinstance(line, Line)


@settings(deadline=None, max_examples=30)
@given(snapshots(), st.randoms(use_true_random=False))
def test_a_damaged_line_is_read_as_another_or_a_foreign_one(snapshot, rng):
    for line in _lines(snapshot):
        blob = bytearray(encode_line(line, Generation(5)))
        blob[rng.randrange(len(blob))] ^= 1 << rng.randrange(8)
        found, _ = decode_line(bytes(blob))
        assert isinstance(found, Line)


def _expression(name, *attributes):
    return pack_nested(1, pack_text(1, name), pack_nested(2, *attributes))


FOREIGN = {
    "an expression that we never use": _expression("log"),
    "a comparison of nothing": _expression("cmp", pack_number(1, 1), pack_number(2, 0), pack_nested(3, pack(1, b"x"))),
    "a meta key that we never load": _expression("meta", pack_number(1, 1), pack_number(2, 99)),
    "a verdict that we never give": _expression("immediate", pack_nested(2, pack_nested(2, pack_number(1, -5)))),
    "a verdict that is none": _expression("immediate", pack_nested(2, pack_nested(2))),
    "a register that is too short": _expression("meta", pack(1, b""), pack(2, b"")),
}


@pytest.mark.parametrize("blob", FOREIGN.values(), ids=FOREIGN)
def test_what_we_would_not_have_written_is_foreign(blob):
    line, generation = decode_line(blob)
    assert [type(part) for part in line.parts] == [Foreign]
    assert generation is None


NEW = InState(frozenset({State.NEW}))
NETWORK = Within(Field.FLOW_SOURCE4, ip_network("10.0.0.0/9"))


@pytest.mark.parametrize("part", [NEW, NotOpening(), Fresh(), NETWORK, StartsWith(Field.IN_INTERFACE, "veth")])
def test_a_comparison_turned_round_is_never_taken_for_ours(part):
    blob = encode_line(Line((part,)), Generation(5))
    ours = int(part == NEW or part == NotOpening())  # compared for "not equal"
    head, _, tail = blob.rpartition(pack_number(2, ours))
    turned, _ = decode_line(head + pack_number(2, 1 - ours) + tail)
    assert decode_line(blob)[0] == Line((part,))
    assert turned != Line((part,))


def test_a_foreign_part_is_shown_as_a_comment():
    assert render_line(Line((Foreign("log"), Goto("allow"))), Generation(1)) == "# log goto allow"
