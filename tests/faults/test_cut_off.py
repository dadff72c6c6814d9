"""One of two servers is cut off from the database: soon it trusts nobody until it is back.

While it sees that the database does not run, nobody can have been revoked, and it answers reads.
"""

import json
import select
import shutil
import threading
import time
from base64 import b64decode
from contextlib import ExitStack
from dataclasses import replace

import pytest

from contract.running import QUICK, running_server
from feeds import open_feed
from relay import Relay
from ringfence.api import ServeOptions
from waiting import wait_until

ALONE = replace(QUICK, alone_s=1.0)
TRUSTED_S = 1.0


@pytest.fixture
def pair(postgres, tmp_path, request):
    """A server, another with the settings that the test names, and what stands between the other and the database."""
    folders = [tmp_path / name for name in ("a", "b", "relay")]
    for folder in folders:
        folder.mkdir(mode=0o700)
    url = postgres.database()
    relay = Relay(folders[2], url)
    with ExitStack() as stack:
        stack.callback(relay.close)
        first = stack.enter_context(running_server(folders[0], QUICK, ServeOptions(database=url)))
        shutil.copy(folders[0] / "secret.key", folders[1])
        second = stack.enter_context(running_server(folders[1], request.param, ServeOptions(database=relay.url)))
        yield first, second, relay


@pytest.mark.parametrize("pair", [ALONE], indirect=True, ids=["alone for a second"])
def test_what_is_revoked_meanwhile_is_trusted_no_longer_than_it_may_answer_alone(pair):
    here, there, relay = pair
    private_key = b64decode(here.admin.post("/admin/v1/hosts", json={"name": "gone"}).json()["private-key"])
    with open_feed(there.unix, private_key, "gone") as opened:
        opened.line()
        relay.cut_off()
        here.admin.delete(f"/admin/v1/keys/{there.key}").raise_for_status()
        here.admin.delete("/admin/v1/hosts/gone").raise_for_status()
        assert there.call("POST", "/security-group", json.dumps({"name": "web"}).encode()).status == 503
        wait_until(lambda: there.call("GET", "/security-group").status == 503)
        while opened.line():  # heartbeats
            pass
    refused = there.call("GET", "/security-group")
    assert refused.status == 503
    assert "has not heard from its database" in refused.json["message"]
    assert there.call("GET", "/zone", signed=False).status == 503  # by which who spreads calls knows
    assert there.admin.get("/admin/v1/export").status_code == 200  # the operator's own socket
    relay.away = False
    wait_until(lambda: there.call("GET", "/zone", signed=False).status == 200)
    assert there.call("GET", "/security-group").status == 403
    there.key, there.secret = here.key, here.secret
    assert there.call("GET", "/security-group").status == 200


@pytest.mark.parametrize("pair", [QUICK], indirect=True, ids=["as it is"])
def test_who_hears_nothing_trusts_a_key_no_longer_than_a_second_and_leaves_its_feeds_open(pair):
    here, there, relay = pair
    private_key = b64decode(here.admin.post("/admin/v1/hosts", json={"name": "kept"}).json()["private-key"])
    with open_feed(there.unix, private_key, "kept") as opened:
        opened.line()
        wait_until(lambda: not select.select([opened.socket], [], [], 0.2)[0])
        relay.cut_off()
        here.admin.delete(f"/admin/v1/keys/{there.key}").raise_for_status()
        revoked_s = time.monotonic()
        trusted_s = [began for began, answer in _until_refused(there) if answer.status == 200]
        assert all(began < revoked_s + TRUSTED_S for began in trusted_s)
        assert not select.select([opened.socket], [], [], 0)[0], "its feed has ended"


def _until_refused(server):
    """When each read began, and what was answered."""
    status = 200
    while status == 200:
        began_s = time.monotonic()
        answer = server.call("GET", "/security-group")
        status = answer.status
        yield began_s, answer
    assert status == 503


def test_reads_go_on_while_the_database_is_killed_and_starts_again(own_postgres, tmp_path):
    with running_server(tmp_path, QUICK, ServeOptions(database=own_postgres.database())) as server:
        own_postgres.kill()
        until_s = time.monotonic() + 2 * TRUSTED_S
        while time.monotonic() < until_s:
            assert server.call("GET", "/security-group").status == 200
        starting = threading.Thread(target=own_postgres.start)
        starting.start()
        while starting.is_alive():
            assert server.call("GET", "/security-group").status == 200
        wait_until(lambda: server.call("POST", "/security-group", json.dumps({"name": "web"}).encode()).status == 200)
