"""The meters behind the answer 429: how much they let through, and that they forget."""

import pytest

from ringfence.api import rates
from ringfence.api.rates import Gate, Meter, RateLimits
from ringfence.policy.errors import TooMany


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
    monkeypatch.setattr(rates, "MAX_NAMES", 3)
    meter = Meter(1, 1)
    for name in ("a", "b", "c", "d"):
        meter.take(name, 1.0)
    assert list(meter._paid_s) == ["b", "c", "d"]
    assert meter.take("b", 1.0) > 0
    assert meter.take("a", 1.0) == 0


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        (None, None, False),
    ],
)
def test_addresses_of_one_owner_count_together(first, second, together):
    gate = Gate(RateLimits(failures=0.1))
    gate.note_failure(first, 1.0)
    if together:
        with pytest.raises(TooMany) as caught:
            gate.note_failure(second, 1.0)
        assert caught.value.retry_after_s == 10
    else:
        gate.note_failure(second, 1.0)
