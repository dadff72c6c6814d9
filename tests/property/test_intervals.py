"""The algebra under every exact answer is a Boolean one, and in one form."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ringfence.policy.insight.intervals import EMPTY, Intervals

_LINE = range(24)
_spans = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)).map(lambda one: (one[0], sum(one))), max_size=5)
_sets = st.tuples(_spans, st.booleans()).map(
    lambda made: ~Intervals.of(*made[0]) if made[1] else Intervals.of(*made[0])
)


def _points(found):
    return {point for point in _LINE if point in found}


@given(_spans)
def test_a_set_holds_the_points_of_its_spans_in_the_fewest_spans(spans):
    made = Intervals.of(*spans)
    assert _points(made) == {point for first, last in spans for point in range(first, last + 1)}
    ends = [*made]
    assert all(after[0] > before[1] + 1 for before, after in pairwise(ends))
    assert made.size == len(_points(made))


@given(_sets, _sets)
def test_operations_mean_what_they_mean_of_points(one, two):
    assert _points(one | two) == _points(one) | _points(two)
    assert _points(one & two) == _points(one) & _points(two)
    assert _points(one - two) == _points(one) - _points(two)
    assert _points(~one) == set(_LINE) - _points(one)
    assert (one <= two) == (one | two == two)
    assert bool(one) == (one != EMPTY)


@given(_sets, _sets, _sets)
def test_equal_sets_are_equal_values_by_whatever_way_they_came(one, two, three):
    assert one | two == two | one
    assert (one | two) | three == one | (two | three)
    assert one & (two | three) == (one & two) | (one & three)
    assert ~(one | two) == ~one & ~two
    assert one - two == one & ~two
    assert ~~one == one
    assert one | (one & two) == one
    assert not one & ~one
