"""How often a counted test runs: reduced under `make test`, as stated under `make test-full`, or many times that."""

import os

FULL = os.environ.get("RINGFENCE_FULL") == "1"
TIMES = int(os.environ.get("RINGFENCE_TIMES", "1"))  # what `make soak` multiplies stated counts and time limits by


def count(*, reduced: int, stated: int) -> int:
    """The number for this run; `make test-full` runs the tests marked `full`, so mark every caller of this so."""
    return stated * TIMES if FULL else reduced
