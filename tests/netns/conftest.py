"""One mute world with a real kernel's enforcement for all tests of a module."""

import pytest

from lab import open_lab


@pytest.fixture(scope="module")
def lab():
    opened = open_lab()
    yield opened
    opened.close()
