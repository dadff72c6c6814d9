"""What is made of the kernel's notices: names, authors, counts; datagrams are put together as the kernel does."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.nft import Notices, Touched
from ringfence.nft.netlink import (
    NFPROTO_BRIDGE,
    NFPROTO_INET,
    SUBSYSTEM_NFTABLES,
    pack,
    pack_message,
    pack_number,
    pack_text,
)

NEW_CHAIN, DELETE_RULE, NEW_ELEMENTS, DELETE_TABLE, NEW_GENERATION, NEW_OBJECT = 3, 8, 12, 2, 15, 18
NAME = {NEW_CHAIN: 3, DELETE_RULE: 2, NEW_ELEMENTS: 2, NEW_OBJECT: 2}


def about(type_, name=None, *, table="ringfence", family=NFPROTO_INET):
    payload = pack_text(1, table) + (pack_text(NAME[type_], name) if name else b"")
    return pack_message(SUBSYSTEM_NFTABLES << 8 | type_, 0, 0, payload, family=family)


def end(changes, name="nft", pid=7):
    payload = pack_number(1, changes) + pack_number(2, pid) + pack(3, name.encode() + b"\0")
    return pack_message(SUBSYSTEM_NFTABLES << 8 | NEW_GENERATION, 0, 0, payload, family=0)


@pytest.fixture
def notices():
    return Notices()


def _feed(notices, *datagrams):
    for datagram in datagrams:
        notices.feed(datagram)
    return notices


def test_every_kind_of_object_is_named(notices):
    datagram = about(NEW_CHAIN, "a") + about(DELETE_RULE, "b") + about(NEW_ELEMENTS, "c") + about(NEW_OBJECT, "d")
    heard = _feed(notices, datagram, end(5)).take()
    assert heard.touched == Touched(chains=frozenset({"a", "b"}), sets=frozenset({"c"}), counters=frozenset({"d"}))
    assert heard.authors == {"nft (pid 7)"}
    assert heard.changes == 5
    assert not notices.take().touched


def test_others_tables_are_counted_and_no_more(notices):
    heard = _feed(
        notices,
        about(NEW_CHAIN, "a", table="others") + about(NEW_CHAIN, "b", table="ringfence", family=2),
        end(5, "docker"),
        about(NEW_CHAIN, "ringfence", table="ringfence2"),
        end(6, "docker"),
    ).take()
    assert heard.touched == Touched()
    assert heard.authors == set()
    assert heard.changes == 6
    assert heard.others
    assert not notices.take().others


def test_ours_is_not_others_and_what_is_in_others_sets_decides_nothing(notices):
    ours = about(NEW_CHAIN, "a") + about(DELETE_RULE, "b", family=NFPROTO_BRIDGE)
    assert not _feed(notices, ours, about(NEW_ELEMENTS, "banned", table="f2b"), end(5)).take().others
    mixed = about(NEW_ELEMENTS, "banned", table="f2b") + about(DELETE_RULE, "input", table="f2b")
    assert _feed(notices, mixed, end(6)).take().others
    assert _feed(notices, about(DELETE_TABLE, table="filter", family=NFPROTO_BRIDGE), end(7)).take().others


def test_a_transaction_is_told_of_before_its_end_and_its_author_after(notices):
    first = _feed(notices, about(DELETE_RULE, "a")).take()
    assert (first.touched, first.authors) == (Touched(chains=frozenset({"a"})), set())
    second = _feed(notices, about(DELETE_TABLE), end(5)).take()
    assert (second.touched, second.authors) == (Touched(table=True), {"nft (pid 7)"})


def test_what_is_known_already_is_left_out_even_when_it_is_told_of_in_parts(notices):
    _feed(notices, end(4), about(DELETE_RULE, "a")).take()
    notices.forget_until(5)
    assert _feed(notices, about(DELETE_RULE, "b")).take().touched == Touched()
    assert _feed(notices, about(DELETE_TABLE), end(5)).take().touched == Touched()
    assert _feed(notices, about(DELETE_RULE, "c"), end(6)).take().touched == Touched(chains=frozenset({"c"}))


def test_counts_come_round(notices):
    notices.forget_until(2**32 - 1)
    heard = _feed(notices, about(DELETE_RULE, "old"), end(2**32 - 1), about(DELETE_RULE, "new"), end(0)).take()
    assert heard.touched == Touched(chains=frozenset({"new"}))


def test_names_move_no_terminal(notices):
    heard = _feed(notices, about(NEW_CHAIN, "a"), end(5, "\x1b[2J evil\n")).take()
    assert heard.authors == {"??2J?evil? (pid 7)"}
    assert Touched(chains=frozenset({"\x1b]0;x"})).text == "chain ??0?x"


def test_many_names_are_told_as_a_few():
    touched = Touched(table=True, chains=frozenset("abc"), sets=frozenset("de"))
    assert touched.text == "table, chain a, chain b and 3 more"
    assert len(touched) == 6


@given(st.binary(max_size=200))
def test_octets_that_make_no_sense_are_refused_and_break_nothing(octets):
    notices = Notices()
    for datagram in (octets, about(NEW_CHAIN, "a") + octets, struct.pack("=I", 50) + octets):
        try:
            notices.feed(datagram)
            notices.take()
        except (ValueError, KeyError):
            continue
