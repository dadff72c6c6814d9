"""allow-me by a signed call: who may, and which address is meant."""

import json
from http.client import HTTPConnection
from ipaddress import ip_network

import pytest

from contract.running import running_server
from ringfence.api import ApiOptions, ServeOptions
from ringfence.api.zones import Origin
from ringfence.cli.app import run

WANTED = {"target": "web", "service": "tcp/22", "expires-s": 60}
ROUTE = "/admin/v1/allow"
PROXIES = (ip_network("127.0.0.0/8"), ip_network("192.0.2.1/32"))


@pytest.fixture(params=[()], ids=[""])
def server(request, tmp_path):
    options = ServeOptions(ApiOptions(origin=Origin(trusted_proxies=request.param)))
    with running_server(tmp_path, options=options) as running:
        running.admin.post("/admin/v1/change", json={"edits": [{"edit": "create-group", "name": "web"}]})
        yield running


def behind_proxy(proxies):
    return pytest.mark.parametrize("server", [proxies], indirect=True, ids=[""])


def allow(server, wanted=None, *, key=None, **headers):
    """The status, and what the answer says was done or refused."""
    body = json.dumps(wanted or WANTED).encode()
    if key is not None:
        server.key, server.secret = key["id"], key["secret"]
    connection = HTTPConnection(*server.address, timeout=10)
    connection.request("POST", ROUTE, body, {"Authorization": server.sign("POST", ROUTE, body), **headers})
    answer = connection.getresponse()
    document = json.loads(answer.read())
    connection.close()
    return answer.status, document.get("did", document.get("message"))


@behind_proxy(PROXIES)
def test_a_trusted_proxy_says_who_calls_and_nobody_else_does(server):
    for hops in ("198.51.100.7", "203.0.113.9, 198.51.100.7", "198.51.100.7, 192.0.2.1"):
        status, _ = allow(server, **{"X-Forwarded-For": hops})
        assert status == 200
    [rule] = server.admin.get("/admin/v1/rules").json()["rules"]
    assert rule["allows"] == "ingress tcp/22 from 198.51.100.7/32"
    line = server.admin.get("/admin/v1/history").json()["lines"][-1]
    assert (line["action"], line["actor"], line["address"]) == ("AllowMe", server.key, "198.51.100.7")


def test_without_a_trusted_proxy_the_connection_says_it_and_an_address_may_be_given(server):
    status, said = allow(server, **{"X-Forwarded-For": "198.51.100.7"})
    assert (status, said) == (
        400,
        "$.address: you come from 127.0.0.1, which no rule can mean: give the address that the host will see",
    )
    status, [did] = allow(server, WANTED | {"address": "2001:db8::7"})
    assert (status, did.rpartition(": ")[2]) == (200, "ingress tcp/22 from 2001:db8::7/128")


def test_who_may_not_change_a_group_may_not_let_itself_in(server):
    keys = server.admin
    keys.post("/admin/v1/change", json={"edits": [{"edit": "create-group", "name": "db"}]})
    keys.post("/admin/v1/instances", json={"name": "vm"})
    keys.post("/admin/v1/organisations", json={"name": "acme"})
    mine = WANTED | {"address": "198.51.100.7"}
    limited = keys.post("/admin/v1/keys", json={"groups": ["db"], "role": "operator"}).json()
    for key, target, status in (
        (keys.post("/admin/v1/keys", json={"role": "reader"}).json(), "web", 403),
        (limited, "web", 403),
        (limited, "vm", 403),
        (limited, "db", 200),
        (keys.post("/admin/v1/keys", params={"organisation": "acme"}, json={}).json(), "web", 404),
    ):
        assert allow(server, mine | {"target": target}, key=key)[0] == status, (key, target)
    server.secret = server.key
    assert allow(server, mine)[0] == 403


@behind_proxy(PROXIES)
def test_the_command_asks_a_server_elsewhere(server, capsys, monkeypatch):
    monkeypatch.setenv("EXOSCALE_API_KEY", server.key)
    monkeypatch.setenv("EXOSCALE_API_SECRET", server.secret)
    words = ["allow-me", "web", "tcp/22", "--endpoint", server.url]
    assert run([*words, "--address", "198.51.100.7"]) == 0
    assert "ingress tcp/22 from 198.51.100.7/32" in capsys.readouterr().out
    assert run([*words, "--organisation", "acme"]) == 2
    assert run(["allow-me", "wep", "tcp/22", "--address", "198.51.100.7", *words[3:]]) == 1
    assert "did you mean web?" in capsys.readouterr().err
