"""The server as a process of its own: ready line, SIGTERM with an open feed, kill -9, and what its log may not hold."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection

import pytest

from contract.running import Running, admin_client
from feeds import open_feed
from ringfence.wire.hostauth import sign_request

READY = "ringfence server ready: "


@contextmanager
def server_process(folder, *more):
    """The command as people start it; killed at the end when it still runs."""
    log = folder / "log"
    unix = folder / "api.sock"
    command = [sys.executable, "-m", "ringfence", "server", "--data", str(folder / "data")]
    command += ["--listen", "127.0.0.1:0", "--listen", f"unix:{unix}", *more]
    with log.open("ab") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)  # noqa: S603  our own
    try:
        line = process.stdout.readline()
        assert line.startswith(READY), log.read_text()
        url = line.removeprefix(READY).split()[0]
        admin = admin_client(folder / "data")
        key = admin.post("/admin/v1/keys", json={"name": "tests"}).json()
        yield process, Running(folder / "data", url, unix, admin, key["id"], key["secret"])
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def test_systemd_is_told_when_operators_and_callers_are_answered(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(10)
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with server_process(tmp_path) as (_, server):
            assert systemd.recv(100) == b"READY=1"
            assert server.call("GET", "/security-group").status == 200


def test_sigterm_ends_it_cleanly_even_with_an_open_feed_and_an_idle_connection(tmp_path):
    with ExitStack() as stack, server_process(tmp_path) as (process, server):
        feed = stack.enter_context(open_feed(server.address, add_host(server), "h1"))
        feed.line()
        idle = HTTPConnection(*server.address, timeout=10)
        idle.request("GET", "/v2/zone")
        assert idle.getresponse().read()
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - started < 4
        assert feed.line() == b""
    assert not server.unix.exists()
    assert not (server.folder / "control.sock").exists()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert not [line for line in lines if line["level"] not in {"info", "debug"}]
    assert not [line for line in lines if server.secret in json.dumps(line)]


def test_kill_9_loses_no_acknowledged_call_and_its_sockets_are_taken_over(tmp_path):
    with server_process(tmp_path) as (process, server):
        for n in range(20):
            assert server.call("POST", "/security-group", b'{"name": "g%d"}' % n).status == 200
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    with server_process(tmp_path) as (_, again):
        again.key, again.secret = server.key, server.secret
        names = {group["name"] for group in again.call("GET", "/security-group").json["security-groups"]}
    assert names == {"default", *(f"g{n}" for n in range(20))}


def test_plain_http_beyond_loopback_is_refused_with_the_way_out(tmp_path):
    command = [sys.executable, "-m", "ringfence", "server", "--data", str(tmp_path), "--listen", "0.0.0.0:0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603  our own
    assert ended.returncode != 0
    assert "--insecure" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_call_under_way_is_answered_before_it_ends(tmp_path, number):
    """The call waits for a host that does not apply its change; the server is told to end in the meantime."""
    with ExitStack() as stack, server_process(tmp_path) as (process, server), ThreadPoolExecutor(1) as pool:
        private_key = add_host(server)
        claim = b'{"format":3,"instances":[{"name":"vm","id":null,"realm":"default","interfaces":[{"name":"tap0",'
        claim += b'"addresses":["10.0.0.1"],"mac":null,"managed":true,"kind":"routed"}]}]}'
        assert send(server, private_key, "PUT", "/agent/v1/inventory", claim).status == 200
        feed = stack.enter_context(open_feed(server.address, private_key, "h1"))
        feed.line()
        group = server.call("GET", "/security-group").json["security-groups"][0]["id"]
        body = b'{"flow-direction": "ingress", "protocol": "esp", "network": "0.0.0.0/0"}'
        call = pool.submit(server.call, "POST", f"/security-group/{group}/rules", body)
        assert feed.line()  # the change is committed, the call waits for the host
        process.send_signal(number)
        answer = call.result(10)
        assert (answer.status, answer.json["state"]) == (200, "pending")
        assert process.wait(10) == 0


def add_host(server):
    """The private key of the host h1."""
    return b64decode(server.admin.post("/admin/v1/hosts", json={"name": "h1"}).json()["private-key"])


def send(server, private_key, method, target, body=b""):
    """One signed request of h1's agent; the answer is not read yet."""
    header = sign_request(private_key, "h1", method, target, body, int(time.time()) + 60)
    connection = HTTPConnection(*server.address, timeout=10)
    connection.request(method, target, body=body or None, headers={"Authorization": header})
    return connection.getresponse()
