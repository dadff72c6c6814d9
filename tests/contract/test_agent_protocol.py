"""The agents' protocol over the real server: claims, the feed, reports, and what a host may not do."""

import json
import re
import time
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest

from contract.running import running_server
from feeds import FEED, ask, connect, open_feed
from ringfence.api import ApiOptions, ServeOptions
from ringfence.api.server import raise_file_limit
from ringfence.cli.app import run
from ringfence.control.settings import Settings
from ringfence.nft.foreign import ForeignChain
from ringfence.policy.commands import ClaimInstances, InstanceClaim
from ringfence.policy.model import Interface
from ringfence.policy.values import Direction, HostName, InstanceId, Revision, RuleId, parse_address
from ringfence.wire.counters import RuleCount, encode_counts
from ringfence.wire.feed import (
    FeedView,
    Heartbeat,
    Report,
    decode_claimed,
    decode_report,
    encode_claim,
    encode_report,
)
from ringfence.wire.flows import FlowRecord, FlowReport, encode_flow_report
from ringfence.wire.hostauth import sign_request
from waiting import wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "lint.md").read_text(encoding="utf-8")
HOST = HostName("h1")
INVENTORY = "/agent/v1/inventory"
FLOWS, COUNTERS = "/agent/v1/flows", "/agent/v1/counters"


@pytest.fixture
def server(tmp_path):
    with running_server(tmp_path) as running:
        yield running


@pytest.fixture
def private_key(server):
    return add_host(server, HOST)


def add_host(server, name):
    """The private key of a new host."""
    return b64decode(server.admin.post("/admin/v1/hosts", json={"name": name}).json()["private-key"])


def claim_of(*names):
    """An inventory of instances with the addresses 10.0.0.1, 10.0.0.2 and so on."""
    return ClaimInstances(tuple(InstanceClaim(name, None, (_interface(n),)) for n, name in enumerate(names, start=1)))


def _interface(n):
    return Interface(f"veth{n}", (parse_address(f"10.0.0.{n}", field="$"),))


def send(server, private_key, method, target, body=b"", *, host=HOST, ahead_s=60):
    """One signed request of an agent, over the unix socket as in namespaces without a network."""
    header = sign_request(private_key, host, method, target, body, int(time.time()) + ahead_s)
    with unix_client(server) as client:
        return client.request(method, target, content=body, headers={"Authorization": header})


def unix_client(server):
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(server.unix)), base_url="http://server", timeout=10)


def feed(server, private_key, host=HOST):
    """The open feed of a host."""
    return open_feed(server.unix, private_key, host)


def ask_for_feed(server, private_key, query):
    """What is answered to an upgrade that is refused."""
    header = sign_request(private_key, HOST, "GET", f"{FEED}?{query}", b"", int(time.time()) + 60)
    asked = {"Authorization": header, "Connection": "upgrade", "Upgrade": "ringfence-feed"}
    with unix_client(server) as client:
        return client.get(f"{FEED}?{query}", headers=asked)


def status(server):
    return {host["host"]: host for host in server.admin.get("/admin/v1/hosts").json()["hosts"]}


def test_a_host_claims_its_instances_and_each_is_born_with_default(server, private_key):
    answer = send(server, private_key, "PUT", INVENTORY, encode_claim(claim_of("web", "db")))
    claimed = decode_claimed(answer.content)
    assert [name for name, _ in claimed.accepted] == ["web", "db"]
    instances = server.call("GET", "/instance").json["instances"]
    assert {one["name"]: one["public-ip"] for one in instances} == {"web": "10.0.0.1", "db": "10.0.0.2"}
    assert all(len(one["security-groups"]) == 1 for one in instances)


def test_what_a_host_may_not_claim_is_refused_by_name_and_the_rest_accepted(server, private_key):
    send(server, private_key, "PUT", INVENTORY, encode_claim(claim_of("web")))
    thief = add_host(server, "h2")
    answer = send(server, thief, "PUT", INVENTORY, encode_claim(claim_of("mine")), host=HostName("h2"))
    [(name, reason)] = decode_claimed(answer.content).refused
    assert name == "mine"
    assert "10.0.0.1" in reason


def test_the_feed_gives_the_present_view_and_then_each_change_until_the_agent_leaves(server, private_key):
    claimed = decode_claimed(send(server, private_key, "PUT", INVENTORY, encode_claim(claim_of("web"))).content)
    [(_, instance)] = claimed.accepted
    with feed(server, private_key) as opened:
        first = opened.next()
        assert isinstance(first, FeedView)
        assert [endpoint.instance for endpoint in first.view.endpoints] == [instance]
        group = server.call("POST", "/security-group", b'{"name": "web"}').json["reference"]["id"]
        body = json.dumps({"instance": {"id": str(instance)}}).encode()
        operation = server.call("PUT", f"/security-group/{group}:attach", body).json
        assert operation["state"] == "pending"
        second = opened.next()
        assert second.view.revision > first.view.revision
        assert len(second.view.endpoints[0].groups) == 2
        opened.report(Report(second.view.revision, None))
        wait_until(lambda: server.call("GET", f"/operation/{operation['id']}").json["state"] == "success")
    assert status(server)["h1"]["applied"] == second.view.revision


def test_an_explanation_says_which_host_enforces_it_how_far_and_what_was_counted(server, private_key):
    claimed = decode_claimed(send(server, private_key, "PUT", INVENTORY, encode_claim(claim_of("web"))).content)
    group = server.call("GET", "/security-group").json["security-groups"][0]["id"]
    body = b'{"flow-direction": "ingress", "protocol": "tcp", "network": "0.0.0.0/0", "start-port": 22}'
    server.call("POST", f"/security-group/{group}/rules", body)
    question = {"source": "internet", "destination": str(claimed.accepted[0][1]), "service": "tcp/22"}

    def explained():
        return server.admin.get("/admin/v1/explain", params=question).json()

    def said(words):
        return words in explained()["text"]

    assert said("h1 is to enforce web, and was not heard yet")
    with feed(server, private_key) as opened:
        newest = opened.next().view
        opened.report(Report(Revision(newest.revision - 1), None))
        wait_until(lambda: said(f"still at revision {newest.revision - 1} of {newest.revision}"))
        opened.report(Report(newest.revision, None))
        wait_until(
            lambda: f"h1 enforces web, at revision {newest.revision}, which is the newest" in explained()["text"]
        )
        assert "there the rule has not been counted yet" in explained()["text"]
        [side] = explained()["sides"]
        count = RuleCount(RuleId(UUID(side["rule"]["id"])), judged=17, last_hit=1769860680.0, since=1769850000.0)
        send(server, private_key, "POST", COUNTERS, encode_counts((count,)))
        assert (
            "has allowed 17 packets since 2026-01-31 09:00 UTC, the last at 2026-01-31 11:58 UTC" in explained()["text"]
        )
        wall = ForeignChain("ip", "filter", "FORWARD", "forward", 0, policy_drops=True, drops=False)
        opened.report(Report(newest.revision, None, foreign=(wall, replace(wall, family="ip6"))))
        other = "table ip filter, chain FORWARD (forward, priority 0): its policy is drop"
        wait_until(lambda: said(f"h1 has other rules that may drop it all the same: {other}"))
        assert explained()["sides"][0]["others_drop"] == [other]
        opened.report(Report(None, "nft: no space left on device"))
        wait_until(lambda: said("h1 enforces web, and reports: nft: no space left on device"))
    assert explained()["sides"][0]["counted"]["judged"] == 17


def test_a_change_that_a_live_host_applies_at_once_is_answered_success_at_once(server, private_key):
    claimed = decode_claimed(send(server, private_key, "PUT", INVENTORY, encode_claim(claim_of("web"))).content)
    group = server.call("GET", "/security-group").json["security-groups"][0]["id"]
    with feed(server, private_key) as opened, ThreadPoolExecutor(1) as pool:
        opened.next()
        body = b'{"flow-direction": "ingress", "protocol": "tcp", "network": "0.0.0.0/0", "start-port": 22}'
        answer = pool.submit(server.call, "POST", f"/security-group/{group}/rules", body)
        view = opened.next().view
        opened.report(Report(view.revision, None))
        assert answer.result(5).json["state"] == "success"
    assert claimed.accepted


def test_a_host_that_reports_an_error_fails_the_operation_with_its_words(server, private_key):
    send(server, private_key, "PUT", INVENTORY, encode_claim(claim_of("web")))
    group = server.call("GET", "/security-group").json["security-groups"][0]["id"]
    with feed(server, private_key) as opened:
        opened.next()
        body = b'{"flow-direction": "ingress", "protocol": "esp", "network": "0.0.0.0/0"}'
        operation = server.call("POST", f"/security-group/{group}/rules", body).json
        opened.next()
        opened.report(Report(None, "nft: no space left on device"))

        def ended():
            answer = server.call("GET", f"/operation/{operation['id']}").json
            return answer if answer["state"] != "pending" else None

        found = wait_until(ended)
    assert found["state"] == "failure"
    assert found["reason"]
    assert "h1" in found["message"]
    assert "no space left" in found["message"]


def test_a_failure_known_at_once_is_first_answered_pending_because_egoscale_takes_it_for_success(server, private_key):
    send(server, private_key, "PUT", INVENTORY, encode_claim(claim_of("web")))
    group = server.call("GET", "/security-group").json["security-groups"][0]["id"]
    with feed(server, private_key) as opened, ThreadPoolExecutor(1) as pool:
        opened.next()
        body = b'{"flow-direction": "ingress", "protocol": "esp", "network": "0.0.0.0/0"}'
        answer = pool.submit(server.call, "POST", f"/security-group/{group}/rules", body)
        opened.next()
        opened.report(Report(None, "nft: no space left on device"))
        first = answer.result(5).json
        assert first["state"] == "pending"
        assert not {"reason", "message"} & first.keys()
        assert server.call("GET", f"/operation/{first['id']}").json["state"] == "failure"


def test_an_idle_feed_shows_that_it_lives(tmp_path):
    options = ServeOptions(api=ApiOptions(heartbeat_s=0.05))
    with running_server(tmp_path, options=options) as server, feed(server, add_host(server, HOST)) as opened:
        assert isinstance(opened.next(), FeedView)
        assert [isinstance(opened.next(), Heartbeat) for _ in range(3)] == [True] * 3


def test_a_view_made_of_deltas_alone_is_sent_whole_when_it_is_old(tmp_path, monkeypatch):
    monkeypatch.setattr("ringfence.api.feed_connection._WHOLE_BEATS", 2)
    options = ServeOptions(api=ApiOptions(heartbeat_s=0.05))
    with running_server(tmp_path, options=options) as server, feed(server, add_host(server, HOST)) as opened:
        assert [type(opened.next()) for _ in range(3)] == [FeedView, Heartbeat, FeedView]


def test_a_host_that_says_nothing_for_several_beats_is_hung_up_on(tmp_path):
    options = ServeOptions(api=ApiOptions(heartbeat_s=0.05))
    with (
        running_server(tmp_path, options=options) as server,
        feed(server, add_host(server, HOST)) as opened,
        suppress(ConnectionError),
    ):
        while opened.line():
            continue


def test_a_removed_host_is_heard_no_more_and_its_instances_are_free_for_another(server, private_key):
    [(_, instance)] = decode_claimed(
        send(server, private_key, "PUT", INVENTORY, encode_claim(claim_of("web"))).content
    ).accepted
    heir = add_host(server, "h2")
    with feed(server, private_key) as opened:
        opened.next()
        assert server.admin.delete("/admin/v1/hosts/h1").status_code == 204
        assert opened.line() == b""
    assert send(server, private_key, "GET", FEED).status_code == 401
    assert list(status(server)) == ["h2"]
    [left] = server.admin.get("/admin/v1/instances").json()["instances"]
    assert (left["id"], left["host"], left["addresses"], left["groups"]) == (str(instance), None, [], ["default"])
    moved = ClaimInstances((InstanceClaim("web", instance, (_interface(1),)),))
    claimed = decode_claimed(send(server, heir, "PUT", INVENTORY, encode_claim(moved), host=HostName("h2")).content)
    assert (claimed.accepted, claimed.refused) == ((("web", instance),), ())
    [moved_to] = server.admin.get("/admin/v1/instances").json()["instances"]
    assert (left["bound-to"], moved_to["bound-to"]) == (None, "h2")
    assert server.admin.delete("/admin/v1/hosts/h1").status_code == 404


def test_a_host_of_the_operator_runs_a_declared_instance_of_another_organisation_by_its_rules(server, private_key):
    server.admin.post("/admin/v1/organisations", json={"name": "acme"}).raise_for_status()
    declared = server.admin.post("/admin/v1/instances?organisation=acme", json={"name": "web"}).json()["id"]
    inventory = ClaimInstances((InstanceClaim("web", InstanceId(UUID(declared)), (_interface(1),)),))
    assert not decode_claimed(send(server, private_key, "PUT", INVENTORY, encode_claim(inventory)).content).refused
    with feed(server, private_key) as opened, ThreadPoolExecutor(1) as pool:
        assert [str(one.instance) for one in opened.next().view.endpoints] == [declared]
        edits = [{"edit": "add-rule", "group": "default", "service": "tcp/443", "from": "0.0.0.0/0"}]
        answer = pool.submit(server.admin.post, "/admin/v1/change?organisation=acme", json={"edits": edits})
        view = opened.next().view
        assert [rule.start_port for rules in view.rules.values() for rule in rules] == [443]
        opened.report(Report(view.revision, None))
        assert answer.result(5).json()["operation"]["state"] == "success"


REQUESTS = [("GET", FEED, b""), ("PUT", INVENTORY, encode_claim(claim_of("web"))), ("POST", COUNTERS, b"{}")]


@pytest.mark.parametrize(("method", "target", "body"), REQUESTS)
def test_a_request_that_no_known_host_signed_is_refused(server, private_key, method, target, body):
    stranger = bytes(32)
    refused = [
        send(server, stranger, method, target, body),
        send(server, private_key, method, target, body, host=HostName("h9")),
        send(server, private_key, method, target, body, ahead_s=-61),
        send(server, private_key, method, target, body, ahead_s=4000),
    ]
    with unix_client(server) as client:
        refused.append(client.request(method, target, content=body))
        signed = server.sign(method, target, body)  # an API key is no host
        refused.append(client.request(method, target, content=body, headers={"Authorization": signed}))
    assert [answer.status_code for answer in refused] == [401] * 6


def test_a_hosts_signature_is_no_api_key(server, private_key):
    assert send(server, private_key, "GET", "/v2/security-group").status_code == 403


@pytest.mark.parametrize(("target", "method"), [(INVENTORY, "PUT"), (COUNTERS, "POST")])
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"format": 1}', b"\xff", b"[" * 100_000])
def test_a_document_that_is_not_of_the_protocol_is_refused(server, private_key, target, method, body):
    answer = send(server, private_key, method, target, body)
    assert answer.status_code == 400
    assert answer.json()["message"]


@pytest.mark.parametrize(("found", "older"), [(2, "agent"), (4, "server")])
def test_an_agent_of_another_format_is_told_which_side_to_upgrade(server, private_key, found, older):
    words = f"the agent speaks format {found}, this server 3: upgrade the {older}"
    for method, target, body in (
        ("PUT", INVENTORY, encode_claim(claim_of("web"))),
        ("POST", COUNTERS, encode_counts(())),
        ("POST", FLOWS, encode_flow_report(FlowReport(()))),
    ):
        answer = send(server, private_key, method, target, body.replace(b'"format":3', b'"format":%d' % found))
        assert answer.status_code == 400
        assert words in answer.json()["message"]
    refused = ask_for_feed(server, private_key, f"format={found}")
    assert refused.status_code == 400
    assert words in refused.json()["message"]


def test_what_a_newer_agent_tells_besides_is_passed_over(server, private_key):
    for target, body in ((COUNTERS, encode_counts(())), (FLOWS, encode_flow_report(FlowReport(())))):
        newer = json.dumps(json.loads(body) | {"mood": "good"}).encode()
        assert send(server, private_key, "POST", target, newer).status_code == 204


def test_a_report_of_a_revision_that_was_never_made_counts_as_none(server, private_key):
    with feed(server, private_key) as opened:
        opened.next()
        opened.report(Report(10**6, "trouble"))
        wait_until(lambda: status(server)["h1"]["error"] == "trouble")
        assert status(server)["h1"]["applied"] is None


def test_a_host_that_floods_its_feed_is_heard_at_a_rate_and_with_its_last_word(server, private_key):
    with feed(server, private_key) as opened:
        revision = opened.next().view.revision
        before = decode_report.cache_info().misses
        lines = [encode_report(Report(revision, f"trouble {n}")) + b"\n" for n in range(20_000)]
        opened.socket.sendall(b"".join(lines))
        wait_until(lambda: status(server)["h1"]["error"] == "trouble 19999")
        assert decode_report.cache_info().misses - before < 1000


@pytest.mark.parametrize("said", [b"{}\n", b'{"format": 1}\n', b"\xff\n", b"[" * 100_000])
def test_whoever_sends_no_report_up_the_feed_is_cut_off(server, private_key, said):
    with feed(server, private_key) as opened:
        opened.next()
        with suppress(ConnectionError):  # what is cut off may be so before all of it was sent
            opened.socket.sendall(said)
            assert opened.line() == b""
    assert status(server)["h1"]["applied"] is None


def test_a_feed_that_is_not_asked_for_as_an_upgrade_is_refused_saying_how(server, private_key):
    answer = send(server, private_key, "GET", FEED)
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "ringfence-feed")
    assert "Upgrade: ringfence-feed" in answer.json()["message"]


def test_only_get_is_upgraded(server, private_key):
    with connect(server.unix) as opened:
        opened.sendall(ask(private_key, HOST, method="HEAD"))
        assert b" 426 " in opened.recv(4096)


@pytest.mark.parametrize("query", ["epoch=e1", "epoch=e1&revision=x&hash=0", "epoch=e1&revision=-1&hash=" + "0" * 32])
def test_a_base_that_is_none_is_refused(server, private_key, query):
    assert ask_for_feed(server, private_key, query).status_code == 400


def test_an_agent_that_comes_back_is_sent_what_is_new_and_a_strange_one_the_whole(server, private_key):
    send(server, private_key, "PUT", INVENTORY, encode_claim(claim_of("web")))
    with feed(server, private_key) as opened:
        first = opened.next()
    with open_feed(server.unix, private_key, HOST, reader=opened.reader) as again:
        line = again.line()
        assert b'"changes":[]' in line
        assert again.reader.decode_line(line).view == first.view
    group = server.call("GET", "/security-group").json["security-groups"][0]["id"]
    rule = b'{"flow-direction": "ingress", "protocol": "tcp", "network": "0.0.0.0/0", "start-port": 22}'
    server.call("POST", f"/security-group/{group}/rules", rule)
    with open_feed(server.unix, private_key, HOST, reader=opened.reader) as late:
        line = late.line()
        assert b'"view"' in line
        assert len(late.reader.decode_line(line).view.rules[UUID(group)]) == 1


def test_more_agents_than_there_are_files_for_are_refused_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("ringfence.api.server.SPARE_FILES", raise_file_limit() - 1)
    with running_server(tmp_path) as server:
        key = add_host(server, HOST)
        with feed(server, key) as opened:
            opened.next()
            header = sign_request(key, HOST, "GET", FEED, b"", int(time.time()) + 60)
            asked = {"Authorization": header, "Connection": "upgrade", "Upgrade": "ringfence-feed"}
            with unix_client(server) as client:
                refused = client.get(FEED, headers=asked)
        assert refused.status_code == 503
        assert "limit of open files" in refused.json()["message"]


def test_what_rules_have_allowed_is_shown_by_group_and_of_no_rule_that_the_host_does_not_enforce(server, private_key):
    claimed = send(server, private_key, "PUT", INVENTORY, encode_claim(claim_of("web")))
    assert decode_claimed(claimed.content).accepted
    groups = {one["name"]: one["id"] for one in server.call("GET", "/security-group").json["security-groups"]}
    rule = {"flow-direction": "ingress", "protocol": "tcp", "network": "0.0.0.0/0", "start-port": 22, "end-port": 22}
    server.call("POST", f"/security-group/{groups['default']}/rules", json.dumps(rule).encode())
    [before] = server.admin.get("/admin/v1/counters").json()["counters"]
    assert (before["host"], before["group"], before["judged"], before["last-hit"]) == ("h1", "default", None, None)
    assert before["description"] == "ingress tcp/22 from 0.0.0.0/0"
    known, unknown = UUID(before["rule"]), UUID(int=7)
    counts = encode_counts((RuleCount(known, 5, 1_800_000_000.5, 1_700_000_000.0), RuleCount(unknown, 9, None, 0.0)))
    assert send(server, private_key, "POST", COUNTERS, counts).status_code == 204
    [after] = server.admin.get("/admin/v1/counters?host=h1&group=default").json()["counters"]
    assert (after["judged"], after["last-hit"]) == (5, "2027-01-15T08:00:00+00:00")
    assert after["since"] == "2023-11-14T22:13:20+00:00"
    assert server.admin.get("/admin/v1/counters?group=other").status_code == 404
    assert server.admin.get("/admin/v1/counters?host=h9").status_code == 404
    for told in (b"{}", counts.replace(b'"format":3', b'"format":1'), counts.replace(b",5,", b",-5,"), counts[:-1]):
        assert send(server, private_key, "POST", COUNTERS, told).status_code == 400


def _unused(server, window_s):
    return server.admin.get("/admin/v1/unused", params={"window-s": str(window_s)}).json()["unused"]


def test_a_rule_without_a_hit_is_safe_to_remove_only_when_every_host_counted_it_long_enough(
    server, private_key, capsys
):
    send(server, private_key, "PUT", INVENTORY, encode_claim(claim_of("web")))
    groups = {one["name"]: one["id"] for one in server.call("GET", "/security-group").json["security-groups"]}
    rule = {"flow-direction": "ingress", "protocol": "tcp", "network": "0.0.0.0/0", "start-port": 22}
    server.call("POST", f"/security-group/{groups['default']}/rules", json.dumps(rule).encode())
    [unused] = _unused(server, 60)
    assert (unused["description"], unused["hosts"], unused["silent"]) == (
        "ingress tcp/22 from 0.0.0.0/0",
        [],
        ["h1"],
    )
    assert (unused["since-at"], unused["safe"]) == (None, False)
    assert abs(unused["created-at"] - time.time()) < 60
    since = time.time() - 7200
    send(server, private_key, "POST", COUNTERS, encode_counts((RuleCount(UUID(unused["rule"]), 0, None, since),)))
    [counted] = _unused(server, 3600)
    assert (counted["hosts"], counted["silent"], counted["since-at"]) == (["h1"], [], int(since))
    assert [_unused(server, window)[0]["safe"] for window in (3600, 86400)] == [True, False]
    assert server.admin.get("/admin/v1/unused").status_code == 400
    assert run(["unused", "--window", "1h", "--data", str(server.folder)]) == 0
    shown = re.sub(
        r"rule \S+,|\d{4}-\d\d-\d\d \d\d:\d\d",
        lambda it: "rule …," if it[0][0] == "r" else "…",
        capsys.readouterr().out,
    )
    assert f"```\n{shown}```" in PAGE
    hit = RuleCount(UUID(unused["rule"]), 1, time.time(), since)
    send(server, private_key, "POST", COUNTERS, encode_counts((hit,)))
    assert _unused(server, 60) == []


def test_allowed_connections_are_shown_apart_and_push_out_nothing_refused(server, private_key):
    rule = uuid4()
    refused = FlowRecord(1.0, "veth1", None, Direction.INGRESS, "drop", "closed port", 6, "10.0.0.2", "10.0.0.1")
    allowed = msgspec.structs.replace(refused, verdict="allow", reason="rule", rule=rule)
    many = msgspec.structs.replace(allowed, direction=None, source=None, destination=None, protocol=None, packets=9)
    told = encode_flow_report(FlowReport((refused, allowed, many)))
    assert send(server, private_key, "POST", FLOWS, told).status_code == 204
    shown = {name: server.admin.get(f"/admin/v1/{name}").json()[name] for name in ("drops", "flows")}
    assert [one["verdict"] for one in shown["drops"]] == ["drop"]
    assert [one["rule"] for one in shown["flows"]] == [None, str(rule), str(rule)]
    assert [(one["packets"], one["source"]) for one in shown["flows"][1:]] == [(1, "10.0.0.2"), (9, None)]


def test_refused_packets_that_a_host_tells_of_are_shown_with_names_and_by_host(server, private_key):
    claimed = send(server, private_key, "PUT", INVENTORY, encode_claim(claim_of("web", "db")))
    [(_, web), _] = decode_claimed(claimed.content).accepted
    record = FlowRecord(
        1_800_000_000.25,
        "veth1",
        web,
        Direction.INGRESS,
        "drop",
        "default ingress",
        6,
        "10.0.0.2",
        "10.0.0.1",
        4000,
        22,
    )
    told = encode_flow_report(FlowReport((record, record), untold=4))
    assert send(server, private_key, "POST", FLOWS, told).status_code == 204
    answer = server.admin.get("/admin/v1/drops").json()
    assert answer["last"] == 2
    first = answer["drops"][0]
    assert first == {
        "time": "2027-01-15T08:00:00.250+00:00",
        "host": "h1",
        "interface": "veth1",
        "instance": "web",
        "instance-id": str(web),
        "direction": "ingress",
        "verdict": "drop",
        "reason": "default ingress",
        "rule": None,
        "packets": 1,
        "protocol": "tcp",
        "source": "10.0.0.2:4000",
        "destination": "10.0.0.1:22",
        "icmp-type": None,
        "icmp-code": None,
        "peer": "db",
        "peer-groups": [],
        "untold-before": 4,
    }
    add_host(server, "h2")
    shown = {query: server.admin.get(f"/admin/v1/drops?{query}") for query in ("after=1", "host=h2", "after=2&host=h1")}
    assert [len(one.json()["drops"]) for one in shown.values()] == [1, 0, 0]
    assert shown["after=2&host=h1"].json()["last"] == 2
    for query, status in (("host=h9", 404), ("after=x", 400), ("after=-1", 400)):
        assert server.admin.get(f"/admin/v1/drops?{query}").status_code == status
    server.admin.delete("/admin/v1/hosts/h1")
    assert server.admin.get("/admin/v1/drops").json()["drops"] == []


def test_open_feeds_do_not_keep_a_server_from_ending(tmp_path):
    with ExitStack() as stack:
        with running_server(tmp_path) as server:
            opened = stack.enter_context(feed(server, add_host(server, HOST)))
            opened.next()
            started = time.monotonic()
        assert time.monotonic() - started < 3
        assert opened.line() == b""


def test_an_operation_is_shown_host_by_host(server, private_key):
    """One applies it, one fails, one is silent; a host that was removed before is not named."""
    keys = {"h1": private_key, **{name: add_host(server, name) for name in ("h2", "h3", "h4")}}
    group = server.call("GET", "/security-group").json["security-groups"][0]["id"]
    for number, (name, key) in enumerate(keys.items(), start=1):
        one = ClaimInstances((InstanceClaim("web", None, (_interface(number),)),))
        send(server, key, "PUT", INVENTORY, encode_claim(one), host=HostName(name))
    server.admin.delete("/admin/v1/hosts/h4")
    with ExitStack() as stack:
        feeds = [stack.enter_context(feed(server, keys[name], HostName(name))) for name in ("h1", "h2", "h3")]
        wanted = [opened.next().view.revision for opened in feeds]
        rule = b'{"flow-direction": "ingress", "protocol": "tcp", "network": "0.0.0.0/0", "start-port": 22}'
        made = server.call("POST", f"/security-group/{group}/rules", rule).json
        feeds[0].report(Report(feeds[0].next().view.revision, None))
        feeds[1].next()
        feeds[1].report(Report(wanted[1], "nft: no space left on device"))
        target = f"/admin/v1/operations/{made['id']}"
        wait_until(
            lambda: [one["state"] for one in server.admin.get(target).json()["hosts"]][:2] == ["applied", "failed"]
        )
        shown = server.admin.get(target).json()
    assert [one["state"] for one in shown["hosts"]] == ["applied", "failed", "silent"]
    assert shown["hosts"][0]["after-ms"] >= 0
    assert shown["hosts"][1]["reason"] == "nft: no space left on device"
    newest = server.admin.get("/admin/v1/operations?last=1").json()["operations"]
    assert [(one["id"], one["touched"]) for one in newest] == [(made["id"], 3)]
    assert server.admin.get("/admin/v1/operations/nonsense").status_code == 400
    assert server.admin.get(f"/admin/v1/operations/{UUID(int=1)}").status_code == 404


def test_a_host_goes_on_converging_after_an_operations_end(tmp_path):
    with running_server(tmp_path, Settings(settle_wait_s=0.0, operation_timeout_s=0.2)) as server:
        key = add_host(server, HOST)
        send(server, key, "PUT", INVENTORY, encode_claim(claim_of("web")))
        group = server.call("GET", "/security-group").json["security-groups"][0]["id"]
        with feed(server, key) as opened:
            opened.next()
            rule = b'{"flow-direction": "ingress", "protocol": "tcp", "network": "0.0.0.0/0", "start-port": 22}'
            made = server.call("POST", f"/security-group/{group}/rules", rule).json
            wait_until(lambda: server.call("GET", f"/operation/{made['id']}").json["state"] == "timeout")
            shown = server.admin.get(f"/admin/v1/operations/{made['id']}").json()
            assert [one["state"] for one in shown["hosts"]] == ["silent"]
            opened.report(Report(opened.next().view.revision, None))

            def standing():
                found = server.admin.get(f"/admin/v1/operations/{made['id']}").json()
                return found["state"], [one["state"] for one in found["hosts"]]

            wait_until(lambda: standing() == ("timeout", ["applied"]))
