"""Waiting for something to become true, the only way in which tests wait."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_PAUSE_S = 0.005


def wait_until(predicate: Callable[[], T], timeout_s: float = 5.0) -> T:
    """The first truthy answer of ``predicate``; AssertionError with its last answer when none came in time."""
    deadline = time.monotonic() + timeout_s
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still {answer!r} after {timeout_s} s: {predicate}")
        time.sleep(_PAUSE_S)
    return answer
