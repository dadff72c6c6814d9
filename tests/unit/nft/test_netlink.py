"""Framing: what is packed is parsed again, and what cannot be parsed is a ``ValueError``, never anything else."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.nft import Refusal, parse_messages, parse_refusal
from ringfence.nft.netlink import (
    F_DUMP_INTR,
    F_REQUEST,
    NFPROTO_INET,
    NLMSG_DONE,
    NLMSG_ERROR,
    Message,
    fill,
    number_of,
    pack,
    pack_message,
    pack_nested,
    pack_number,
    pack_text,
    parse,
    parse_list,
    scan_dump,
    text_of,
)

_attributes = st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=6)


@settings(deadline=None)
@given(_attributes)
def test_attributes_come_back_in_order(attributes):
    blob = b"".join(pack(type_, value) for type_, value in attributes)
    assert len(blob) % 4 == 0
    assert list(parse_list(blob)) == attributes
    assert parse(blob) == dict(attributes)


def test_nesting_does_not_show_in_the_type():
    assert parse(pack_nested(7, pack_number(1, 5))) == {7: pack_number(1, 5)}


def test_numbers_and_texts_come_back():
    assert number_of(parse(pack_number(1, 0x01020304))[1]) == 0x01020304
    assert number_of(parse(pack_number(1, -1))[1]) == 0xFFFFFFFF
    assert text_of(parse(pack_text(1, "ringfence"))[1]) == "ringfence"


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_what_is_filled_in_is_as_if_it_were_packed(values):
    def shape(value):
        return pack_number(1, 7) + pack_nested(2, pack(3, value + b"\0"), pack_text(4, "behind"))

    assert [fill(shape, value) for value in values] == [shape(value) for value in values]


def test_a_name_that_is_not_ascii_is_never_packed():
    with pytest.raises(UnicodeEncodeError):
        pack_text(1, "é")


def test_messages_of_one_datagram_come_apart():
    blob = b"".join(pack_message(10, F_REQUEST, n, pack(1, bytes(n)), family=NFPROTO_INET) for n in range(5))
    assert [(message.sequence, message.payload) for message in parse_messages(blob)] == [
        (n, pack(1, bytes(n))) for n in range(5)
    ]


@pytest.mark.parametrize("length", [0, 3, 9, 200])
def test_an_impossible_length_is_refused(length):
    with pytest.raises(ValueError, match="netlink attribute of"):
        parse(struct.pack("=HH", length, 1) + bytes(4))
    with pytest.raises(ValueError, match="netlink message of"):
        list(parse_messages(struct.pack("=IHHII", length, 1, 0, 0, 0) + bytes(3)))


def _error(code, *, flags=0, rest=b""):
    return Message(NLMSG_ERROR, flags, 7, struct.pack("=i", -code) + rest)


def test_an_acknowledgement_is_no_refusal():
    assert parse_refusal(_error(0, rest=bytes(16))) is None


def test_a_refusal_carries_number_and_words():
    request = struct.pack("=IHHII", 20, 10, 0, 7, 0) + bytes(4)
    words = pack_text(1, "Chain is still in use")
    assert parse_refusal(_error(16, rest=request)) == Refusal(7, 16, "")
    assert parse_refusal(_error(16, flags=0x200, rest=request + words)) == Refusal(7, 16, "Chain is still in use")
    assert parse_refusal(_error(16, flags=0x300, rest=request[:16] + words)) == Refusal(7, 16, "Chain is still in use")


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=120))
def test_any_bytes_parse_or_are_a_value_error(blob):
    _only_value_errors(lambda: parse(blob))
    _only_value_errors(lambda: [parse_refusal(message) for message in parse_messages(blob)])


@settings(deadline=None, max_examples=500)
@given(st.integers(0, 0xFFFF), st.binary(max_size=60))
def test_any_error_message_is_told_or_a_value_error(flags, payload):
    _only_value_errors(lambda: parse_refusal(Message(NLMSG_ERROR, flags, 1, payload)))


def _only_value_errors(work):
    try:
        work()
    except ValueError:
        return


def _dump(*flags):
    """Some messages of a dump, each with its flags, and the end behind them."""
    messages = [pack_message(2560, one, 1, bytes(4 * number), family=1) for number, one in enumerate(flags)]
    return b"".join(messages), struct.pack("=IHHIIi", 20, NLMSG_DONE, 2, 1, 0, 0)


@pytest.mark.parametrize("place", range(3))
def test_a_dump_that_was_interrupted_says_so_in_any_of_its_messages(place):
    some, end = _dump(*(F_DUMP_INTR if number == place else 2 for number in range(3)))
    interrupted, last = scan_dump(some + end)
    assert (interrupted, last.type) == (True, NLMSG_DONE)


def test_the_end_of_a_dump_is_found_behind_messages_of_any_length():
    some, end = _dump(2, 2, 2)
    assert scan_dump(some) == (False, None)
    interrupted, last = scan_dump(some + end)
    assert not interrupted
    assert last.type == NLMSG_DONE
    assert parse_refusal(last) is None


def test_a_dump_with_a_length_that_leads_nowhere_is_refused():
    with pytest.raises(ValueError, match="netlink message of 0 octets"):
        scan_dump(bytes(32))
