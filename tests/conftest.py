"""Every test run happens in a network of its own, so that no test can reach the host's firewall or the outside."""

import os

import pytest

from counts import FULL, TIMES
from places import KINDS, Place, postgres_place
from postgres import missing, running_postgres
from ringfence.policy.errors import OperatorError
from ringfence.world.namespaces import enter_user_namespace, leave_host_network, probe_namespaces
from ringfence.world.topology import raise_loopback

_REFUSAL = pytest.StashKey[str]()


def pytest_configure(config):
    config.stash[_REFUSAL] = _isolate()


def pytest_collection_modifyitems(config, items):
    for item in items:
        if not FULL and item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="too long for every run: make test-long"))
        if TIMES > 1 and (limit := item.get_closest_marker("timeout")):
            item.add_marker(pytest.mark.timeout(limit.args[0] * TIMES), append=False)
    if refusal := config.stash[_REFUSAL]:
        for item in items:
            if item.get_closest_marker("netns"):
                item.add_marker(pytest.mark.skip(reason=refusal))


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL for this run of the tests."""
    if why := missing():
        pytest.skip(why)
    with running_postgres() as server:
        yield server


@pytest.fixture
def own_postgres():
    """One for a test that kills it, or sets it back."""
    if why := missing():
        pytest.skip(why)
    with running_postgres() as server:
        yield server


@pytest.fixture(params=KINDS)
def new_place(request, tmp_path_factory):
    """Makes places for stores, each empty, all on one kind of database."""
    if request.param == "sqlite":
        return lambda: Place(tmp_path_factory.mktemp("store"))
    postgres = request.getfixturevalue("postgres")
    return lambda: postgres_place(tmp_path_factory.mktemp("store"), postgres.database())


@pytest.fixture
def place(new_place):
    return new_place()


def pytest_terminal_summary(terminalreporter):
    """What tests measured or counted (``record_property``), so that a run says how much it stands for."""
    for report in terminalreporter.getreports("passed"):
        for name, figure in report.user_properties:
            terminalreporter.write_line(f"{report.nodeid}: {name}: {figure}")


def _isolate() -> str:
    """Why tests that need namespaces cannot run here; empty when they can."""
    try:
        if os.geteuid() != 0:
            # As root of the namespace this user would be named root, and pytest would want root's folder in /tmp.
            os.environ.setdefault("LOGNAME", f"uid{os.getuid()}")
            enter_user_namespace()
        leave_host_network()
        raise_loopback()
        probe_namespaces()
    except OperatorError as error:
        return str(error)
    return ""
