"""What one side of the agents' protocol writes, the other reads; and nothing else."""

import json
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from counts import count
from ringfence.policy.commands import ClaimInstances, InstanceClaim
from ringfence.policy.errors import Invalid
from ringfence.policy.model import Interface
from ringfence.policy.view import HostView
from ringfence.policy.view_changes import diff_views, digest_view
from ringfence.wire.feed import (
    HEARTBEAT,
    Claimed,
    FeedReader,
    FeedView,
    Heartbeat,
    Report,
    decode_claim,
    decode_claimed,
    decode_report,
    decode_whole,
    encode_changes,
    encode_claim,
    encode_claimed,
    encode_delta,
    encode_report,
    encode_whole,
)
from views import addresses, views

pytestmark = pytest.mark.full
EXAMPLES = count(reduced=40, stated=300)

_names = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=30)
_counts = st.integers(0, 2**63 - 1)
_interfaces = st.builds(
    Interface,
    name=st.from_regex(r"[a-z0-9_.@-]{1,15}", fullmatch=True),
    addresses=st.lists(addresses, max_size=3).map(tuple),
    mac=st.none() | st.just("02:00:00:00:00:01"),
    managed=st.booleans(),
)
_claims = st.lists(
    st.builds(
        InstanceClaim,
        name=_names,
        id=st.none() | st.uuids(),
        interfaces=st.lists(_interfaces, max_size=2).map(tuple),
        realm=_names,
    ),
    max_size=3,
    unique_by=(lambda claim: claim.name, lambda claim: tuple(sorted(i.name for i in claim.interfaces)) or claim.name),
).map(lambda claims: ClaimInstances(tuple(claims)))


def _interfaces_once(claim):
    names = [interface.name for instance in claim.instances for interface in instance.interfaces]
    return len(names) == len(set(names))


@given(views(), st.from_regex(r"[0-9a-z-]{1,64}", fullmatch=True))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_line_of_the_feed_reads_back_as_it_was_written(view, epoch):
    line = encode_whole(epoch, view)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_whole(line) == FeedView(epoch, view)


@given(_claims.filter(_interfaces_once))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_claim_reads_back_as_it_was_written(claim):
    assert decode_claim(encode_claim(claim)) == claim


@given(
    st.builds(
        Claimed,
        st.lists(st.tuples(_names, st.uuids())).map(tuple),
        st.lists(st.tuples(_names, st.text())).map(tuple),
        _counts,
    )
)
@settings(max_examples=50, deadline=None)
def test_the_answer_to_a_claim_reads_back_as_it_was_written(claimed):
    assert decode_claimed(encode_claimed(claimed)) == claimed


@given(st.builds(Report, st.none() | _counts, st.none() | st.text(max_size=100)))
@settings(max_examples=50, deadline=None)
def test_a_report_reads_back_as_it_was_written(report):
    assert decode_report(encode_report(report)) == report


@given(view=views(), pick=st.randoms(use_true_random=False))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_view_that_lost_any_field_is_refused(view, pick):
    document = json.loads(encode_whole("e1", view))
    objects = list(_objects(document))
    place = pick.choice(objects)
    fields = [name for name in place if not _is_id(name)]
    if fields:
        del place[pick.choice(fields)]
        with pytest.raises(Invalid):
            decode_whole(json.dumps(document).encode())


@given(
    st.binary(max_size=200) | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(repr)
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_anything_else_is_refused_as_invalid_and_never_crashes(junk):
    text = junk if isinstance(junk, bytes) else junk.encode(errors="replace")
    assume(text.strip() != HEARTBEAT.strip())
    for decode in (decode_whole, FeedReader().decode_line, decode_claim, decode_claimed, decode_report):
        with pytest.raises(Invalid):
            decode(text)


@given(view=views(), at=st.integers(min_value=0), octet=st.integers(0, 255))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_damaged_view_is_refused_or_is_the_same_view(view, at, octet):
    text = bytearray(encode_whole("e1", view))
    text[at % len(text)] = octet
    with suppress(Invalid):
        found = decode_whole(bytes(text)).view
        assert replace(found, revision=view.revision) == view


def _objects(node):
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _objects(child)


def _is_id(name):
    return len(name) == 36


def _delta(before, after):
    return encode_delta(
        "e1", before.revision, after.revision, digest_view(after), encode_changes(diff_views(before, after))
    )


@st.composite
def _histories(draw):
    """Views of which each is made of parts of the one before and parts of its own."""
    history = [draw(views(st.just(0)))]
    for revision in range(1, draw(st.integers(2, 4))):
        last, new = history[-1], draw(views(st.just(revision)))
        keeps = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
        parts = [old if kept else fresh for kept, old, fresh in zip(keeps, _parts(last), _parts(new), strict=True)]
        history.append(HostView(new.revision, *parts))
    return history


def _parts(view):
    return view.endpoints, view.rules, view.peers


@given(_histories())
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_sequence_of_deltas_makes_the_views_that_were_meant(history):
    reader = FeedReader()
    reader.decode_line(encode_whole("e1", history[0]))
    for before, after in pairwise(history):
        found = reader.decode_line(_delta(before, after))
        assert found.view == after
        assert reader.base.digest == digest_view(found.view) == digest_view(after)


@given(_histories(), st.randoms(use_true_random=False))
@settings(max_examples=EXAMPLES, deadline=None)
def test_lines_that_are_damaged_lost_repeated_or_reordered_never_make_a_view_that_was_not_meant(history, chance):
    lines = [bytearray(_delta(before, after)) for before, after in pairwise(history)]
    spoiled = chance.choice(lines)
    spoiled[chance.randrange(len(spoiled))] = chance.randrange(256)
    lines += chance.sample(lines, chance.randrange(len(lines)))
    chance.shuffle(lines)
    reader, meant = FeedReader(), {view.revision: digest_view(view) for view in history}
    reader.decode_line(encode_whole("e1", history[0]))
    for line in lines:
        try:
            found = reader.decode_line(bytes(line))
        except Invalid:
            assert reader.base is None
            reader.decode_line(encode_whole("e1", history[0]))
        else:
            assert isinstance(found, Heartbeat) or digest_view(found.view) in meant.values()


@given(st.lists(views(), min_size=1, max_size=4))
def test_a_reader_of_many_lines_reads_each_as_if_it_were_the_first(history):
    reader = FeedReader()
    for each in history:
        line = encode_whole("e1", each)
        assert reader.decode_line(line) == decode_whole(line)


@given(views())
def test_what_did_not_change_from_line_to_line_or_from_before_is_the_very_same_object(same):
    reader, line = FeedReader(), encode_whole("e1", same)
    kept = decode_whole(line)
    reader.hold(kept)
    first, second = kept.view, reader.decode_line(line).view
    assert all(one is other for one, other in zip(first.endpoints, second.endpoints, strict=True))
    second = reader.decode_line(line).view
    assert all(one is other for one, other in zip(first.endpoints, second.endpoints, strict=True))
    assert all(second.rules[group] is rules for group, rules in first.rules.items())
    assert all(second.peers[group] is peer for group, peer in first.peers.items())
