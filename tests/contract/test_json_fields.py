"""What ``-o json`` prints is told, field by field, in the command's section of docs/reference/cli.md."""

import json
import re
from pathlib import Path

import pytest

from contract.running import running_server
from contract.test_observed import add_instances, tell
from ringfence.cli.app import run

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ringfence ([a-z -]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
AS_ELSEWHERE = {"plan": ("check", "lint"), "apply": ("plan", "check", "lint"), "observed web --log": ("host drops",)}
POLICY = """\
version: 1
groups:
  web: {ingress: [{protocol: tcp, ports: 443, from: 0.0.0.0/0}, {protocol: tcp, ports: 22, from: 0.0.0.0/0}]}
  app: {egress: [{protocol: tcp, ports: 8080, to: group web}]}
instances: {web-1: {groups: [web]}, app-1: {groups: [app]}}
assertions: [internet -> web tcp/22 deny, app -> web tcp/443 deny]
"""
QUESTIONS = (
    "plan policy.yaml",
    "apply policy.yaml --dry-run",
    "explain app-1 web-1 tcp/443",
    "reach --to web",
    "check policy.yaml",
    "lint",
    "unused",
    "observed web",
    "observed web --log",
    "suggest web-1",
    "diff 1",
    "host drops",
    "host status",
    "instance list",
    "rule list",
)


def _fields(value):
    """Every name in a JSON value, at any depth."""
    if isinstance(value, list):
        return {name for one in value for name in _fields(one)}
    return {*value, *(name for one in value.values() for name in _fields(one))} if isinstance(value, dict) else set()


@pytest.mark.full
def test_every_field_that_is_printed_is_told_of(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RINGFENCE_DATA", str(tmp_path / "server"))
    Path("policy.yaml").write_text(POLICY, encoding="utf-8")
    with running_server(tmp_path / "server") as server:
        add_instances(server)
        assert run(["apply", "policy.yaml", "--accept-failing", "-o", "json"]) == 0
        tell(server)  # afterwards, because a change waits for a host that was heard
        capsys.readouterr()
        assert _untold(capsys) == {}


def _untold(capsys):
    """For each question the fields of its answer that no section tells of."""
    untold = {}
    for line in QUESTIONS:
        assert run([*line.split(), "-o", "json"]) in (0, 1, 5), line
        verb = next(one for one in sorted(SECTIONS, key=len, reverse=True) if line.startswith(one))
        text = SECTIONS[verb] + "".join(SECTIONS[one] for one in AS_ELSEWHERE.get(line, AS_ELSEWHERE.get(verb, ())))
        fields = _fields(json.loads(capsys.readouterr().out))
        assert fields, line
        untold[line] = {field for field in fields if f"`{field}`" not in text}
    return {line: fields for line, fields in untold.items() if fields}
