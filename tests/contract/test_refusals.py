"""Bad input: 4xx at once, a JSON body of one shape, and not a trace in the state."""

import json
from uuid import uuid4

import httpx
import pytest

from contract.conftest import VM_A
from contract.openapi import check_error

CLEAN = {"flow-direction": "ingress", "protocol": "tcp", "network": "192.0.2.0/24", "start-port": 22, "end-port": 22}
NOBODY = "00000000-0000-4000-8000-00000000dead"


def rule(**changes):
    body = {**CLEAN, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return json.dumps({name: value for name, value in body.items() if value is not ...}).encode()


@pytest.fixture(scope="module")
def group(server):
    answer = server.call("POST", "/security-group", json.dumps({"name": "target", "description": "d"}).encode())
    id_ = answer.json["reference"]["id"]
    server.call("POST", f"/security-group/{id_}/rules", rule())
    server.call("PUT", f"/security-group/{id_}:add-source", b'{"cidr": "203.0.113.0/24"}')
    server.call("PUT", f"/security-group/{id_}:attach", json.dumps({"instance": {"id": VM_A}}).encode())
    return id_


def whole_state(server):
    """Everything that the API shows."""
    paths = ("/security-group", "/security-group?visibility=public", "/instance")
    return [server.call("GET", path).json for path in paths]


BODIES = [
    (b"", 400),
    (b"{", 400),
    (b"[]", 400),
    (b"null", 400),
    (b'"text"', 400),
    (b"{} {}", 400),
    (b"\xff\xfe", 400),
    (b'{"name": "x", "name": "y"}', 400),
    (b'{"a": ' * 5000 + b"1" + b"}" * 5000, 400),
    (b'{"n": NaN}', 400),
    (b'{"name": "\\ud800"}', 400),
    (b'{"name": "a\\u0000b"}', 400),
    (b" " * (2**20 + 1), 413),
]
GROUPS = [
    ({}, 400),
    ({"name": ""}, 400),
    ({"name": "x" * 256}, 400),
    ({"name": 5}, 400),
    ({"name": True}, 400),
    ({"name": ["a"]}, 400),
    ({"name": {"a": 1}}, 400),
    ({"name": None}, 400),
    ({"name": "n", "description": "x" * 256}, 400),
    ({"name": "n", "description": 1}, 400),
    ({"name": "target"}, 409),
    ({"name": "default"}, 409),
]
RULES = [
    (rule(protocol="TCP"), 400),
    (rule(protocol="all", start_port=..., end_port=...), 400),
    (rule(protocol="sctp"), 400),
    (rule(protocol=...), 400),
    (rule(flow_direction=...), 400),
    (rule(flow_direction="Ingress"), 400),
    (rule(start_port=True), 400),
    (rule(start_port=22.5), 400),
    (rule(start_port="22"), 400),
    (rule(start_port=0), 400),
    (rule(end_port=65536), 400),
    (rule(end_port=-1), 400),
    (rule(end_port=10**40), 400),
    (rule(start_port=23), 400),
    (rule(protocol="icmp"), 400),
    (rule(protocol="esp"), 400),
    (rule(icmp={"type": 8, "code": 0}), 400),
    (rule(protocol="icmp", start_port=..., end_port=..., icmp={"code": 0}), 400),
    (rule(protocol="icmp", start_port=..., end_port=..., icmp={"type": 255, "code": 0}), 400),
    (rule(protocol="icmp", start_port=..., end_port=..., icmp="echo"), 400),
    (rule(network=...), 400),
    (rule(security_group={"id": NOBODY}), 400),
    (rule(network=..., security_group={"id": NOBODY}), 404),
    (rule(network=..., security_group={"id": "x"}), 400),
    (rule(network=..., security_group={"name": "none such", "visibility": "public"}), 404),
    (rule(network=..., security_group={"name": "target"}), 400),
    (rule(network="10.0.0.0"), 400),
    (rule(network="10.0.0.0/33"), 400),
    (rule(network="10.0.0.1-10.0.0.9"), 400),
    (rule(network="www.example.org"), 400),
    (rule(network="fe80::%eth0/10"), 400),
    (rule(network="::ffff:192.0.2.0/120"), 400),
    (rule(network="0.0.0.0/0 } flush ruleset #"), 400),
    (rule(network=""), 400),
    (rule(description="x" * 256), 400),
]
SOURCES = [({}, 400), ({"cidr": "203.0.113.9"}, 400), ({"cidr": 5}, 400), ({"cidr": "example.org"}, 400)]
WORN = [
    ({}, 400),
    ({"instance": VM_A}, 400),
    ({"instance": {}}, 400),
    ({"instance": {"id": "x"}}, 400),
    ({"instance": {"id": NOBODY}}, 404),
]
PATHS = [
    ("GET", "/security-group/nope", 404),
    ("GET", f"/security-group/{NOBODY}", 404),
    ("GET", "/security-group/{group}x", 404),
    ("GET", "/security-group/..%2f..%2fetc", 404),
    ("GET", "/security-group/%00", 404),
    ("DELETE", "/security-group/nope", 404),
    ("DELETE", f"/security-group/{NOBODY}", 404),
    ("DELETE", "/security-group/{group}", 409),
    ("DELETE", "/security-group/{group}/rules/nope", 404),
    ("DELETE", f"/security-group/{{group}}/rules/{NOBODY}", 404),
    ("DELETE", f"/security-group/{NOBODY}/rules/{NOBODY}", 404),
    ("GET", "/operation/nope", 404),
    ("GET", f"/operation/{NOBODY}", 404),
    ("GET", "/instance/nope", 404),
    ("GET", f"/instance/{NOBODY}", 404),
    ("GET", f"/instance-type/{NOBODY}", 404),
    ("GET", f"/template/{NOBODY}", 404),
    ("GET", f"/reverse-dns/instance/{VM_A}", 404),
    ("GET", "/load-balancer", 404),
    ("POST", "/instance/{group}/nothing", 404),
    ("GET", "", 404),
    ("GET", "/", 404),
    ("GET", "/security-group/", 404),
    ("PUT", "/security-group", 405),
    ("DELETE", "/security-group", 405),
    ("PATCH", "/security-group/{group}", 405),
    ("POST", "/security-group/{group}", 405),
    ("GET", "/security-group/{group}/rules", 405),
    ("POST", "/security-group/{group}:attach", 405),
    ("GET", "/security-group/{group}:add-source", 405),
    ("POST", "/instance", 405),
    ("DELETE", "/instance/{group}", 405),
    ("GET", "/security-group?visibility=PUBLIC", 400),
    ("GET", "/security-group?visibility=", 400),
    ("GET", "/security-group?visibility=public&visibility=public", 400),
    ("GET", "/security-group?name=web", 400),
    ("GET", "/instance?manager-id=1", 400),
]


def check_refused(server, group, method, path, body, status):
    before = whole_state(server)
    answer = server.call(method, path.replace("{group}", group), body)
    assert answer.status == status, answer.body
    check_error(status, answer.json)
    assert answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"
    if status == 405:
        assert method not in answer.headers["allow"]
        assert "OPTIONS" in answer.headers["allow"]
    if status == 400 and body and answer.json.get("field"):
        assert answer.json["field"].startswith("$")
    assert whole_state(server) == before


@pytest.mark.parametrize(("body", "status"), BODIES)
@pytest.mark.parametrize(("method", "path"), [("POST", "/security-group"), ("POST", "/security-group/{group}/rules")])
def test_a_body_that_is_no_clean_document_is_refused(server, group, method, path, body, status):
    check_refused(server, group, method, path, body, status)


@pytest.mark.parametrize(("wanted", "status"), GROUPS)
def test_a_bad_group_is_refused(server, group, wanted, status):
    check_refused(server, group, "POST", "/security-group", json.dumps(wanted).encode(), status)


@pytest.mark.parametrize(("body", "status"), RULES)
def test_a_bad_rule_is_refused(server, group, body, status):
    check_refused(server, group, "POST", "/security-group/{group}/rules", body, status)


@pytest.mark.parametrize(("wanted", "status"), SOURCES)
@pytest.mark.parametrize("verb", ["add-source", "remove-source"])
def test_a_bad_source_is_refused(server, group, verb, wanted, status):
    check_refused(server, group, "PUT", f"/security-group/{{group}}:{verb}", json.dumps(wanted).encode(), status)


@pytest.mark.parametrize(("wanted", "status"), WORN)
@pytest.mark.parametrize("verb", ["attach", "detach"])
def test_a_bad_instance_is_refused(server, group, verb, wanted, status):
    check_refused(server, group, "PUT", f"/security-group/{{group}}:{verb}", json.dumps(wanted).encode(), status)


@pytest.mark.parametrize(("method", "path", "status"), PATHS)
def test_a_bad_path_method_or_query_is_refused(server, group, method, path, status):
    check_refused(server, group, method, path, b"", status)


def test_a_change_of_something_unknown_is_refused_before_its_body_matters(server, group):
    for verb in ("add-source", "remove-source", "attach", "detach"):
        body = b'{"cidr": "10.0.0.0/8", "instance": {"id": "%s"}}' % VM_A.encode()
        check_refused(server, group, "PUT", f"/security-group/{uuid4()}:{verb}", body, 404)


UNSIGNED = [
    ("GET", "/security-group"),
    ("POST", "/security-group"),
    ("GET", "/nothing"),
    ("POST", "/zone"),
    ("DELETE", ""),
    ("GET", "/instance-type"),
    ("GET", "/template"),
    ("GET", f"/reverse-dns/instance/{VM_A}"),
    ("GET", "/instance"),
    ("GET", f"/operation/{NOBODY}"),
    ("GET", "/zone/"),
    ("GET", "//zone"),
    ("GET", "/security-group/../zone"),
]


@pytest.mark.parametrize(("method", "path"), UNSIGNED)
def test_an_unsigned_request_learns_nothing_not_even_what_exists(server, method, path):
    answer = server.call(method, path, signed=False)
    assert answer.status == 403
    check_error(403, answer.json)
    assert answer.json["message"] == "the request is not signed, or not with a valid signature"


UNROUTED = [  # roots that are not written as the routes are, which the router would take for them
    ("GET", "//v2/instance-type"),
    ("GET", "//v2/security-group"),
    ("POST", "//v2/security-group"),
    ("GET", "///v2/zone"),
    ("GET", "//agent/v1/feed"),
    ("GET", "/%76%32/security-group"),
    ("GET", "/v%32/zone"),
    ("GET", "/%61gent/v1/feed"),
    ("GET", "/agent/v%31/feed"),
    ("GET", "/agent%2Fv1/feed"),
    ("GET", "/v2%2Fsecurity-group"),
    ("GET", "//control/v2/zone"),
]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("method", "target"), UNROUTED)
def test_a_root_in_another_spelling_leads_nowhere_signed_or_not(server, method, target, signed):
    body = b'{"name": "around"}' if method == "POST" else b""
    signature = f"Authorization: {server.sign(method, target, body)}\r\n" if signed else ""
    head = f"{method} {target} HTTP/1.1\r\nHost: s\r\n{signature}Content-Length: {len(body)}\r\nConnection: close\r\n"
    before = whole_state(server)
    answer = server.talk(head.encode() + b"\r\n" + body)
    assert answer.startswith(b"HTTP/1.1 404 "), answer
    check_error(404, json.loads(answer.partition(b"\r\n\r\n")[2]))
    assert whole_state(server) == before


@pytest.mark.parametrize("path", ["", "/"])
def test_the_bare_root_says_what_it_is_not(server, path):
    assert server.call("GET", path).json["message"].startswith("an empty path is not offered: ")


def test_a_signature_for_another_method_path_body_or_time_is_refused(server):
    good = server.sign("GET", "/v2/security-group")
    for header in (
        server.sign("POST", "/v2/security-group"),
        server.sign("GET", "/v2/instance"),
        server.sign("GET", "/v2/security-group", b"x"),
        server.sign("GET", "/v2/security-group", ahead_s=-61),
        server.sign("GET", "/v2/security-group", ahead_s=3700),
        good[:-4] + "AAA=",
        good.replace("EXO2-HMAC-SHA256", "EXO2-HMAC-SHA512"),
    ):
        answer = server.call("GET", "/security-group", signed=False, headers={"Authorization": header})
        assert answer.status == 403, header
    assert server.call("GET", "/security-group", signed=False, headers={"Authorization": good}).status == 200


def test_requests_on_the_unix_socket_are_signed_too(server):
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.unix)), base_url="http://server") as client:
        assert client.get("/v2/security-group").status_code == 403
        header = {"Authorization": server.sign("GET", "/v2/security-group")}
        assert client.get("/v2/security-group", headers=header).status_code == 200


def test_the_same_signature_may_be_sent_again_as_retrying_clients_do(server):
    good = {"Authorization": server.sign("GET", "/v2/security-group")}
    assert [server.call("GET", "/security-group", signed=False, headers=good).status for _ in range(3)] == [200] * 3


def test_a_retried_create_has_no_second_effect(server):
    body = b'{"name": "retried"}'
    assert [server.call("POST", "/security-group", body).status for _ in range(3)] == [200, 409, 409]
    names = [group["name"] for group in server.call("GET", "/security-group").json["security-groups"]]
    assert names.count("retried") == 1
