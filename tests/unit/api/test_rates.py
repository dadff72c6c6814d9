"""The answer 429: whose calls count together, and when it may be tried again."""

import pytest

from ringfence.api.rates import Gate, RateLimits
from ringfence.policy.errors import TooMany


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
