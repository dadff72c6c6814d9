"""`ringfence server` as a process of its own, and the operator's verbs beside it, through its control socket."""

import os
import re
import signal
import subprocess
import sys

import pytest

from ringfence.policy.errors import OperatorError
from ringfence.world.client import ApiClient, Credentials

PROGRAM = (sys.executable, "-m", "ringfence")
START_S = 20


def _run(folder, *arguments):
    """One command on the folder: its exit status and what it printed."""
    ran = subprocess.run(  # noqa: S603  our own program
        (*PROGRAM, *arguments),
        env={**os.environ, "RINGFENCE_DATA": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout


def _exported(lines):
    return dict(re.findall(r"^(?:export )?(\w+)=(\S+)$", lines, re.MULTILINE))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def server(folder):
    """A running server and the line it said."""
    started = subprocess.Popen(  # noqa: S603  our own program
        (*PROGRAM, "server", "--data", str(folder), "--listen", "127.0.0.1:0", "--listen", f"unix:{folder}.sock"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield started, started.stdout.readline()
    started.kill()
    started.wait(START_S)
    started.stdout.close()


def test_a_server_says_one_line_when_it_accepts_and_ends_cleanly_by_sigterm(server, folder):
    process, line = server
    assert re.fullmatch(rf"ringfence server ready: http://127\.0\.0\.1:\d+/v2 unix:{folder}\.sock\n", line)
    process.send_signal(signal.SIGTERM)
    assert process.wait(START_S) == 0
    assert process.stdout.read() == ""


def test_a_key_made_beside_a_running_server_signs_at_once_and_no_more_once_revoked(server, folder):
    _, line = server
    endpoint = line.split()[3]
    made = _exported(_run(folder, "key", "create", "-o", "env")[1])
    client = ApiClient(Credentials(made["EXOSCALE_API_KEY"], made["EXOSCALE_API_SECRET"]), endpoint)
    assert client.instances() == {}
    assert _run(folder, "key", "revoke", made["EXOSCALE_API_KEY"])[0] == 0
    with pytest.raises(OperatorError, match="403"):
        client.instances()
    client.close()


def test_env_names_the_running_server_and_a_key_that_works(server, folder):
    _, line = server
    lines = _exported(_run(folder, "env")[1])
    assert lines["EXOSCALE_API_ENDPOINT"] == line.split()[3]
    client = ApiClient(
        Credentials(lines["EXOSCALE_API_KEY"], lines["EXOSCALE_API_SECRET"]), lines["EXOSCALE_API_ENDPOINT"]
    )
    assert client.instances() == {}
    client.close()


def test_what_was_made_beside_a_server_is_there_when_it_was_killed(server, folder):
    process, _ = server
    made = _exported(_run(folder, "key", "create", "-o", "env")[1])
    process.kill()
    process.wait(START_S)
    status, listed = _run(folder, "key", "list", "-o", "json")
    assert status == 0
    assert made["EXOSCALE_API_KEY"] in listed


def test_a_second_server_on_the_same_folder_is_refused_in_words(server, folder):  # noqa: ARG001  it only has to run
    refused = subprocess.run(  # noqa: S603  our own program
        (*PROGRAM, "server", "--data", str(folder), "--listen", "127.0.0.1:0"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (refused.returncode, refused.stdout) == (1, "")
    assert str(folder) in refused.stderr


def test_a_secret_is_shown_also_where_the_terminal_lacks_a_letter_of_the_keys_name(folder):
    made = subprocess.run(  # noqa: S603  our own program
        (*PROGRAM, "key", "create", "--name", "日本", "--data", folder),
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, "\\u65e5\\u672c" in made.stdout) == (0, True)


@pytest.mark.usefixtures("server")
def test_metrics_are_what_hosts_should_enforce_and_do(folder):
    assert _run(folder, "host", "add", "h1")[0] == 0
    status, shown = _run(folder, "metrics", "--rules")
    assert status == 0
    lines = shown.splitlines()
    assert 'ringfence_host_failing{host="h1"} 0' in lines
    assert [line for line in lines if line.startswith("ringfence_host_applied_revision")] == []  # it was never heard
    wanted = [line for line in lines if line.startswith('ringfence_host_wanted_revision{host="h1"} ')]
    assert len(wanted) == 1
    assert "# TYPE ringfence_rule_judged_packets_total counter" in lines
