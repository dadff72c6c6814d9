"""kill -9 of the server's process before the time of what it is to undo by itself."""

import os
import signal
import time

import pytest

from contract.test_server_process import server_process
from waiting import wait_until

WEB = [
    {"edit": "create-group", "name": "web"},
    {"edit": "add-rule", "group": "web", "service": "tcp/443", "from": "0.0.0.0/0"},
    {"edit": "add-source", "group": "web", "source": "192.0.2.0/24"},
]


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


@pytest.mark.full
@pytest.mark.parametrize("is_confirmed", [False, True])
def test_a_change_on_trial_outlives_kill_9_and_is_undone_unless_it_was_confirmed(tmp_path, is_confirmed):
    def policy(server):
        return server.call("GET", "/security-group").json, server.admin.get("/admin/v1/rules").json()

    with server_process(tmp_path) as (process, server):
        made = server.admin.post("/admin/v1/change", json={"edits": WEB}).json()["ids"]
        before = policy(server)
        edits = [
            {"edit": "delete-rule", "group": "web", "rule": made[1]},
            {"edit": "remove-source", "group": "web", "source": "192.0.2.0/24"},
            {"edit": "create-group", "name": "new"},
        ]
        answer = server.admin.post("/admin/v1/change", json={"edits": edits, "confirm-s": 2}).json()
        after, trial = policy(server), answer["trial"]
        assert after != before
        if is_confirmed:
            confirmed = server.admin.post("/admin/v1/trials", json={"revision": trial["revision"]})
            assert confirmed.status_code == 200
        _kill(process)
    wait_until(lambda: time.time() > trial["ends-at"], 10)
    with server_process(tmp_path) as (_, again):
        again.key, again.secret = server.key, server.secret
        assert policy(again) == (after if is_confirmed else before)
        actions = [line["action"] for line in again.admin.get("/admin/v1/history").json()["lines"]]
        assert actions.count("ChangeUndone") == (0 if is_confirmed else 1)
        assert again.admin.get("/admin/v1/history/check").json()["broken"] is None


@pytest.mark.full
def test_kill_9_while_changes_are_undone_leaves_each_whole_or_undone(tmp_path):
    """Killed at whatever moment around the end of a trial; another life undoes it if none has."""
    for life in range(3):
        with server_process(tmp_path) as (process, server):
            names = [f"{life}-{n}" for n in range(200)]
            edits = [{"edit": "create-group", "name": name} for name in names]
            answer = server.admin.post("/admin/v1/change", json={"edits": edits, "confirm-s": 1})
            ends_at = answer.json()["trial"]["ends-at"]
            wait_until(lambda ends_at=ends_at, life=life: time.time() > ends_at + life * 0.2, 10)
            _kill(process)
    with server_process(tmp_path) as (_, server):
        actions = [line["action"] for line in server.admin.get("/admin/v1/history").json()["lines"]]
        assert actions.count("ChangeUndone") == 3
        assert server.admin.get("/admin/v1/trials").json() == {"trials": []}
        assert [group["name"] for group in server.call("GET", "/security-group").json["security-groups"]] == ["default"]
