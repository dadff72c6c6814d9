"""`ringfence demo` for real, as whoever runs the tests and as an ordinary user; and how it ends."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest

from ringfence.cli.admin_client import Ask, ask
from waiting import wait_until

pytestmark = pytest.mark.netns

DEMO = ("-m", "ringfence", "demo")
README = Path(__file__).parents[2] / "README.md"
NOBODY = 65534
LIMIT_S = 60  # the demo itself takes a few seconds; this is for a machine that does much else


@pytest.fixture
def place():
    """Where the demo makes its folder: a short path, because it holds sockets, and one that anybody may write to."""
    with tempfile.TemporaryDirectory(prefix="rf-") as made:
        Path(made).chmod(0o777)
        yield Path(made)


def _run(*arguments, place=None, **options):
    environment = os.environ if place is None else {**os.environ, "TMPDIR": str(place)}
    return subprocess.run(  # noqa: S603  our own program
        (sys.executable, *arguments),
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        **options,
    )


def _can_run_as(**who):
    try:
        return _run("-c", "import ringfence", **who).returncode == 0
    except PermissionError:
        return False


def _check_whole(demo):
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stderr == ""
    assert re.search(r"150 questions, 40 open and 110 closed: model, probe and kernel agree", demo.stdout)
    assert re.search(r"app→db was cut \d+\.\d ms after the call", demo.stdout)
    assert re.search(r"backup→db, same port, another rule: lives on, \d{3,} messages meanwhile", demo.stdout)
    assert "denied: app (10.77.0.20) -> db (10.77.0.30) tcp/5432" in demo.stdout
    assert "All agree." in demo.stdout
    assert {line.rstrip() for line in README.read_text().splitlines() if re.match(r"\w+→\w+ *│", line)} == {
        line.rstrip() for line in demo.stdout.splitlines() if re.match(r"\w+→\w+ *│", line)
    }


def test_the_demo_proves_that_model_probe_and_kernel_agree_and_leaves_nothing_behind(place):
    _check_whole(_run(*DEMO, place=place))
    assert list(place.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; the test above was one")
def test_an_ordinary_user_can_run_the_demo(place):
    nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    if not _can_run_as(**nobody):
        pytest.skip(f"an ordinary user may not read {sys.executable}: clone to a place that others can read")
    _check_whole(_run(*DEMO, place=place, **nobody))


@pytest.fixture
def staying(place, tmp_path):
    """A demo that stays, once its world is ready, and the file with its export lines."""
    file = tmp_path / "demo.env"
    demo = subprocess.Popen(  # noqa: S603  our own program
        (sys.executable, *DEMO, "--stay", "--env", str(file)),
        env={**os.environ, "TMPDIR": str(place)},
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: file.exists() or demo.poll() is not None, LIMIT_S)
    yield demo, file
    demo.kill()
    demo.wait()
    demo.stdout.close()


def _children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL)], ids=str)
def test_a_staying_demo_serves_other_clients_until_it_is_told_to_end(staying, place, number, status):
    demo, file = staying
    exported = dict(re.findall(r"^export (\w+)=(\S+)$", file.read_text(), re.MULTILINE))
    api = {"EXOSCALE_API_KEY", "EXOSCALE_API_SECRET", "EXOSCALE_API_ENDPOINT", "EXOSCALE_ZONE"}
    assert set(exported) == api | {"RINGFENCE_DATA"}
    assert ask(Path(exported["RINGFENCE_DATA"]), Ask("GET", "/hosts"))["hosts"][0]["host"] == "demo"
    with urllib.request.urlopen(exported["EXOSCALE_API_ENDPOINT"] + "/zone", timeout=5) as answer:  # noqa: S310  what the demo wrote
        assert b"ch-dk-2" in answer.read()
    children = _children(demo.pid)
    assert len(children) == 3  # the server, the agent, and who cleans up
    demo.send_signal(number)
    assert demo.wait(LIMIT_S) == status
    assert file.exists() == (number == signal.SIGKILL)
    wait_until(lambda: not any(_is_running(child) for child in children))
    wait_until(lambda: not any(place.iterdir()))


def _is_running(pid):
    """Whether a process is there and no zombie that waits to be reaped by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_where_namespaces_are_forbidden_the_demo_says_so_with_status_3():
    forbidding = (
        "from pathlib import Path; from ringfence.world.namespaces import enter_user_namespace; enter_user_namespace();"
        "[Path('/proc/sys/user', name).write_text('0') for name in ('max_user_namespaces', 'max_net_namespaces')];"
        "import sys; from ringfence.cli import main; sys.argv[1:] = ['demo']; main()"
    )
    told = _run("-c", forbidding)
    assert (told.returncode, told.stdout) == (3, "")
    assert re.search(r"max_user_namespaces forbids unprivileged user namespaces: .*sudo", told.stderr)
