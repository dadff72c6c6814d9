"""`ringfence suggest`, as docs/suggest.md shows it, and from what a host told the server."""

import json
import re
from pathlib import Path

import pytest

from contract.running import running_server
from ringfence.cli.app import run

PAGE = (Path(__file__).parents[2] / "docs" / "suggest.md").read_text(encoding="utf-8")
[LOG] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
[(LINE, WANTED)] = re.findall(r"```console\n\$ ringfence ([^\n]*)\n(.*?)```", PAGE, re.DOTALL)
WEB = "11111111-1111-4111-8111-111111111111"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("suggest")) as running:
        web = {"name": "web-1", "id": WEB, "addresses": ["192.0.2.10"]}
        assert running.admin.post("/admin/v1/instances", json=web).status_code == 200
        made = running.call("POST", "/security-group", b'{"name": "app"}').json["reference"]["id"]
        for number in (1, 2):
            instance = {"name": f"app-{number}", "addresses": [f"10.0.0.{number}"]}
            id_ = running.admin.post("/admin/v1/instances", json=instance).json()["id"]
            body = json.dumps({"instance": {"id": id_}}).encode()
            assert running.call("PUT", f"/security-group/{made}:attach", body).status == 200
        yield running


@pytest.fixture
def log(tmp_path, monkeypatch, server):
    monkeypatch.setenv("RINGFENCE_DATA", str(server.folder))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "flows.jsonl"
    file.write_text(LOG, encoding="utf-8")
    return file


@pytest.mark.usefixtures("log")
def test_the_page_shows_what_the_command_prints(capsys):
    assert run(LINE.split()) == 0
    shown = capsys.readouterr()
    assert shown.err + shown.out == WANTED


def test_what_is_suggested_is_a_policy_file_that_the_offline_questions_read(log, capsys):
    assert run(LINE.split()) == 0
    policy = log.with_name("policy.yaml")
    others = "  app:\n  default:\n"
    policy.write_text(capsys.readouterr().out.replace("groups:\n", f"groups:\n{others}", 1), encoding="utf-8")
    assert run(["reach", "--to", "web-1", "tcp/443", "--file", str(policy)]) == 0


def test_a_line_that_is_none_is_told_by_its_number(log, capsys):
    log.write_text(LOG + "{}\n", encoding="utf-8")
    assert run(LINE.split()) == 2
    assert "flows.jsonl, line 6: no line of a flow log" in capsys.readouterr().err


@pytest.mark.usefixtures("log")
def test_without_a_log_it_is_what_hosts_told(server, capsys):
    assert run(["suggest", "app-1"]) == 0
    assert "nothing was seen that a rule of app-1 would have to allow" in capsys.readouterr().err
    assert server.admin.get("/admin/v1/instances/web-2/suggestion").status_code == 404
