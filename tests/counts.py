"""How often a counted test runs: a reduced number under `make test`, the stated one under `make test-full`."""

import os

FULL = os.environ.get("RINGFENCE_FULL") == "1"


def count(*, reduced: int, stated: int) -> int:
    """The number for this run; `make test-full` runs the tests marked `full`, so mark every caller of this so."""
    return stated if FULL else reduced
