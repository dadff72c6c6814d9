"""kill -9 of the server's process before the time of what it is to undo by itself."""

import os
import signal
import time

import pytest

from contract.test_server_process import server_process
from waiting import wait_until


def _kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)


@pytest.mark.full
def test_a_rule_that_expires_while_the_server_is_dead_is_gone_when_it_serves_again(tmp_path):
    edits = [
        {"edit": "create-group", "name": "web"},
        {"edit": "add-rule", "group": "web", "service": "tcp/22", "from": "0.0.0.0/0", "expires-s": 2},
        {"edit": "add-rule", "group": "web", "service": "tcp/80", "from": "0.0.0.0/0", "expires-s": 3600},
    ]
    with server_process(tmp_path) as (process, server):
        assert server.admin.post("/admin/v1/change", json={"edits": edits}).status_code == 200
        due = server.admin.get("/admin/v1/rules").json()["rules"][0]["expires-at"]
        _kill(process)
    wait_until(lambda: time.time() > due, 10)
    with server_process(tmp_path) as (_, server):
        [left] = server.admin.get("/admin/v1/rules").json()["rules"]
        assert left["allows"] == "ingress tcp/80 from 0.0.0.0/0"
        actions = [line["action"] for line in server.admin.get("/admin/v1/history").json()["lines"]]
        assert actions.count("RuleExpired") == 1
