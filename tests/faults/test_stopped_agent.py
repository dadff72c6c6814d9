"""An agent that stands still while the policy changes: what it costs the server, and how it comes back."""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from base64 import b64decode
from contextlib import contextmanager
from pathlib import Path

import pytest

import feeds
from contract.running import running_server
from counts import FULL, count
from ringfence.api.feed_connection import FeedConnection
from ringfence.control.settings import Settings
from ringfence.policy.commands import ClaimInstances, InstanceClaim
from ringfence.policy.model import Interface
from ringfence.policy.values import parse_address
from ringfence.wire.feed import encode_claim
from ringfence.wire.hostauth import sign_request
from waiting import wait_until

CHANGES = count(reduced=120, stated=10_000)
STOPPED_S = 60 if FULL else 0
PENDING_CHANGES = 3_000
MOST_BYTES = 1 << 20 if FULL else 48 << 10


@contextmanager
def agent(server, private_key):
    """A process that follows the feed of h1 and acknowledges what it reads."""
    command = (sys.executable, feeds.__file__, str(server.unix), private_key.hex(), "h1")
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path(feeds.__file__).parent)}) as process:  # noqa: S603
        try:
            yield process
        finally:
            process.kill()


def claim(server, private_key):
    interface = Interface("veth1", (parse_address("10.0.0.1", field="x"),))
    body = encode_claim(ClaimInstances((InstanceClaim("web", None, (interface,)),)))
    target = "/agent/v1/inventory"
    header = sign_request(private_key, "h1", "PUT", target, body, int(time.time()) + 60)
    head = f"PUT {target} HTTP/1.1\r\nHost: s\r\nAuthorization: {header}\r\nContent-Length: {len(body)}\r\n\r\n"
    with feeds.connect(server.unix) as opened:
        opened.sendall(head.encode() + body)
        assert b" 200 " in opened.recv(100)


def held_bytes():
    """What the server holds for its agents: lines that it could not write yet, and what the kernel may hold."""
    connections = [one for one in gc.get_objects() if isinstance(one, FeedConnection)]
    kernel = [one._transport.get_extra_info("socket") for one in connections if not one._transport.is_closing()]
    return waiting_bytes() + sum(opened.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) for opened in kernel)


def add_rule(server, group, port):
    rule = {"flow-direction": "ingress", "protocol": "tcp", "network": "0.0.0.0/0", "start-port": port}
    described = json.dumps({**rule, "end-port": port, "description": "x" * 200}).encode()
    made = server.call("POST", f"/security-group/{group}/rules", described).json
    assert made["state"] in {"pending", "success"}


def waiting_bytes():
    """Lines that the server could not write yet."""
    return sum(one._transport.get_write_buffer_size() for one in gc.get_objects() if isinstance(one, FeedConnection))


def test_an_agent_that_stands_still_at_its_first_view_is_kept_nothing_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr("ringfence.api.feed_connection._WAITING_BYTES", 1024)
    with running_server(tmp_path, Settings(settle_wait_s=0.0)) as server:
        key = b64decode(server.admin.post("/admin/v1/hosts", json={"name": "h1"}).json()["private-key"])
        claim(server, key)
        group = server.call("GET", "/security-group").json["security-groups"][0]["id"]
        for port in range(1, 81):
            add_rule(server, group, port)
        with feeds.connect(server.unix) as opened:
            opened.sendall(feeds.ask(key, "h1"))
            wait_until(lambda: waiting_bytes() > 1024)
            before = waiting_bytes()
            for port in range(100, 110):
                add_rule(server, group, port)
            assert waiting_bytes() == before


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("changes", "stopped_s", "patience_s"),
    [
        (CHANGES, STOPPED_S, {}),
        pytest.param(*(PENDING_CHANGES, 0, {"live_s": 600.0, "operation_timeout_s": 600.0}), marks=pytest.mark.long),
    ],
    ids=["stated", "every operation waits"],
)
def test_a_stopped_agent_costs_next_to_nothing_and_converges_when_it_goes_on(
    tmp_path, monkeypatch, changes, stopped_s, patience_s
):
    if not FULL:  # fewer changes fill smaller buffers
        monkeypatch.setattr("ringfence.api.feed_connection._WAITING_BYTES", 8 * 1024)
    with running_server(tmp_path, Settings(settle_wait_s=0.0, **patience_s)) as server:
        key = b64decode(server.admin.post("/admin/v1/hosts", json={"name": "h1"}).json()["private-key"])
        claim(server, key)
        group = server.call("GET", "/security-group").json["security-groups"][0]["id"]
        with agent(server, key) as process:
            wait_until(lambda: standing(server)["applied"] is not None)
            process.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            applied, most = standing(server)["applied"], 0
            for n in range(changes):
                add_rule(server, group, n + 1)
                rules = server.call("GET", f"/security-group/{group}").json["rules"] if n % 40 == 39 else []
                for rule in rules:
                    server.call("DELETE", f"/security-group/{group}/rules/{rule['id']}")
                if n % 20 == 0:
                    most = max(most, held_bytes())
            assert standing(server)["applied"] == applied
            assert max(most, held_bytes()) < MOST_BYTES
            wait_until(lambda: time.monotonic() - stopped >= stopped_s, stopped_s)
            process.send_signal(signal.SIGCONT)
            began = time.monotonic()
            wait_until(lambda: standing(server)["applied"] == standing(server)["wanted"] > applied, timeout_s=20)
            assert not FULL or time.monotonic() - began < 2


def standing(server):
    return server.admin.get("/admin/v1/hosts").json()["hosts"][0]
