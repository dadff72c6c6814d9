"""What time ends, what is undone, and what the guard keeps, in a real kernel by a real agent."""

import json
import time
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from ringfence.api.operator import SESSION_HEADER
from ringfence.world.stream import Stream, heard_since
from self_scene import HOST, ID, OUTSIDE, QUICK_S, open_scene, open_world, serving
from waiting import wait_until

pytestmark = [pytest.mark.netns, pytest.mark.full]

CALLER = str(OUTSIDE.addresses[0])
SSH, SOON, MINE, FAILSAFE = 2222, 2223, 2224, 22


def session(scene, port):
    """A live connection from outside to the host."""
    return closing(Stream(scene.outside, scene.host, HOST.addresses[0], port))


def goes_on(stream):
    now_s = time.monotonic()
    wait_until(lambda: heard_since(stream, now_s), 5.0)


def last_heard(stream):
    """The time of day at which anything arrived last."""
    return time.time() - time.monotonic() + max(heard.last_s for heard in stream.heard())


def is_cut(stream):
    """Whether nothing was heard for a while."""
    return time.time() - last_heard(stream) > 1.0


def change(scene, *edits, force=False, **more):
    header = {SESSION_HEADER: f"{CALLER} 50000 {HOST.addresses[0]} {SSH}"}
    asked = {"edits": edits, "force": force, **more}
    return scene.server.admin.post("/admin/v1/change", json=asked, headers=header)


def opening(port, **more):
    return {"edit": "add-rule", "group": "in", "service": f"tcp/{port}", "from": CALLER, **more}


def enforced(scene):
    """The host lets in ssh from outside alone; answers that rule's id."""
    scene.start()
    scene.until_applied()
    attach = {"edit": "attach", "group": "in", "instance": ID}
    answer = change(scene, {"edit": "create-group", "name": "in"}, opening(SSH), attach)
    assert answer.status_code == 200, answer.text
    scene.enforce()
    scene.until_applied()
    return answer.json()["ids"][1]


@pytest.fixture
def world(tmp_path):
    with open_world(tmp_path) as made:
        yield made


@pytest.fixture
def scene(world, tmp_path):
    with open_scene(world, tmp_path, "server") as made, ended(made.processes):
        yield made


@contextmanager
def ended(processes):
    """Processes that are there in the end do not stay."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_what_was_let_in_for_a_time_is_cut_when_that_is_over(scene):
    """By a rule that expires, and by a signed allow-me for the address that the call comes from."""
    enforced(scene)
    assert change(scene, opening(SOON, **{"expires-s": 4})).status_code == 200
    body = json.dumps({"target": "h1", "service": f"tcp/{MINE}", "expires-s": 4}).encode()
    answer = scene.outside.namespace.run(lambda: scene.server.call("POST", "/admin/v1/allow", body, root=""))
    assert answer.status == 200, answer.body
    rules = scene.server.admin.get("/admin/v1/rules").json()["rules"]
    dues = sorted({rule["expires-at"] for rule in rules} - {None})  # a second apart, when one passed between the calls
    with session(scene, SSH) as stays, session(scene, SOON) as rule, session(scene, MINE) as mine:
        for stream in (stays, rule, mine):
            goes_on(stream)
        wait_until(lambda: time.time() > dues[-1] and is_cut(rule) and is_cut(mine), QUICK_S)
        assert min(map(last_heard, (rule, mine))) > dues[0] - 2.0, "not long before"
        goes_on(stays)


def test_the_guard_keeps_the_callers_session_and_what_is_forced_cuts_it(scene):
    ssh = enforced(scene)
    away = {"edit": "delete-rule", "group": "in", "rule": ssh}
    with session(scene, SSH) as own, session(scene, FAILSAFE) as other:
        refused = change(scene, away)
        assert (refused.status_code, "it is not by a failsafe port of host h1 (tcp/22" in refused.text) == (409, True)
        told = change(scene, away, **{"dry-run": True}).json()
        assert [line.partition(" would be cut")[0] for line in told["guard"]] == [
            f"your session from {CALLER} to {HOST.addresses[0]} tcp/{SSH}"
        ]
        goes_on(own)
        assert change(scene, away, force=True).status_code == 200
        wait_until(lambda: is_cut(own), QUICK_S)
        goes_on(other)


def test_a_trial_that_nobody_confirms_is_undone_in_the_kernel_though_the_server_was_killed(world, tmp_path):
    with ended(agents := []):
        with open_scene(world, tmp_path, "server") as scene:
            scene.processes = agents
            ssh = enforced(scene)
            away = {"edit": "delete-rule", "group": "in", "rule": ssh}
            answer = change(scene, away, opening(SOON), force=True, **{"confirm-s": 8}).json()
            scene.until_applied()
        with session(scene, SOON) as tried:
            goes_on(tried)  # the server is dead: what it said stays in force, also when the trial is over
            wait_until(lambda: time.time() > answer["trial"]["ends-at"], QUICK_S)
            goes_on(tried)
            with serving(world.placed["outside"].namespace, tmp_path / "server") as server:
                again = replace(scene, server=server)
                wait_until(lambda: is_cut(tried), 60.0)  # the agent comes back within 15 s
                again.until_applied()
                with session(again, SSH) as back:
                    goes_on(back)
