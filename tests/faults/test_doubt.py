"""Callers hear the truth or nothing: PostgreSQL cut off or silent in a commit or before it, a defect after one."""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from contract.running import QUICK, running_server
from relay import Relay
from ringfence.api import ApiOptions, ServeOptions
from ringfence.api.rates import RateLimits
from ringfence.control.feed import Feed
from ringfence.policy.errors import OperatorError
from waiting import wait_until


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Who waits for a silent database, behind a commit in doubt, or for a server's end, need not wait long."""
    monkeypatch.setattr("ringfence.store.postgresql.PATIENCE_S", 0.3)
    monkeypatch.setattr("ringfence.store.postgresql.FORSAKEN_S", 0.3)
    monkeypatch.setattr("ringfence.store.postgresql.CONNECT_TIMEOUT_S", 1)
    monkeypatch.setattr("ringfence.store.writer.IN_DOUBT_S", 0.2)
    monkeypatch.setattr("ringfence.api.server.GRACE_S", 0.2)


@contextmanager
def cut_server(postgres, folder):
    """A server whose way to the database can be cut."""
    (folder / "relay").mkdir()
    relay = Relay(folder / "relay", postgres.database())
    options = ServeOptions(ApiOptions(rates=RateLimits(0, 0, 0, 0)), database=relay.url)
    try:
        with running_server(folder, QUICK, options) as server:
            yield server, relay
    finally:
        relay.close()


def create(server, name):
    return server.call("POST", "/security-group", json.dumps({"name": name}).encode())


def names(server):
    return [group["name"] for group in server.call("GET", "/security-group").json["security-groups"]]


@pytest.mark.parametrize(("cut", "status"), [("after", 200), ("before", 503)])
def test_a_commit_that_the_network_swallows_is_answered_by_what_became_of_it(postgres, tmp_path, cut, status):
    with cut_server(postgres, tmp_path) as (server, relay):
        relay.cut, relay.silently = cut, True
        assert create(server, "doubted").status == status
        assert names(server) == ["default", *(["doubted"] if status == 200 else [])]
        assert create(server, "later").status == 200


@pytest.mark.parametrize(("cut", "status"), [("after", 200), ("before", 503)])
def test_a_commit_in_doubt_is_answered_when_it_is_known_whether_it_was_made(postgres, tmp_path, cut, status):
    with cut_server(postgres, tmp_path) as (server, relay), ThreadPoolExecutor(1) as pool:
        relay.cut = cut
        doubted = pool.submit(create, server, "doubted")
        assert relay.was_cut.wait(10)
        assert create(server, "refused").status == 503
        assert names(server) == ["default"]
        assert not doubted.done()
        relay.cut, relay.away = None, False
        assert doubted.result(60).status == status
        assert names(server) == ["default", *(["doubted"] if status == 200 else [])]
        assert create(server, "later").status == 200


def test_a_server_that_ends_in_doubt_answers_nothing(postgres, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        with cut_server(postgres, tmp_path) as (server, relay):
            relay.cut = "after"
            doubted = pool.submit(create, server, "doubted")
            assert relay.was_cut.wait(10)
            assert create(server, "refused").status == 503
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            doubted.result(30)


@pytest.mark.full
def test_a_database_that_is_stopped_makes_writers_busy_and_soon_readers_and_all_is_well_when_it_goes_on(
    postgres, tmp_path
):
    url = postgres.database()
    with running_server(tmp_path, QUICK, ServeOptions(database=url)) as server:
        with postgres.stopped():
            refused = create(server, "refused")
            assert refused.status == 503
            assert "nothing was done, because this server has not heard from its database" in refused.json["message"]
            assert url not in refused.json["message"]
            assert server.call("GET", "/security-group").status == 503
        wait_until(lambda: create(server, "web").status == 200)
        assert names(server) == ["default", "web"]


def test_a_change_that_is_stored_is_answered_so_even_if_the_server_cannot_follow_it_and_ends(tmp_path, monkeypatch):
    def defect(*_):
        raise KeyError("view")

    def serve_once():
        with running_server(tmp_path) as server:
            monkeypatch.setattr(Feed, "publish", defect)
            assert create(server, "web").status == 200
            monkeypatch.undo()

    with pytest.raises(OperatorError, match="publishing a change that is stored"):
        serve_once()
    with running_server(tmp_path) as server:
        assert names(server) == ["default", "web"]
