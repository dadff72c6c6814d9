"""One of two servers is cut off from the database: it answers reads for a time, then trusts nobody until it is back."""

import json
import shutil
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


@pytest.fixture
def pair(postgres, tmp_path):
    """A server, another that may be alone for a second, and what stands between the other and the database."""
    folders = [tmp_path / name for name in ("a", "b", "relay")]
    for folder in folders:
        folder.mkdir(mode=0o700)
    url = postgres.database()
    relay = Relay(folders[2], url)
    with ExitStack() as stack:
        stack.callback(relay.close)
        first = stack.enter_context(running_server(folders[0], QUICK, ServeOptions(database=url)))
        shutil.copy(folders[0] / "secret.key", folders[1])
        second = stack.enter_context(running_server(folders[1], ALONE, ServeOptions(database=relay.url)))
        yield first, second, relay


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
