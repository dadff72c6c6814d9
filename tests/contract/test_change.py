"""Changes of several edits on the operator's socket: one decision, one revision, one operation, one line of history."""

import pytest

from contract.running import running_server


@pytest.fixture
def server(tmp_path):
    with running_server(tmp_path) as running:
        yield running


def _revision(server):
    return server.admin.get("/admin/v1/history").json()["lines"][-1]["revision_after"]


OPEN = [
    {"edit": "create-group", "name": "web"},
    {"edit": "add-rule", "group": "web", "service": "tcp/443", "from": "web"},
    {"edit": "attach", "group": "web", "instance": "vm"},
]


def test_a_change_is_one_revision_and_one_line_that_says_what_it_did(server):
    server.admin.post("/admin/v1/instances", json={"name": "vm"})
    before = _revision(server)
    answer = server.admin.post("/admin/v1/change", json={"edits": OPEN}).json()
    group, rule, _ = answer["ids"]
    assert answer["operation"]["state"] == "success"
    assert answer["did"] == [
        "group web created",
        f"group web: rule {rule} added: ingress tcp/443 from group web",
        "instance vm wears group web",
    ]
    line = server.admin.get("/admin/v1/history").json()["lines"][-1]
    assert (line["action"], line["subject"]) == ("Change", "; ".join(answer["did"]))
    assert (line["revision_before"], line["revision_after"]) == (before, before + 1)
    shown = server.call("GET", f"/security-group/{group}").json
    assert [one["id"] for one in shown["rules"]] == [rule]


def test_a_change_with_one_fault_changes_nothing_and_names_the_edit(server):
    before = _revision(server)
    edits = [OPEN[0], OPEN[1], {"edit": "create-group", "name": "web"}]
    answer = server.admin.post("/admin/v1/change", json={"edits": edits})
    assert (answer.status_code, answer.json()["message"]) == (
        409,
        "$.edits[2]: a security group named web already exists",
    )
    assert _revision(server) == before
    assert [group["name"] for group in server.call("GET", "/security-group").json["security-groups"]] == ["default"]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(server):
    before = _revision(server)
    answer = server.admin.post("/admin/v1/change", json={"edits": OPEN[:2], "dry-run": True}).json()
    assert answer["dry-run"] is True
    assert [line.partition(": ")[0] for line in answer["would"]] == ["group web created", "group web"]
    assert _revision(server) == before
    again = server.admin.post("/admin/v1/change", json={"edits": [OPEN[0], OPEN[0]], "dry-run": True})
    assert again.status_code == 409  # a dry run is refused for what the change would be


def test_a_change_that_is_so_already_makes_no_revision(server):
    server.admin.post("/admin/v1/change", json={"edits": OPEN[:2]})
    before = _revision(server)
    answer = server.admin.post("/admin/v1/change", json={"edits": OPEN[1:2]}).json()
    assert (answer["did"], answer["operation"]["revision"], _revision(server)) == ([], None, before)


def test_a_change_is_for_the_organisation_that_is_named(server):
    server.admin.post("/admin/v1/organisations", json={"name": "acme"})
    query = {"organisation": "acme"}
    assert server.admin.post("/admin/v1/change", params=query, json={"edits": OPEN[:1]}).status_code == 200
    assert server.admin.post("/admin/v1/change", json={"edits": OPEN[1:2]}).status_code == 404
    groups = server.call("GET", "/security-group").json["security-groups"]
    assert [group["name"] for group in groups] == ["default"]


def test_a_change_on_trial_says_until_when_and_is_confirmed_by_its_revision(server):
    answer = server.admin.post("/admin/v1/change", json={"edits": OPEN[:2], "confirm-s": 3600}).json()
    trial = answer["trial"]
    assert trial["revision"] == answer["operation"]["revision"]
    assert server.admin.get("/admin/v1/trials").json() == {"trials": [trial]}
    assert server.admin.post("/admin/v1/trials", json={"revision": 1}).status_code == 404
    assert server.admin.post("/admin/v1/trials", json={"revision": trial["revision"]}).status_code == 200
    assert server.admin.get("/admin/v1/trials").json() == {"trials": []}
    assert server.admin.post("/admin/v1/change", json={"edits": OPEN[:1], "confirm-s": 0}).status_code == 400


def test_the_way_back_is_shown_and_gone(server):
    start = _revision(server)
    server.admin.post("/admin/v1/change", json={"edits": OPEN[:2]})
    shown = server.admin.get("/admin/v1/diff", params={"from": start}).json()
    assert (shown["to"], shown["changes"][0]) == (start + 1, "group web created")
    wanted = {"revision": start}
    would = server.admin.post("/admin/v1/rollback", json={**wanted, "dry-run": True}).json()["would"]
    answer = server.admin.post("/admin/v1/rollback", json=wanted).json()
    assert answer["did"] == would
    assert would[-1] == "group web deleted"
    assert server.admin.get("/admin/v1/diff", params={"from": start}).json()["changes"] == []
    assert server.admin.get("/admin/v1/diff").status_code == 400
    assert server.admin.get("/admin/v1/diff", params={"from": 99}).status_code == 404
