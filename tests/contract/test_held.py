"""Assertions that a server holds: set by its operator, kept by every change, from whatever client."""

import json
from pathlib import Path

import pytest

from contract.running import running_server
from ringfence.cli.app import run

PAGE = (Path(__file__).parents[2] / "docs" / "assertions.md").read_text(encoding="utf-8")
MUST = ["any -> db tcp/22 deny", "web -> db tcp/5432 allow"]
SSH = {"flow-direction": "ingress", "protocol": "tcp", "start-port": 22, "network": "203.0.113.0/24"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """web-1 wears web, which may come to db on tcp/5432; db-1 wears db."""
    with running_server(tmp_path_factory.mktemp("held")) as running:
        edits = [
            {"edit": "create-group", "name": "web"},
            {"edit": "create-group", "name": "db"},
            {"edit": "add-rule", "group": "db", "service": "tcp/5432", "from": "web"},
        ]
        for number, name in enumerate(("web-1", "db-1"), start=1):
            running.admin.post("/admin/v1/instances", json={"name": name, "addresses": [f"192.0.2.{number}"]})
            edits.append({"edit": "attach", "group": name[:-2], "instance": name})
        assert running.admin.post("/admin/v1/change", json={"edits": edits}).status_code == 200
        yield running


@pytest.fixture
def held(server):
    assert _hold(server, *MUST).status_code == 200
    yield {one["name"]: one["id"] for one in server.call("GET", "/security-group").json["security-groups"]}
    assert _hold(server).json() == {"assertions": []}


def _hold(server, *assertions, **more):
    return server.admin.put("/admin/v1/assertions", json={"assertions": assertions, **more})


def _add_rule(server, group, rule):
    return server.call("POST", f"/security-group/{group}/rules", json.dumps(rule).encode())


def _rules(server, group):
    return server.call("GET", f"/security-group/{group}").json["rules"]


def test_a_client_that_would_break_one_is_told_which_and_by_which_packet_and_nothing_is_changed(server, held):
    before = _rules(server, held["db"])
    refused = _add_rule(server, held["db"], SSH)
    assert refused.status == 409
    said = (
        "the assertion 'any -> db tcp/22 deny' must hold, and after this it would not: "
        "203.0.113.0 (unmanaged) -> db-1 (192.0.2.2) tcp/22 passes; ingress of db-1 (wears "
    )
    assert refused.json["message"].startswith(said)
    assert _rules(server, held["db"]) == before
    assert _add_rule(server, held["web"], SSH).status == 200
    assert _add_rule(server, held["db"], SSH | {"start-port": 23}).status == 200


def test_what_must_pass_may_not_be_taken_away(server, held):
    [rule] = [one for one in _rules(server, held["db"]) if one["start-port"] == 5432]
    refused = server.call("DELETE", f"/security-group/{held['db']}/rules/{rule['id']}")
    assert (refused.status, "'web -> db tcp/5432 allow'" in refused.json["message"]) == (409, True)
    egress = {"flow-direction": "egress", "protocol": "udp", "start-port": 53, "network": "0.0.0.0/0"}
    refused = _add_rule(server, held["web"], egress)  # the first of its kind closes all else
    assert (refused.status, "egress of web-1" in refused.json["message"]) == (409, True)


@pytest.mark.usefixtures("held")
def test_a_dry_run_is_refused_as_the_change_would_be(server):
    edits = [
        {"edit": "add-rule", "group": "web", "service": "tcp/22", "from": "0.0.0.0/0"},
        {"edit": "attach", "group": "db", "instance": "web-1"},
    ]
    answer = server.admin.post("/admin/v1/change", json={"edits": edits, "dry-run": True})
    assert (answer.status_code, "'any -> db tcp/22 deny'" in answer.json()["message"]) == (409, True)
    assert server.admin.post("/admin/v1/change", json={"edits": edits[:1], "dry-run": True}).status_code == 200


@pytest.mark.usefixtures("held")
def test_a_group_that_one_names_may_not_go_and_its_name_not_become_unclear(server):
    made = server.call("POST", "/security-group", b'{"name": "ops"}').json["reference"]["id"]
    assert _hold(server, "any -> ops tcp/22 deny").status_code == 200
    refused = server.call("DELETE", f"/security-group/{made}")
    assert (refused.status, "'any -> ops tcp/22 deny'" in refused.json["message"]) == (409, True)
    assert _hold(server, "any -> web-1 udp deny").status_code == 200
    unclear = server.admin.post("/admin/v1/change", json={"edits": [{"edit": "create-group", "name": "web-1"}]})
    assert (unclear.status_code, "is ambiguous" in unclear.json()["message"]) == (409, True)
    assert server.call("DELETE", f"/security-group/{made}").status == 200


def test_one_that_is_wrong_already_is_held_only_if_that_is_accepted_and_may_not_get_worse(server, held):
    wrong = "web -> db tcp deny"
    refused = _hold(server, wrong)
    assert (refused.status_code, "nothing is set" in refused.json()["message"]) == (409, True)
    assert server.admin.get("/admin/v1/assertions").json() == {"assertions": MUST}
    assert _hold(server, wrong, **{"accept-failing": True}).status_code == 200
    within = {"flow-direction": "ingress", "protocol": "tcp", "start-port": 5432, "network": "192.0.2.0/24"}
    assert _add_rule(server, held["db"], within).status == 200
    assert _add_rule(server, held["db"], within | {"start-port": 5433}).status == 409


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize(
    ("assertion", "status", "said"),
    [("any -> dbb tcp/22 deny", 404, "did you mean db"), ("any -> db tcp/22 dent", 400, "did you mean deny")],
)
def test_what_is_no_assertion_or_names_nobody_is_not_set(server, assertion, status, said):
    answer = _hold(server, *MUST, assertion)
    assert (answer.status_code, answer.json()["field"]) == (status, "$.assertions[2]")
    assert said in answer.json()["message"]


@pytest.mark.usefixtures("held")
def test_another_organisation_is_not_bound_by_it(server):
    server.admin.post("/admin/v1/organisations", json={"name": "acme"})
    edits = [
        {"edit": "create-group", "name": "db"},
        {"edit": "add-rule", "group": "db", "service": "tcp/22", "from": "0.0.0.0/0"},
    ]
    answer = server.admin.post("/admin/v1/change", params={"organisation": "acme"}, json={"edits": edits})
    assert answer.status_code == 200
    assert server.admin.get("/admin/v1/assertions", params={"organisation": "acme"}).json() == {"assertions": []}


def test_the_command_line_sets_lists_checks_and_removes(server, tmp_path, capsys):
    file, data = tmp_path / "must.yaml", ["--data", str(server.folder)]
    file.write_text(f"version: 1\nassertions: {json.dumps(MUST)}\n", encoding="utf-8")
    assert run(["assertion", "set", str(file), *data]) == 0
    assert f"$ ringfence assertion set must.yaml\n{capsys.readouterr().err}" in PAGE
    assert run(["assertion", "list", *data]) == 0
    assert capsys.readouterr().out.splitlines() == ["assertion", *MUST]
    assert run(["check", *data]) == 0
    assert capsys.readouterr().out == "".join(f"holds  {one}\n" for one in MUST)
    file.write_text("version: 1\nassertions:\n- any -> db tcp/22 deny\n- any -> webb udp deny\n", encoding="utf-8")
    assert run(["assertion", "set", str(file), *data]) == 2
    assert "must.yaml, line 4: assertions[1]" in capsys.readouterr().err
    assert run(["assertion", "remove", *data]) == 0
    assert run(["check", *data]) == 0
    assert "no assertion is held" in capsys.readouterr().err
