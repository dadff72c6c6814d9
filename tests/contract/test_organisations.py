"""Several organisations on one server: none sees, names or changes what is another's."""

import json
import re
import time
from uuid import uuid4

import pytest

from contract.running import running_server
from ringfence.api import account, groups, instances
from ringfence.wire.signature import SignedRequest, sign_request

RULE = '{{"flow-direction":"ingress","protocol":"esp","network":"0.0.0.0/0"}}'
WORN = '{{"instance":{{"id":"{instance}"}}}}'
# Every route below /v2 that names something by an id, each of its verbs, and what must be another's in it.
REQUESTS = [
    ("GET", "/security-group/{group}", ""),
    ("DELETE", "/security-group/{group}", ""),
    ("POST", "/security-group/{group}/rules", RULE),
    ("DELETE", "/security-group/{group}/rules/{rule}", ""),
    ("DELETE", "/security-group/{own}/rules/{rule}", ""),
    ("PUT", "/security-group/{group}:add-source", '{{"cidr":"0.0.0.0/0"}}'),
    ("PUT", "/security-group/{group}:remove-source", '{{"cidr":"192.0.2.0/24"}}'),
    ("PUT", "/security-group/{group}:attach", WORN),
    ("PUT", "/security-group/{own}:attach", WORN),
    ("PUT", "/security-group/{group}:detach", WORN),
    ("PUT", "/security-group/{own}:detach", WORN),
    ("GET", "/instance/{instance}", ""),
    ("GET", "/operation/{operation}", ""),
    ("GET", "/reverse-dns/instance/{instance}", ""),
    ("DELETE", "/reverse-dns/instance/{instance}", ""),
    ("PUT", "/instance/{instance}:remove-protection", ""),
]
NOBODYS = {"/v2/instance-type/{entry}", "/v2/template/{entry}", "/v2/quota/{resource}"}  # no ids of anybody


class _Routes:
    """Takes note of what an app is told to serve."""

    def __init__(self):
        self.found = {}

    def add_route(self, path, resource):
        self.found[path] = {name[3:].upper() for name in dir(resource) if name.startswith("on_")}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture(scope="module")
def theirs(server):
    """Another organisation with one of each thing: their ids, and `own`, a group of the first one."""
    server.admin.post("/admin/v1/organisations", json={"name": "theirs"}).raise_for_status()
    instance = server.admin.post(
        "/admin/v1/instances?organisation=theirs", json={"name": "their-vm", "addresses": ["10.1.1.1"]}
    ).json()["id"]
    key = server.admin.post("/admin/v1/keys?organisation=theirs", json={"name": "their key"}).json()
    made = change(server, key, "POST", "/security-group", '{"name":"their-group"}')
    group = made["reference"]["id"]
    change(server, key, "POST", f"/security-group/{group}/rules", RULE.format())
    change(server, key, "PUT", f"/security-group/{group}:add-source", '{"cidr":"192.0.2.0/24"}')
    change(server, key, "PUT", f"/security-group/{group}:attach", WORN.format(instance=instance))
    rule = call(server, key, "GET", f"/security-group/{group}").json["rules"][0]["id"]
    own = server.call("GET", "/security-group").json["security-groups"][0]["id"]
    return {"group": group, "rule": rule, "instance": instance, "operation": made["id"], "own": own, "key": key}


def call(server, key, method, path, body=""):
    header = sign_request(
        key["id"], key["secret"], SignedRequest(method, f"/v2{path}".encode(), body.encode()), int(time.time()) + 600
    )
    return server.call(method, path, body.encode(), signed=False, headers=[("Authorization", header)])


def change(server, key, method, path, body=""):
    answered = call(server, key, method, path, body)
    assert answered.status == 200, answered
    return answered.json


def test_the_table_has_every_route_and_verb():
    routes = _Routes()
    plane = type("Plane", (), {"settings": type("S", (), {"zone": "z"})})
    groups.add_group_routes(routes, plane)
    instances.add_instance_routes(routes, plane)
    account.add_account_routes(routes, plane, time.time)
    served = {
        (verb, re.sub(r"\{\w+\}", "*", path.removeprefix("/v2")))
        for path, verbs in routes.found.items()
        if "{" in path and path not in NOBODYS
        for verb in verbs
    }
    assert served == {(verb, re.sub(r"\{\w+\}", "*", path)) for verb, path, _ in REQUESTS}


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
def test_what_belongs_to_another_organisation_does_not_exist(server, theirs, method, path, body):
    before = [call(server, theirs["key"], "GET", "/security-group").body, server.call("GET", "/security-group").body]
    answered = server.call(method, path.format(**theirs), body.format(**theirs).encode())
    assert answered.status == 404
    assert "their-" not in answered.json["message"]
    unknown = {name: str(uuid4()) for name in theirs} | {"own": theirs["own"]}
    nothing = server.call(method, path.format(**unknown), body.format(**unknown).encode())
    assert _without_ids(answered) == _without_ids(nothing)  # the answer does not tell whether it is another's
    after = [call(server, theirs["key"], "GET", "/security-group").body, server.call("GET", "/security-group").body]
    assert after == before


def _without_ids(answered):
    return re.sub(rb"[0-9a-f]{8}-[0-9a-f-]{27}", b"ID", answered.body)


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("path", ["/security-group", "/security-group?visibility=public", "/instance", "/event"])
def test_lists_show_only_ones_own(server, path):
    answered = server.call("GET", path)
    assert answered.status == 200
    assert "their" not in json.dumps(answered.json)


def test_a_rule_cannot_name_another_organisations_group(server, theirs):
    body = f'{{"flow-direction":"ingress","protocol":"esp","security-group":{{"id":"{theirs["group"]}"}}}}'
    answered = server.call("POST", f"/security-group/{theirs['own']}/rules", body.encode())
    assert answered.status == 404
    assert "their" not in answered.json["message"]


def test_both_may_use_the_same_name_and_one_alone_may_not(server, theirs):
    del theirs
    assert server.call("POST", "/security-group", b'{"name":"their-group"}').status == 200
    assert server.call("POST", "/security-group", b'{"name":"their-group"}').status == 409


def test_a_public_group_is_a_peer_for_all(server, theirs):
    server.admin.post("/admin/v1/groups", json={"name": "probes", "external-sources": ["198.51.100.0/24"]})
    peer = '{"flow-direction":"ingress","protocol":"esp","security-group":{"name":"probes","visibility":"public"}}'
    change(server, theirs["key"], "POST", f"/security-group/{theirs['group']}/rules", peer)
    rules = call(server, theirs["key"], "GET", f"/security-group/{theirs['group']}").json["rules"]
    assert rules[-1]["security-group"] == {"name": "probes", "visibility": "public"}


def test_an_organisation_is_removed_when_empty_and_its_keys_with_it(server):
    server.admin.post("/admin/v1/organisations", json={"name": "brief"}).raise_for_status()
    assert server.admin.post("/admin/v1/organisations", json={"name": "brief"}).status_code == 409
    key = server.admin.post("/admin/v1/keys?organisation=brief", json={}).json()
    group = change(server, key, "POST", "/security-group", '{"name":"left"}')["reference"]["id"]
    refused = server.admin.delete("/admin/v1/organisations/brief")
    assert refused.status_code == 409
    assert "group left" in refused.json()["message"]
    server.admin.post("/admin/v1/instances?organisation=brief", json={"name": "last"}).raise_for_status()
    (last,) = call(server, key, "GET", "/instance").json["instances"]
    change(server, key, "PUT", f"/security-group/{group}:attach", json.dumps({"instance": {"id": last["id"]}}))
    assert "instance last" in server.admin.delete("/admin/v1/organisations/brief").json()["message"]
    assert server.admin.delete("/admin/v1/instances/last/host?organisation=brief").status_code == 204
    assert server.admin.delete("/admin/v1/instances/last?organisation=brief").status_code == 204
    change(server, key, "DELETE", f"/security-group/{group}")
    assert server.admin.delete("/admin/v1/organisations/brief").status_code == 204
    assert call(server, key, "GET", "/security-group").status == 403
    assert server.admin.post("/admin/v1/keys?organisation=brief", json={}).status_code == 404
    first = server.admin.get("/admin/v1/organisations").json()["organisations"][0]["name"]
    assert server.admin.delete(f"/admin/v1/organisations/{first}").status_code == 409


def test_an_operator_says_whose_instance_is_meant(server, theirs):
    server.admin.post("/admin/v1/instances", json={"name": "their-vm", "addresses": ["10.1.1.2"]}).raise_for_status()
    assert server.admin.put("/admin/v1/instances/their-vm", json={"observe": True}).status_code == 400
    assert server.admin.put("/admin/v1/instances/their-vm?organisation=theirs", json={"observe": True}).is_success
    modes = {one["id"]: one["mode"] for one in server.admin.get("/admin/v1/instances").json()["instances"]}
    assert modes.pop(theirs["instance"]) == "observe"
    assert set(modes.values()) == {"enforce"}
    question = {"source": "internet", "destination": "their-vm", "service": "esp", "organisation": "theirs"}
    assert server.admin.get("/admin/v1/explain", params=question).json()["allowed"] is True
    assert server.admin.put("/admin/v1/instances/their-vm?organisation=nobody", json={}).status_code in {400, 404}
    first = server.admin.get("/admin/v1/organisations").json()["organisations"][0]["name"]
    unknown = server.admin.get("/admin/v1/observed", params={"of": "nobody-at-all"}).json()["message"]
    assert f"no instance or group of organisation {first} is named 'nobody-at-all'" in unknown
    edit = {"edit": "delete-group", "group": "nobody-at-all"}
    refused = server.admin.post("/admin/v1/change?organisation=theirs", json={"edits": [edit]}).json()["message"]
    assert "there is no security group 'nobody-at-all' of organisation theirs" in refused


def test_quotas_are_each_organisations_own(server, theirs):
    quota = "/admin/v1/organisations/theirs/quota"
    assert server.admin.put(quota, json={"security-group": 3}).is_success
    change(server, theirs["key"], "POST", "/security-group", '{"name":"third"}')
    refused = call(server, theirs["key"], "POST", "/security-group", '{"name":"fourth"}')
    assert refused.status == 409
    assert "quota security-group of organisation theirs is reached: 3 of 3" in refused.json["message"]
    assert server.call("POST", "/security-group", b'{"name":"fourth"}').status == 200
    shown = {one["name"]: one for one in server.admin.get(quota).json()["quotas"]}
    assert shown["security-group"] == {"name": "security-group", "used": 3, "limit": 3}
    for bad in ({"security-group": "3"}, {"no-such": 3}, {"security-group": -2}, {"security-group": True}):
        assert server.admin.put(quota, json=bad).status_code == 400
    assert server.admin.put(quota, json={"security-group": None}).is_success
    change(server, theirs["key"], "POST", "/security-group", '{"name":"fourth"}')
