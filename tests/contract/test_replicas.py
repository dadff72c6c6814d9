"""Two servers on one PostgreSQL: what either acknowledged, the other shows at once, and hosts count for both."""

import asyncio
import json
import shutil
import threading
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from uuid import uuid4

import pytest

from contract.running import QUICK, admin_client, running_server
from contract.test_agent_protocol import INVENTORY, claim_of, send
from contract.test_organisations import call
from counts import count
from feeds import open_feed
from ringfence.api import ServeOptions
from ringfence.control.actor import operator_of
from ringfence.control.safety import Safety
from ringfence.policy.commands import CreateGroup, Edit
from ringfence.policy.values import HostName
from ringfence.store import HistoryQuery
from ringfence.wire.feed import Report, encode_claim
from unit.control.test_plane import PlayedClock, opened
from waiting import wait_until

WRITERS = 16
RULES = count(reduced=4, stated=50)


@pytest.fixture(scope="module")
def pair(postgres, tmp_path_factory):
    """Two servers with one key, which the first made."""
    url = postgres.database()
    folders = [tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")]
    with ExitStack() as stack:
        first = stack.enter_context(running_server(folders[0], QUICK, ServeOptions(database=url)))
        shutil.copy(folders[0] / "secret.key", folders[1])
        second = stack.enter_context(running_server(folders[1], QUICK, ServeOptions(database=url)))
        second.key, second.secret = first.key, first.secret
        yield first, second


def create(server, name):
    answer = server.call("POST", "/security-group", json.dumps({"name": name}).encode())
    assert answer.status == 200, answer.body
    return answer.json["reference"]["id"]


def test_what_an_operator_changed_at_one_server_the_other_shows_at_once(pair):
    first, second = pair
    for number in range(20):
        edits = [{"edit": "create-group", "name": f"of-operator-{number}"}]
        first.admin.post("/admin/v1/change", json={"edits": edits}).raise_for_status()
        assert f"of-operator-{number}" in second.admin.get("/admin/v1/export").json()["groups"]


RULE = {"flow-direction": "ingress", "protocol": "tcp", "start-port": 1, "end-port": 1, "network": "10.0.0.0/8"}


def add_rule(server, group, port):
    body = json.dumps(RULE | {"start-port": port, "end-port": port}).encode()
    answer = server.call("POST", f"/security-group/{group}/rules", body)
    assert answer.status == 200, answer.body


def ports(server, group):
    rules = server.call("GET", f"/security-group/{group}").json.get("rules", [])
    return sorted(rule["start-port"] for rule in rules)


def test_what_one_server_acknowledged_the_other_shows_at_once(pair):
    for number in range(20):
        writer, reader = pair if number % 2 else pair[::-1]
        group = create(writer, f"read-your-writes-{number}")
        assert reader.call("GET", f"/security-group/{group}").status == 200
        add_rule(reader, group, number + 1)
        assert ports(writer, group) == [number + 1]
        assert writer.call("DELETE", f"/security-group/{group}").status == 200
        assert reader.call("GET", f"/security-group/{group}").status == 404


def test_an_operation_of_one_server_can_be_asked_of_the_other(pair):
    operation = pair[0].call("POST", "/security-group", b'{"name": "asked"}').json
    shown = pair[1].call("GET", f"/operation/{operation['id']}").json
    assert (shown["id"], shown["state"]) == (operation["id"], "success")


@pytest.mark.full
def test_writers_on_one_group_from_both_servers_lose_nothing(pair):
    group = create(pair[0], "contended")
    with ThreadPoolExecutor(WRITERS) as pool:
        wanted = range(1, WRITERS * RULES + 1)
        list(pool.map(lambda port: add_rule(pair[port % 2], group, port), wanted))
    assert ports(pair[0], group) == ports(pair[1], group) == list(wanted)


def test_of_two_creates_of_one_name_on_two_servers_one_is_refused(pair):
    barrier = threading.Barrier(2)

    def create_both(number, server):
        barrier.wait()
        return server.call("POST", "/security-group", json.dumps({"name": f"raced-{number}"}).encode()).status

    with ThreadPoolExecutor(2) as pool:
        for number in range(10):
            assert sorted(pool.map(lambda server, n=number: create_both(n, server), pair)) == [200, 409]


def test_a_key_is_known_to_the_other_server_and_revoked_there_too(pair):
    made = pair[0].admin.post("/admin/v1/keys", json={"name": "other"}).json()
    known, pair[1].key, secret, pair[1].secret = pair[1].key, made["id"], pair[1].secret, made["secret"]
    try:
        assert pair[1].call("GET", "/security-group").status == 200
        pair[0].admin.delete(f"/admin/v1/keys/{made['id']}").raise_for_status()
        assert pair[1].call("GET", "/security-group").status == 403
    finally:
        pair[1].key, pair[1].secret = known, secret


def test_keys_that_are_made_on_both_servers_at_once_stay_within_their_limit(pair):
    name = f"limited-{uuid4()}"
    pair[0].admin.post("/admin/v1/organisations", json={"name": name}).raise_for_status()
    path = f"/admin/v1/organisations/{name}/quota"
    for limit in range(1, 4 * RULES, 2):
        pair[1].admin.put(path, json={"iam-key": limit}).raise_for_status()
        with ThreadPoolExecutor(WRITERS) as pool:
            made = list(pool.map(lambda number: _make_key(pair[number % 2], name), range(WRITERS)))
        assert set(made) == {200, 409}
        for server in pair:
            used = {one["name"]: one["used"] for one in server.admin.get(path).json()["quotas"]}
            assert used["iam-key"] == limit


def _make_key(server, organisation):
    with admin_client(server.folder) as admin:
        return admin.post(f"/admin/v1/keys?organisation={organisation}", json={}).status_code


def _rotate(path, server):
    return server.admin.post(path, json={"overlap-s": 60})


def test_of_two_servers_that_rotate_a_key_at_once_each_gives_out_a_secret_that_signs(pair):
    first, _ = pair
    for _ in range(2 * RULES):
        path = f"/admin/v1/keys/{first.admin.post('/admin/v1/keys', json={}).json()['id']}"
        with ThreadPoolExecutor(2) as pool:
            rotated = list(pool.map(partial(_rotate, path), pair))
        for answer in rotated:
            for server in pair:
                assert call(server, answer.json(), "GET", "/security-group").status == 200


def test_a_host_that_is_removed_at_one_server_loses_its_feed_at_the_other(pair):
    here, there = pair
    private_key = b64decode(here.admin.post("/admin/v1/hosts", json={"name": "gone"}).json()["private-key"])
    with open_feed(there.unix, private_key, "gone") as opened:
        opened.line()
        here.admin.delete("/admin/v1/hosts/gone").raise_for_status()
        assert opened.line() == b""
    refused = send(there, private_key, "PUT", INVENTORY, encode_claim(claim_of("web")), host=HostName("gone"))
    assert refused.status_code == 401


def test_a_server_without_the_seal_key_is_refused_and_told_what_to_do(pair, postgres, tmp_path):
    del postgres
    url = (pair[0].folder / "database").read_text().strip()
    with pytest.raises(Exception, match=r"secret\.key"), running_server(tmp_path, QUICK, ServeOptions(database=url)):
        pass


def test_the_operators_socket_of_either_server_sees_the_others_changes(pair):
    pair[0].admin.post("/admin/v1/hosts", json={"name": "seen"}).raise_for_status()

    def hosts():
        return [host["host"] for host in admin_client(pair[1].folder).get("/admin/v1/hosts").json()["hosts"]]

    wait_until(lambda: "seen" in hosts())


def state(server, operation):
    return server.call("GET", f"/operation/{operation['id']}").json["state"]


def test_a_change_at_one_server_settles_by_a_host_that_is_connected_to_the_other(pair):
    here, there = pair
    host = HostName("far")
    private_key = b64decode(here.admin.post("/admin/v1/hosts", json={"name": host}).json()["private-key"])
    assert send(there, private_key, "PUT", INVENTORY, encode_claim(claim_of("web")), host=host).status_code == 200
    group = here.call("GET", "/security-group").json["security-groups"][0]["id"]
    with open_feed(there.unix, private_key, host) as opened:
        first = opened.next().view.revision
        opened.report(Report(first, None))
        wait_until(lambda: far(here)["applied"] == first)
        operation = here.call("POST", f"/security-group/{group}/rules", json.dumps(RULE).encode()).json
        assert operation["state"] == "pending"
        changed = opened.next().view.revision
        assert changed > first
        assert state(here, operation) == state(there, operation) == "pending"
        opened.report(Report(changed, None))
        wait_until(lambda: state(here, operation) == state(there, operation) == "success")
        failing = here.call("POST", f"/security-group/{group}/rules", json.dumps(RULE | {"end-port": 9}).encode()).json
        opened.next()
        opened.report(Report(changed, "nft: no space left on device"))
        wait_until(lambda: state(here, failing) == state(there, failing) == "failure")


def far(server):
    (found,) = [host for host in server.admin.get("/admin/v1/hosts").json()["hosts"] if host["host"] == "far"]
    return found


@pytest.mark.full
def test_a_rule_that_expires_is_deleted_once_by_one_of_two_servers(pair):
    edits = [{"edit": "create-group", "name": "soon"}]
    edits += [{"edit": "add-rule", "group": "soon", "service": "tcp/22", "from": "0.0.0.0/0", "expires-s": 1}]
    answer = pair[0].admin.post("/admin/v1/change", json={"edits": edits})
    assert answer.status_code == 200
    for server in pair:
        wait_until(lambda server=server: ports(server, answer.json()["ids"][0]) == [])
    lines = pair[1].admin.get("/admin/v1/history").json()["lines"]
    assert [line["action"] for line in lines].count("RuleExpired") == 1


@pytest.mark.full
def test_a_trial_at_whose_end_two_servers_undo_it_at_once_is_undone_once(postgres, tmp_path):
    """Both see it due before either commits."""
    url, clock = postgres.database(), PlayedClock()

    async def tried():
        async with opened(tmp_path / "a", clock=clock, database=url) as one:
            shutil.copy(tmp_path / "a" / "secret.key", tmp_path / "b")
            async with opened(tmp_path / "b", clock=clock, database=url) as other:
                actor = operator_of(one.owners.first.id)
                create = [Edit(CreateGroup("web"), uuid4())]
                await one.change(create, actor, action="Change", safety=Safety(trial_s=60))
                await other.fresh()
                assert len(other.snapshot.groups) == 2
                clock.moment_s += 60
                await asyncio.gather(one._deadlines.meet(), other._deadlines.meet())
                lines = await other.history.read(HistoryQuery())
                assert [line.action for line in lines].count("ChangeUndone") == 1
                assert len(one.snapshot.groups) == 1
                assert one.owners.first.trial is None

    for name in "ab":
        (tmp_path / name).mkdir()
    asyncio.run(tried())
