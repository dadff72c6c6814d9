"""One world with a real kernel's enforcement for all tests of a module: mute (raw packets) or live (real sockets).

Its instances are behind routed ports, or, where the fixture's parameter says so, behind a bridge.
"""

from contextlib import closing

import pytest

from lab import open_lab
from ringfence.policy.values import Kind


@pytest.fixture(scope="module")
def lab(request):
    with closing(open_lab(bridged=_is_bridged(request))) as opened:
        yield opened


@pytest.fixture(scope="module")
def live(request):
    with closing(open_lab(mute=False, bridged=_is_bridged(request))) as opened:
        yield opened


def _is_bridged(request):
    return getattr(request, "param", Kind.ROUTED) is Kind.BRIDGED
