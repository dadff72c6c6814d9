"""`ringfence lint`: as docs/lint.md shows it, of a file, and against a running server."""

import json
import re
from pathlib import Path

import pytest

from contract.running import running_server
from ringfence.cli.app import run
from ringfence.policy.insight.lint import Code

PAGE = (Path(__file__).parents[2] / "docs" / "lint.md").read_text(encoding="utf-8")
POLICY = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]
EXAMPLES = re.findall(r"```console\n\$ ringfence (lint [^\n]*)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def policy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(POLICY, encoding="utf-8")


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(("line", "wanted"), EXAMPLES)
def test_the_page_shows_what_the_command_prints(capsys, line, wanted):
    assert run(line.split()) == 1
    shown = capsys.readouterr()
    assert re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "…", shown.out + shown.err) == wanted


def test_the_page_has_every_code():
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)) == {code.value for code in Code}


@pytest.mark.usefixtures("policy")
def test_the_exit_status_is_by_severity():
    line = ["lint", "--file", "policy.yaml", "--fail-on"]
    assert [run([*line, level]) for level in ("error", "warning", "note", "never")] == [1, 1, 1, 0]
    few = POLICY.replace(
        "0.0.0.0/0}\n    - {protocol: tcp, ports: 22, from: 203",
        "198.51.100.0/24}\n    - {protocol: tcp, ports: 22, from: 203",
    )
    Path("policy.yaml").write_text(few, encoding="utf-8")
    assert [run([*line, level]) for level in ("error", "warning", "note")] == [0, 1, 1]


def test_a_server_is_asked_and_an_organisation_alone(tmp_path, capsys):
    with running_server(tmp_path) as server:
        data = ["--data", str(server.folder), "-o", "json"]
        assert run(["lint", *data]) == 0
        assert json.loads(capsys.readouterr().out) == []
        server.admin.post("/admin/v1/organisations", json={"name": "acme"})
        edits = [
            {"edit": "create-group", "name": "web"},
            {"edit": "add-rule", "group": "web", "service": "tcp/22", "from": "0.0.0.0/0"},
        ]
        answer = server.admin.post("/admin/v1/change", params={"organisation": "acme"}, json={"edits": edits})
        assert run(["lint", *data]) == 1
        found = json.loads(capsys.readouterr().out)
        assert [(one["severity"], one["code"], one["group"]) for one in found] == [
            ("warning", "open-management", "web"),
            ("note", "unworn", "web"),
        ]
        assert found[0]["rule"] == answer.json()["ids"][1]
        assert run(["lint", *data, "--organisation", "default"]) == 0
