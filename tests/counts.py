"""How often a counted test runs: a reduced number under `make test`, the stated one under `make test-full`."""

import os

FULL = os.environ.get("RINGFENCE_FULL") == "1"


def count(*, reduced: int, stated: int) -> int:
    """The number for this run; mark a test that calls this with `@pytest.mark.full`, so that `make test-full` finds it."""
    return stated if FULL else reduced
