"""The operator's socket: keys, hosts, instances and public groups; the same app in a process of one's own."""

import asyncio
import json
import stat
from base64 import b64encode

import httpx
import pytest

from contract.running import admin_client, running_server
from ringfence.api import CONTROL_SOCKET, build_admin_app
from ringfence.api.direct import Direct
from ringfence.control.plane import ControlPlane
from ringfence.policy.errors import OperatorError
from waiting import wait_until

INSTANCE = "7e81fefd-5daa-5bcd-befd-e19e15d90282"


@pytest.fixture
def server(tmp_path):
    with running_server(tmp_path) as running:
        yield running


def test_both_sockets_are_the_owners_alone(server):
    for path in (server.folder / CONTROL_SOCKET, server.unix):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_shows_its_secret_once(server):
    made = server.admin.post("/admin/v1/keys", json={"name": "ci", "role": "reader"}).json()
    assert made.keys() == {"id", "secret", "name", "role"}
    listed = server.admin.get("/admin/v1/keys")
    assert made["secret"] not in listed.text
    [shown] = [key for key in listed.json()["keys"] if key["id"] == made["id"]]
    assert (shown["name"], shown["role"]) == ("ci", "reader")
    assert server.admin.delete(f"/admin/v1/keys/{made['id']}").status_code == 204
    assert server.admin.delete(f"/admin/v1/keys/{made['id']}").status_code == 404


def test_a_host_brings_its_public_key_or_is_given_a_private_one(server):
    minted = server.admin.post("/admin/v1/hosts", json={"name": "h1"}).json()
    assert minted.keys() == {"name", "private-key"}
    brought = server.admin.post("/admin/v1/hosts", json={"name": "h2", "public-key": b64encode(bytes(32)).decode()})
    assert brought.json() == {"name": "h2"}
    assert [host["host"] for host in server.admin.get("/admin/v1/hosts").json()["hosts"]] == ["h1", "h2"]


def test_an_instance_without_a_host_can_wear_groups(server):
    wanted = {"id": INSTANCE, "name": "vm", "addresses": ["10.0.0.1", "fd00::1"], "mac": "02:00:00:00:00:01"}
    assert server.admin.post("/admin/v1/instances", json=wanted).json() == {"id": INSTANCE, "name": "vm"}
    other = server.admin.post("/admin/v1/instances", json={"name": "bare"}).json()
    shown = {one["name"]: one for one in server.admin.get("/admin/v1/instances").json()["instances"]}
    assert shown["vm"] == {
        "id": INSTANCE,
        "name": "vm",
        "organisation": "default",
        "host": None,
        "bound-to": None,
        "mode": "enforce",
        "addresses": ["10.0.0.1", "fd00::1"],
        "groups": ["default"],
    }
    assert shown["bare"]["id"] == other["id"]
    assert server.call("GET", f"/instance/{INSTANCE}").json["mac-address"] == "02:00:00:00:00:01"


def test_only_the_operator_may_have_an_instance_observed_and_may_name_it_by_name_or_id(server):
    server.admin.post("/admin/v1/instances", json={"id": INSTANCE, "name": "vm"})

    def mode():
        return server.admin.get("/admin/v1/instances").json()["instances"][0]["mode"]

    for name, observe, wanted in (("vm", True, "observe"), (INSTANCE, False, "enforce")):
        for _ in range(2):  # asked again it is so already
            answer = server.admin.put(f"/admin/v1/instances/{name}", json={"observe": observe})
            assert answer.json()["state"] == "success"
            assert mode() == wanted
    assert server.admin.put("/admin/v1/instances/vmm", json={"observe": True}).status_code == 404
    for body in ({}, {"observe": "yes"}, []):
        assert server.admin.put("/admin/v1/instances/vm", json=body).status_code == 400
    assert server.call("PUT", f"/instance/{INSTANCE}", b'{"observe": true}').status in (404, 405)
    assert mode() == "enforce"


def test_a_public_group_is_seen_by_everybody_and_changed_by_nobody_else(server):
    made = server.admin.post(
        "/admin/v1/groups", json={"name": "cdn", "description": "d", "external-sources": ["198.51.100.0/24"]}
    )
    id_ = made.json()["reference"]["id"]
    assert server.call("GET", "/security-group?visibility=public").json["security-groups"] == [
        {"name": "cdn", "visibility": "public", "description": "d", "external-sources": ["198.51.100.0/24"]}
    ]
    assert server.call("GET", f"/security-group/{id_}").status == 404
    assert server.call("DELETE", f"/security-group/{id_}").status == 404
    assert server.call("PUT", f"/security-group/{id_}:add-source", b'{"cidr": "0.0.0.0/0"}').status == 404
    assert server.admin.get("/admin/v1/groups").json()["groups"][0]["id"] == id_


def test_a_public_group_comes_with_all_its_networks_or_not_at_all(server):
    server.admin.put("/admin/v1/organisations/default/quota", json={"source-per-group": 1})
    wanted = {"name": "cdn", "external-sources": ["198.51.100.0/24", "203.0.113.0/24"]}
    refused = server.admin.post("/admin/v1/groups", json=wanted).json()
    assert "quota source-per-group of group cdn is reached" in refused["message"]
    assert server.admin.get("/admin/v1/groups").json() == {"groups": []}
    server.admin.put("/admin/v1/organisations/default/quota", json={"source-per-group": 2})
    assert server.admin.post("/admin/v1/groups", json=wanted).status_code == 200
    again = server.admin.post("/admin/v1/groups", json=wanted)
    assert again.status_code == 409


def test_a_question_is_answered_in_words(server):
    for n, name in enumerate(("app", "db"), start=1):
        server.admin.post("/admin/v1/instances", json={"name": name, "addresses": [f"10.0.0.{n}"]})
    question = {"source": "app", "destination": "db", "service": "tcp/5432"}
    refused = server.admin.get("/admin/v1/explain", params=question).json()
    assert refused["allowed"] is False
    assert "db" in refused["text"]
    default = server.call("GET", "/security-group").json["security-groups"][0]["id"]
    rule = b'{"flow-direction": "ingress", "protocol": "tcp", "network": "10.0.0.0/24", "start-port": 5432}'
    server.call("POST", f"/security-group/{default}/rules", rule)
    assert server.admin.get("/admin/v1/explain", params=question).json()["allowed"] is True


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"service": "tcp/x"}, 400), ({"service": None}, 400), ({"source": "nobody"}, 404)],
)
def test_a_question_that_makes_no_sense_is_refused(server, changes, status):
    question = {"source": "internet", "destination": "192.0.2.9", "service": "tcp/1", **changes}
    asked = {name: value for name, value in question.items() if value is not None}
    assert server.admin.get("/admin/v1/explain", params=asked).status_code == status


BAD = [
    ("keys", {"role": "god"}),
    ("keys", {"name": ""}),
    ("hosts", {}),
    ("hosts", {"name": "a b"}),
    ("hosts", {"name": "h", "public-key": "AAAA"}),
    ("hosts", {"name": "h", "public-key": "not base64!"}),
    ("instances", {"addresses": []}),
    ("instances", {"name": "vm", "addresses": ["10.0.0.0/24"]}),
    ("instances", {"name": "vm", "id": "nope"}),
    ("instances", {"name": "vm", "mac": "01:00:00:00:00:01"}),
    ("instances", {"name": "vm", "interface": "a/b"}),
    ("groups", {"name": "g", "external-sources": ["all"]}),
]


@pytest.mark.parametrize(("kind", "wanted"), BAD)
def test_an_operators_mistake_is_told_and_changes_nothing(server, kind, wanted):
    before = server.admin.get(f"/admin/v1/{kind}").json()
    answer = server.admin.post(f"/admin/v1/{kind}", json=wanted)
    assert answer.status_code == 400
    assert answer.json()["field"].startswith("$.")
    assert server.admin.get(f"/admin/v1/{kind}").json() == before


def test_names_and_addresses_are_taken_once(server):
    for kind, wanted in (("hosts", {"name": "h1"}), ("instances", {"name": "vm", "addresses": ["10.0.0.1"]})):
        assert server.admin.post(f"/admin/v1/{kind}", json=wanted).status_code == 200
        assert server.admin.post(f"/admin/v1/{kind}", json=wanted).status_code == 409


def test_the_same_app_answers_in_a_process_of_its_own_when_no_server_runs(tmp_path):
    async def use():
        plane = await ControlPlane.open(tmp_path)
        transport = Direct(build_admin_app(plane))
        async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
            made = await client.post("/admin/v1/keys", json={"name": "offline"})
        await plane.close()
        return made.json()

    made = asyncio.run(use())
    with running_server(tmp_path) as server:
        server.key, server.secret = made["id"], made["secret"]
        assert server.call("GET", "/security-group").status == 200
    assert not (tmp_path / CONTROL_SOCKET).exists()


def test_secrets_reach_neither_log_nor_refusal(server, caplog):
    caplog.set_level("DEBUG")
    made = server.admin.post("/admin/v1/keys", json={"name": "canary"}).json()
    server.key, server.secret = made["id"], made["secret"]
    texts = [server.call("GET", path).body.decode() for path in ("/security-group", "/nothing", "/security-group/nope")]
    header = server.sign("GET", "/v2/security-group")
    texts.append(server.call("GET", "/instance", signed=False, headers={"Authorization": header}).body.decode())
    wait_until(lambda: [record for record in caplog.records if "/v2/instance" in str(vars(record))])
    logged = json.dumps([vars(record) for record in caplog.records], default=str)
    assert logged.count("/v2/security-group") > 0
    for text in (*texts, logged):
        assert made["secret"] not in text
        assert header.rpartition("=")[0][-40:] not in text


def test_another_server_on_the_same_folder_is_refused_and_the_first_lives_on(server):
    with pytest.raises(OperatorError, match=str(server.folder)), running_server(server.folder):
        pass
    assert server.call("GET", "/security-group").status == 200
    assert admin_client(server.folder).get("/admin/v1/hosts").status_code == 200
