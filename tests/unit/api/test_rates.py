"""The answer 429: whose calls count together, and when it may be tried again."""

from heapq import heapify, heappop, heappush
from random import Random

import pytest

from ringfence.api import rates
from ringfence.api.rates import Gate, RateLimits
from ringfence.policy.errors import TooMany
from ringfence.policy.values import HostName, KeyId


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


def refusals(gate, *, callers, calls):
    """How often each caller of one key was refused in a row, at most, and how long it all took, if all wait as told."""
    chance, worst = Random(1), [0] * callers
    waiting = [(1.0, chance.random(), caller, calls, 0) for caller in range(callers)]
    heapify(waiting)
    while waiting:
        now_s, _, caller, left, refused = heappop(waiting)
        try:
            gate.admit_key(KeyId("EXOparallel"), now_s)
        except TooMany as error:
            worst[caller] = max(worst[caller], refused + 1)
            heappush(waiting, (now_s + error.retry_after_s, chance.random(), caller, left, refused + 1))
        else:
            if left > 1:
                heappush(waiting, (now_s + 0.01, chance.random(), caller, left - 1, 0))
    return max(worst), now_s - 1.0


def test_many_that_wait_as_told_get_their_turn_within_the_retries_of_terraform_and_lose_no_time():
    worst, took_s = refusals(Gate(RateLimits(key=20)), callers=100, calls=10)
    assert worst <= 3  # egoscale gives up after some
    assert took_s < 1.3 * 100 * 10 / 20


def test_who_asks_on_all_the_same_is_told_no_longer_time_than_others_need():
    gate = Gate(RateLimits(key=1))
    told = set()
    for _ in range(1000):
        try:
            gate.admit_key(KeyId("EXOhammering"), 1.0)
        except TooMany as error:
            told.add(error.retry_after_s)
    assert told == set(range(1, 11))
    gate.admit_key(KeyId("EXOhammering"), 2.0)


def test_turns_of_whoever_was_not_refused_for_longest_are_forgotten(monkeypatch):
    monkeypatch.setattr(rates, "MAX_NAMES", 3)
    gate = Gate(RateLimits(host=1, key=0))
    for name in "abcd":
        for _ in range(3):
            try:
                gate.admit_host(HostName(name), 1.0)
            except TooMany:
                assert name in gate._hosts._turns_s
    assert list(gate._hosts._turns_s) == ["b", "c", "d"]
