"""Asking too often: who is refused, how, and what official clients make of it."""

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network

import pytest
from exoscale.api.exceptions import ExoscaleAPIClientException
from exoscale.api.v2 import Client
from exoscale_connector.client import ExoscaleClient
from exoscale_connector.config import ClientConfig
from exoscale_connector.resources.security_group import SecurityGroup, SecurityGroupClient

from contract.openapi import check_error
from contract.running import running_server
from contract.test_agent_protocol import INVENTORY, add_host, claim_of, send
from ringfence.api import ApiOptions, ServeOptions
from ringfence.api.rates import RateLimits
from ringfence.api.zones import Origin
from ringfence.policy.values import HostName
from ringfence.wire.feed import encode_claim

pytestmark = pytest.mark.usefixtures("exchanges")


@pytest.fixture
def limited(tmp_path):
    """`limited(rates)` is a running server with those limits."""
    started = []

    def start(rates):
        running = running_server(tmp_path, options=ServeOptions(ApiOptions(rates=rates)))
        started.append(running)
        return running.__enter__()

    yield start
    for running in started:
        running.__exit__(None, None, None)


def test_a_key_that_asks_too_often_is_told_when_it_may_again_and_others_go_on(limited):
    server = limited(RateLimits(key=0.02, address=0))
    assert server.call("GET", "/security-group").status == 200
    for answer in [server.call("GET", "/security-group") for _ in range(3)]:
        assert answer.status == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 50
        check_error(429, answer.json)
        assert server.key in answer.json["message"]
    other = server.admin.post("/admin/v1/keys", json={}).json()
    Client(other["id"], other["secret"], url=server.url).list_security_groups()


def test_a_host_that_asks_too_often_is_refused_before_anything_is_done_and_others_go_on(limited):
    server = limited(RateLimits(host=0.02))
    keys = {name: add_host(server, HostName(name)) for name in ("h1", "h2")}

    def claim(host, *instances):
        body = encode_claim(claim_of(*instances))
        return send(server, keys[host], "PUT", INVENTORY, body, host=HostName(host))

    assert claim("h1", "web").status_code == 200
    refused = claim("h1", "web", "more")
    assert (refused.status_code, "host h1 sends more calls than it may" in refused.json()["message"]) == (429, True)
    assert 1 <= int(refused.headers["retry-after"]) <= 50
    assert [one["name"] for one in server.call("GET", "/instance").json["instances"]] == ["web"]
    assert claim("h2").status_code == 200


def test_an_address_that_asks_too_often_is_refused_whatever_it_asks(limited):
    server = limited(RateLimits(key=0, address=0.02))
    assert server.call("GET", "/zone", signed=False).status == 200
    assert server.call("GET", "/zone", signed=False).status == 429
    assert server.call("GET", "/security-group").status == 429


def test_refused_signatures_are_limited_more_tightly_and_right_ones_still_pass(limited):
    server = limited(RateLimits(failures=0.02))
    refusals = [server.call("GET", "/security-group", signed=False) for _ in range(3)]
    assert [answer.status for answer in refusals] == [403, 429, 429]
    assert int(refusals[-1].headers["retry-after"]) >= 1
    assert server.call("GET", "/security-group").status == 200


def test_the_connector_waits_and_gets_through_and_the_python_sdk_is_told(limited, monkeypatch):
    server = limited(RateLimits(key=1, address=0))
    monkeypatch.setenv("EXOSCALE_API_KEY", server.key)
    monkeypatch.setenv("EXOSCALE_API_SECRET", server.secret)
    monkeypatch.setenv("EXOSCALE_API_ENDPOINT", server.url)
    sdk = Client(server.key, server.secret, url=server.url)
    with pytest.raises(ExoscaleAPIClientException, match="sends more calls than it may: try again in 1 s"):  # noqa: PT012
        while True:
            sdk.list_security_groups()
    groups = SecurityGroupClient(ExoscaleClient(ClientConfig.from_env()))
    created = groups.create(SecurityGroup(name="patient", description="x"))
    assert groups.get(created.id).name == "patient"


def test_by_default_ten_parallel_clients_at_full_speed_are_not_refused(limited):
    server = limited(RateLimits())
    with ThreadPoolExecutor(10) as clients:
        answers = clients.map(lambda _: server.call("GET", "/security-group").status, range(500))
        assert set(answers) == {200}


def test_behind_a_trusted_proxy_the_last_untrusted_address_counts(tmp_path):
    origin = Origin(trusted_proxies=(ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8")))
    options = ServeOptions(ApiOptions(rates=RateLimits(key=0, address=0.02), origin=origin))
    with running_server(tmp_path, options=options) as server:

        def status(forwarded):
            return server.call("GET", "/zone", signed=False, headers=[("X-Forwarded-For", forwarded)]).status

        assert status("192.0.2.1") == 200
        assert status("203.0.113.9, 192.0.2.1, 10.0.0.1") == 429  # what the client itself wrote counts for nothing
        assert status("192.0.2.2, 10.0.0.1") == 200
