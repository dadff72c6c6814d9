"""One world with a real kernel's enforcement for all tests of a module: mute (raw packets) or live (real sockets).

Its instances are behind routed ports, or, where the fixture's parameter says so, behind a bridge.
"""

from contextlib import closing

import pytest

from lab import open_lab
from ringfence.policy.values import Kind


def pytest_generate_tests(metafunc):
    """A test runs for routed ports; for other kinds where its module's ``KINDS``, or its own mark, says so."""
    own = metafunc.definition.get_closest_marker("kind")
    kinds = own.args if own else getattr(metafunc.module, "KINDS", ())
    for name in {"lab", "live", "gunner"} & set(metafunc.fixturenames) if kinds else ():
        scope = "function" if name == "gunner" else "module"
        metafunc.parametrize(name, kinds, ids=lambda kind: kind.value, indirect=True, scope=scope)


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
