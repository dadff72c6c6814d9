"""Counters are read by where they lie, and never by where they do not."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.nft.counting import parse_counters
from ringfence.nft.messages import NEW_OBJECT, TABLE
from ringfence.nft.netlink import (
    NFPROTO_INET,
    SUBSYSTEM_NFTABLES,
    pack,
    pack_message,
    pack_nested,
    pack_number,
    pack_text,
)

_TYPE = SUBSYSTEM_NFTABLES << 8 | NEW_OBJECT


def _message(name, packets, octets, *, table=TABLE, type_=_TYPE, swapped=False, padded=False):
    numbers = [pack(1, struct.pack(">Q", octets)), pack(2, struct.pack(">Q", packets))]
    if padded:
        numbers.insert(0, pack(3, b""))
    data = pack_nested(4, *(reversed(numbers) if swapped else numbers))
    body = pack_text(1, table) + pack_text(2, name) + pack_number(3, 1) + data + pack_number(5, 1)
    return pack_message(type_, 0, 1, body, family=NFPROTO_INET)


_names = st.text(st.sampled_from("abcdef0123456789_"), min_size=1, max_size=40)
_numbers = st.integers(0, 2**64 - 1)


@given(st.dictionaries(_names, st.tuples(_numbers, _numbers, st.booleans(), st.booleans()), max_size=20))
def test_every_counter_of_our_table_is_read_whatever_the_layout_of_those_before(counters):
    answer = b"".join(
        _message(name, packets, octets, swapped=swapped, padded=padded)
        for name, (packets, octets, swapped, padded) in counters.items()
    )
    assert parse_counters(answer) == {name: packets for name, (packets, *_) in counters.items()}


def test_what_is_of_another_table_or_no_object_is_left_out():
    other = _message("spoofed", 1, 1, table="ringfenced") + _message("spoofed", 2, 2, type_=_TYPE + 1)
    assert parse_counters(other + _message("closed", 3, 4)) == {"closed": 3}


@pytest.mark.parametrize("cut", [17, 30, 60, 100])
def test_an_answer_that_was_cut_is_refused(cut):
    whole = _message("r_" + "0" * 32, 3, 4)
    with pytest.raises(ValueError, match="netlink"):
        parse_counters(whole[:cut])
