"""One world with a real kernel's enforcement for all tests of a module: mute (raw packets) or live (real sockets)."""

from contextlib import closing

import pytest

from lab import open_lab


@pytest.fixture(scope="module")
def lab():
    with closing(open_lab()) as opened:
        yield opened


@pytest.fixture(scope="module")
def live():
    with closing(open_lab(mute=False)) as opened:
        yield opened
