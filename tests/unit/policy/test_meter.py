"""How much a meter lets through, and that it forgets."""

import pytest

from ringfence.policy import meter as meters
from ringfence.policy.meter import Meter


def let_through(meter, name, *, at_s):
    """How many of a thousand calls at one moment pass."""
    return sum(meter.take(name, at_s) == 0 for _ in range(1000))


def test_a_burst_passes_then_the_rate():
    meter = Meter(10, 20)
    assert let_through(meter, "a", at_s=100.0) == 20
    assert meter.take("a", 100.0) == pytest.approx(0.1)
    assert let_through(meter, "a", at_s=100.5) == 5
    assert let_through(meter, "a", at_s=200.0) == 20


def test_what_was_refused_does_not_count_and_others_are_not_touched():
    meter = Meter(1, 1)
    assert let_through(meter, "a", at_s=1.0) == 1
    assert let_through(meter, "b", at_s=1.0) == 1
    assert meter.take("a", 2.0) == 0


def test_rate_nought_lets_all_through_and_remembers_nothing():
    meter = Meter(0, 0)
    assert let_through(meter, "a", at_s=1.0) == 1000
    assert not meter._paid_s


def test_who_was_not_heard_for_longest_is_forgotten(monkeypatch):
    monkeypatch.setattr(meters, "MAX_NAMES", 3)
    meter = Meter(1, 1)
    for name in ("a", "b", "c", "d"):
        meter.take(name, 1.0)
    assert list(meter._paid_s) == ["b", "c", "d"]
    assert meter.take("b", 1.0) > 0
    assert meter.take("a", 1.0) == 0
