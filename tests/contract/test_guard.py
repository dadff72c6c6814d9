"""``ringfence env --guard`` as a shell uses it, and clients behind it."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing

import pytest


def _run(command, environment):
    return subprocess.run(  # noqa: S603  our own program
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def guard(tmp_path):
    """The variables that ``eval "$(ringfence env --guard)"`` sets."""
    command = (
        sys.executable,
        "-m",
        "ringfence",
        "env",
        "--guard",
        "--data",
        str(tmp_path),
        "--endpoint",
        "http://x/v2",
    )
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = _run(command, environment)
    variables = dict(re.findall(r"export (\w+)=(.*)", done.stdout))
    yield variables
    os.kill(int(variables["RINGFENCE_GUARD_PID"]), signal.SIGTERM)


def _through(variables, host, port):
    proxy = re.fullmatch(r"http://(127\.0\.0\.1):(\d+)", variables["HTTPS_PROXY"])
    client = http.client.HTTPConnection(proxy[1], int(proxy[2]), timeout=20)
    client.set_tunnel(host, port)
    return client


def test_the_real_cloud_is_refused_in_words_that_the_client_shows(guard):
    with (
        closing(_through(guard, "api-ch-gva-2.exoscale.com", 443)) as client,
        pytest.raises(OSError, match="403") as seen,
    ):
        client.connect()
    assert "api-ch-gva-2.exoscale.com is the real cloud, which would bill you" in str(seen.value)


def test_others_are_reached_through_a_tunnel_and_unreachable_ones_are_said_to_be(guard):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def echo():
            accepted, _ = server.accept()
            with accepted:
                while octets := accepted.recv(4096):
                    accepted.sendall(octets)

        threading.Thread(target=echo, daemon=True).start()
        with closing(_through(guard, "127.0.0.1", port)) as client:
            client.connect()
            client.sock.sendall(b"there and back")
            assert client.sock.recv(4096) == b"there and back"
            client.sock.shutdown(socket.SHUT_WR)
            assert client.sock.recv(4096) == b""
    with (
        closing(_through(guard, "127.0.0.1", port)) as client,
        pytest.raises(OSError, match="502 ringfence guard: cannot"),
    ):
        client.connect()


def test_a_proxy_that_is_set_already_is_said(tmp_path):
    command = (
        sys.executable,
        "-m",
        "ringfence",
        "env",
        "--guard",
        "--data",
        str(tmp_path),
        "--endpoint",
        "http://x/v2",
    )
    environment = {**os.environ, "HTTPS_PROXY": "http://127.0.0.1:1"}
    done = _run(command, environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert "HTTPS_PROXY is set already" in done.stderr
