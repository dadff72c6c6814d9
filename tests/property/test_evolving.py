"""Mappings that evolve are values like any other, whatever is made from them and in whichever order they are read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.policy.evolving import Evolving, EvolvingSet, differing, differing_members

pytestmark = pytest.mark.full
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


@given(families())
def test_each_stays_what_it_was_made_as(family):
    for mapping, contents in zip(*family, strict=True):
        assert dict(mapping) == dict(mapping.items()) == contents
        assert mapping == contents
        assert len(mapping) == len(contents)
        assert [mapping.get(key) for key in range(6)] == [contents.get(key) for key in range(6)]
        assert sorted(mapping.values()) == sorted(contents.values())
        assert mapping.some(range(1, 9)) == {key: value for key, value in contents.items() if key}


@given(families())
def test_two_differ_in_exactly_the_keys_in_which_their_contents_do(family):
    for one, one_held in zip(*family, strict=True):
        for other, other_held in zip(*family, strict=True):
            expected = {key for key in range(6) if one_held.get(key) != other_held.get(key)}
            assert differing(one, other) == expected
            assert differing(one, other_held) == expected


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


def test_what_changes_nothing_is_the_same_mapping_again():
    value = object()
    mapping = Evolving({1: value})
    assert mapping.evolve({1: value}, {2}) is mapping
