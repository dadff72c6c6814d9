"""Mappings that evolve are values like any other, whatever is made from them and in whichever order they are read."""

import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.policy import evolving
from ringfence.policy.evolving import (
    Evolving,
    EvolvingSet,
    change_members,
    common_ends,
    differing,
    differing_members,
)


@pytest.fixture(scope="module", params=[1000, -1], ids=["few", "most"])
def many(request):
    """Changes as of few keys, and all as of most of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evolving, "_MANY", request.param)
        yield


_keys = st.integers(0, 5)
_contents = st.dictionaries(_keys, st.integers(0, 2))
_changes = st.tuples(_contents, st.sets(_keys))


def _changed(contents, change):
    put, gone = change
    return {key: value for key, value in contents.items() if key not in gone} | put


@st.composite
def families(draw):
    """Mappings made each from one of those before, and what each must hold."""
    first = draw(_contents)
    made, held = [Evolving(first)], [first]
    for _ in range(draw(st.integers(0, 6))):
        parent, change = draw(st.integers(0, len(made) - 1)), draw(_changes)
        made.append(made[parent].evolve(*change))
        held.append(_changed(held[parent], change))
    return made, held


@pytest.mark.full
@pytest.mark.usefixtures("many")
@given(families())
def test_each_stays_what_it_was_made_as(family):
    for mapping, contents in zip(*family, strict=True):
        assert dict(mapping) == dict(mapping.items()) == contents
        assert mapping == contents
        assert len(mapping) == len(contents)
        assert [mapping.get(key) for key in range(6)] == [contents.get(key) for key in range(6)]
        assert sorted(mapping.values()) == sorted(contents.values())
        assert mapping.some(range(1, 9)) == {key: value for key, value in contents.items() if key}


@pytest.mark.full
@pytest.mark.usefixtures("many")
@given(families())
def test_two_differ_in_exactly_the_keys_in_which_their_contents_do(family):
    for one, one_held in zip(*family, strict=True):
        for other, other_held in zip(*family, strict=True):
            expected = {key for key in range(6) if one_held.get(key) != other_held.get(key)}
            assert differing(one, other) == expected
            assert differing(one, other_held) == expected


@pytest.mark.full
@pytest.mark.usefixtures("many")
@given(st.frozensets(_keys), st.frozensets(_keys), st.frozensets(_keys))
def test_a_set_evolves_like_a_set(first, put, gone):
    old = EvolvingSet(Evolving(dict.fromkeys(first)))
    new = old.evolve(put, gone)
    assert new == (first - gone) | put
    assert old == first
    assert differing_members(old, new) == first ^ ((first - gone) | put)
    assert (new | first, new - first, first & new) == (
        (first - gone) | put | first,
        put - first,
        first & frozenset(new),
    )


@pytest.mark.full
@given(st.frozensets(_keys), st.lists(st.tuples(st.frozensets(_keys), st.frozensets(_keys))), st.booleans())
def test_a_set_that_is_changed_is_the_same_set_large_or_small(first, changes, large):
    held, made = first, EvolvingSet.of(first) if large else first
    for put, gone in changes:
        before, held = held, (held - gone) | put
        old, made = made, change_members(made, put, gone)
        assert made == held
        assert held == made
        assert old == before
        assert differing_members(old, made) == before ^ held


@given(st.lists(_keys), st.lists(_keys), st.lists(_keys), st.lists(_keys))
def test_two_tuples_begin_and_end_with_as_much_in_common_as_they_have(begin, end, one, other):
    old, new = (*begin, *one, *end), (*begin, *other, *end)  # small numbers: equal ones are the same object
    first, last = common_ends(old, new)
    assert old[:first] == new[:first]
    assert old[len(old) - last :] == new[len(new) - last :]
    assert min(len(begin) + len(end), first + last) == len(begin) + len(end)
    rest = old[first : len(old) - last], new[first : len(new) - last]
    assert not all(rest) or (rest[0][0] is not rest[1][0] and rest[0][-1] is not rest[1][-1])


def test_what_changes_nothing_is_the_same_mapping_again():
    value = object()
    mapping = Evolving({1: value, 3: value})
    assert mapping.evolve({1: value}, {2}) is mapping


def test_what_was_tried_and_given_up_leaves_one_line_of_which_all_differ_by_what_was_changed():
    first = Evolving(dict.fromkeys(range(1_000), 0))
    tried = first.evolve({1: 1}, {2}).evolve({3: 1})
    kept = first.evolve({4: 1})
    assert kept.touched_since(first) == {4}
    assert kept.touched_since(tried) == tried.touched_since(kept) == {1, 2, 3, 4}
    assert (len(first), len(tried), len(kept)) == (1_000, 999, 1_000)


class _Meanwhile:
    """A key that is equal to 9, and has something happen while it is looked up."""

    def __init__(self, happen):
        self._happen = happen

    def __hash__(self):
        self._happen()
        return hash(9)

    def __eq__(self, other):
        return other in (9, self)


@pytest.mark.usefixtures("many")
def test_what_is_looked_up_while_the_contents_move_is_what_was_there():
    first = Evolving(dict.fromkeys(range(10), 0))
    values = iter(range(1, 100))
    key = _Meanwhile(lambda: first.evolve({9: next(values)}))
    assert (first[key], first.get(key), [*first.some([1, key, 9]).values()]) == (0, 0, [0, 0])


@pytest.mark.full
@pytest.mark.usefixtures("many")
def test_another_thread_reads_what_is_there_while_changes_are_tried_and_given_up():
    contents = dict.fromkeys(range(100), 0)
    first = Evolving(contents)
    other = first.evolve({1: 1}, {2})
    ended, wrong = threading.Event(), []

    def read():
        while not ended.is_set():
            found = (first[1], other.get(2), dict(first.items()), first.some(contents), differing(first, other))
            if found != (0, None, contents, contents, {1, 2}):
                wrong.append(found)

    reader, interval_s = threading.Thread(target=read), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    reader.start()
    try:
        for number in range(50_000):
            first.evolve({99: number + 1})
            other.evolve({99: number + 1})
    finally:
        ended.set()
        reader.join()
        sys.setswitchinterval(interval_s)
    assert not wrong
