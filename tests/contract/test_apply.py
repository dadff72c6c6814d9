"""`ringfence apply` and `export` beside a running server, as docs/policy-file.md shows them."""

import json
import re
from pathlib import Path

import pytest

from contract.running import running_server
from contract.test_pages import examples, without_ids
from ringfence.cli.app import run
from waiting import wait_until

POLICY, EXAMPLES = examples("policy-file.md")


@pytest.fixture
def ringfence(tmp_path, capsys, monkeypatch):
    """Runs one command line where the policy of the page lies, beside a server; status, stdout and stderr come back."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").write_text(POLICY, encoding="utf-8")
    with running_server(tmp_path / "server") as server:
        monkeypatch.setenv("RINGFENCE_DATA", str(server.folder))
        for name, address in (("web-1", "192.0.2.10"), ("db-1", "192.0.2.20")):
            server.admin.post("/admin/v1/instances", json={"name": name, "addresses": [address]})

        def call(*arguments):
            status = run(arguments)
            shown = capsys.readouterr()
            return status, shown.out, shown.err

        call.server = server
        yield call


def test_the_page_shows_what_the_commands_print(ringfence):
    for line, wanted in (one for one in EXAMPLES if one[0] == "apply policy.yaml --prune"):
        status, out, err = ringfence(*line.split())
        assert (status, without_ids(out + err)) == (0, wanted)


def test_nothing_is_applied_after_which_an_assertion_of_the_file_does_not_hold(ringfence, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "policy-file.md").read_text(encoding="utf-8")
    (wanted,) = re.findall(r"```console\n\$ ringfence apply policy.yaml\n(.*?)```", page, re.DOTALL)
    (claim,) = re.findall(r"```yaml\n(assertions:.*?)```", page, re.DOTALL)
    ringfence("apply", "policy.yaml", "--prune")
    (tmp_path / "policy.yaml").write_text(POLICY + claim, encoding="utf-8")
    status, out, err = ringfence("apply", "policy.yaml")
    assert (status, out + err) == (5, wanted)
    (tmp_path / "policy.yaml").write_text(POLICY.replace("ports: 443", "ports: 444") + claim, encoding="utf-8")
    before = _revision(ringfence)
    assert [ringfence("apply", "policy.yaml", *more)[0] for more in ([], ["--dry-run"], ["-o", "json"])] == [5, 5, 5]
    body = {"policy": {"version": 1, "groups": {"new": {}}, "assertions": ["internet -> web tcp/443 deny"]}}
    refused = ringfence.server.admin.post("/admin/v1/apply", json=body)
    said = "nothing is changed, for after it the assertion 'internet -> web tcp/443 deny' would not hold: 1.0.0.0 (unm"
    assert (refused.status_code, refused.json()["message"][: len(said)]) == (409, said)
    assert _revision(ringfence) == before
    status, out, _ = ringfence("apply", "policy.yaml", "--accept-failing")
    assert (status, _revision(ringfence)) == (0, before + 1)
    assert "fails   internet -> db tcp/5432 allow\n" in out
    body["policy"]["assertions"] = ["web -> db tcp/5432 allow"]
    assert ringfence.server.admin.post("/admin/v1/apply", json=body).status_code == 200


def _revision(ringfence):
    return ringfence.server.admin.get("/admin/v1/history").json()["lines"][-1]["revision_after"]


def test_an_apply_is_shown_then_made_in_one_revision_and_a_second_time_there_is_nothing_to_do(ringfence):
    before = _revision(ringfence)
    status, out, err = ringfence("apply", "policy.yaml", "--dry-run")
    assert (status, _revision(ringfence)) == (0, before)
    assert "group web created\n" in out
    assert "nothing was changed" in err
    status, shown, err = ringfence("apply", "policy.yaml", "--prune")
    assert (status, _revision(ringfence)) == (0, before + 1)
    assert "instance web-1 wears group default no more" in shown
    assert " success" in err
    status, out, err = ringfence("apply", "policy.yaml", "--prune")
    assert (status, out, _revision(ringfence)) == (0, "", before + 1)
    assert "nothing to do" in err
    exported = ringfence("export")[1].replace("default: {description: Default Security Group}", "default: {}")
    assert exported == ringfence("export", "--file", "policy.yaml")[1]


def test_without_prune_nothing_ends_and_what_stays_is_told(ringfence, tmp_path):
    ringfence("apply", "policy.yaml", "--prune")
    (tmp_path / "less.yaml").write_text("version: 1\ngroups: {web: {}}\n", encoding="utf-8")
    before = ringfence("export")[1]
    status, out, err = ringfence("apply", "less.yaml")
    assert (status, out) == (0, "")
    assert err.count("group web keeps") == 2
    assert "group db stays" in err
    assert ringfence("export")[1] == before
    status, _, err = ringfence("apply", "less.yaml", "--prune")
    assert (status, "in use by instance db-1" in err) == (1, True)  # which the file does not name


def test_a_refusal_of_the_server_names_the_line_of_the_file(ringfence, tmp_path):
    text = POLICY.replace("from: group web", "from: group wed")
    (tmp_path / "policy.yaml").write_text(text, encoding="utf-8")
    status, _, err = ringfence("apply", "policy.yaml")
    line = 1 + text[: text.index("group wed")].count("\n")
    assert status == 1
    assert f"policy.yaml, line {line}: groups.db.ingress[0].from: there is no group wed; did you mean web?" in err
    refused = POLICY.replace("protocol: icmp, type: 8, code: 0", "protocol: all")
    (tmp_path / "policy.yaml").write_text(refused, encoding="utf-8")
    status, _, err = ringfence("apply", "policy.yaml")
    line = 1 + refused[: refused.index("protocol: all")].count("\n")
    assert f"policy.yaml, line {line}: groups.web.ingress[1].protocol: protocol all is not offered" in err


def test_what_was_shown_is_done_or_nothing(ringfence):
    body = {"policy": {"version": 1, "groups": {"new": {}}}}
    shown = ringfence.server.admin.post("/admin/v1/apply", json={**body, "dry-run": True}).json()
    ringfence.server.admin.post("/admin/v1/change", json={"edits": [{"edit": "create-group", "name": "other"}]})
    late = ringfence.server.admin.post("/admin/v1/apply", json={**body, "revision": shown["revision"]})
    assert (late.status_code, "has changed since" in late.json()["message"]) == (409, True)
    now = ringfence.server.admin.post("/admin/v1/apply", json=body).json()
    assert (now["did"], now["kept"]) == (["group new created"], ["group other stays"])


def test_what_is_asked_of_an_exported_account_is_answered_as_its_server_does(ringfence, tmp_path):
    ringfence("apply", "policy.yaml", "--prune")
    (tmp_path / "exported.yaml").write_text(ringfence("export")[1], encoding="utf-8")
    for question in (["reach", "-o", "json"], ["reach", "--from", "internet", "-o", "json"]):
        asked, offline = (_passing(ringfence(*question, *more)[1]) for more in ([], ["--file", "exported.yaml"]))
        assert asked
        assert asked == offline
    asked, offline = (
        without_ids(ringfence("explain", "web-1", "db-1", "tcp/22", *more)[1])
        for more in ([], ["--file", "exported.yaml"])
    )
    assert asked.startswith(offline)  # it knows who enforces besides


def _passing(answer):
    """Who reaches whom on what; the order follows ids, which differ."""
    return sorted((row["from"], row["to"], row["services"]) for row in json.loads(answer))


def test_an_apply_on_trial_is_undone_whole_unless_it_is_confirmed(ringfence):
    before = ringfence("export")[1]
    _, _, err = ringfence("apply", "policy.yaml", "--prune", "--confirm", "3s")
    assert "unless you say: ringfence confirm" in err
    assert ringfence("export")[1] != before
    wait_until(lambda: ringfence("export")[1] == before, 20)
    ringfence("apply", "policy.yaml", "--prune", "--confirm", "1h")
    assert ringfence("confirm", str(_revision(ringfence)))[0] == 0


def test_the_answer_is_json_for_scripts(ringfence):
    status, out, err = ringfence("apply", "policy.yaml", "-o", "json")
    answer = json.loads(out)
    assert (status, answer["operation"]["state"], err) == (0, "success", "")
    assert "group db created" in answer["did"]
