"""`ringfence check`: as docs/assertions.md shows it, of a file, and against a running server."""

import json
import re
from pathlib import Path

import pytest

from contract.running import running_server
from ringfence.cli.app import run

PAGE = (Path(__file__).parents[2] / "docs" / "assertions.md").read_text(encoding="utf-8")
POLICY = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]
EXAMPLES = re.findall(r"```console\n\$ ringfence (check [^\n]*)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with two instances that wear `default`, which everybody may ask for a page."""
    with running_server(tmp_path_factory.mktemp("check")) as running:
        [group] = running.call("GET", "/security-group").json["security-groups"]
        rule = {"flow-direction": "ingress", "protocol": "tcp", "start-port": 443, "network": "0.0.0.0/0"}
        running.call("POST", f"/security-group/{group['id']}/rules", json.dumps(rule).encode())
        for number in (1, 2):
            body = {"name": f"web-{number}", "addresses": [f"192.0.2.{number}"]}
            assert running.admin.post("/admin/v1/instances", json=body).status_code == 200
        yield running


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("line", "wanted"), EXAMPLES)
def test_the_page_shows_what_the_command_prints(folder, capsys, line, wanted):
    (folder / "policy.yaml").write_text(POLICY, encoding="utf-8")
    assert run(line.split()) == 1
    shown = capsys.readouterr()
    assert re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "…", shown.out + shown.err) == wanted


def _check(server, folder, *assertions):
    lines = "".join(f"- {one}\n" for one in assertions)
    (folder / "must.yaml").write_text(f"version: 1\nassertions:\n{lines}", encoding="utf-8")
    return run(["check", "must.yaml", "--data", str(server.folder), "-o", "json"])


def test_the_server_s_policy_is_checked_and_the_exit_status_tells(server, folder, capsys):
    assert _check(server, folder, "internet -> default tcp/443 allow") == 0
    capsys.readouterr()
    assert _check(server, folder, "web-1 -> web-2 tcp/443 allow", "web-1 -> web-2 tcp/443-444 allow") == 1
    good, bad = json.loads(capsys.readouterr().out)
    assert (good["holds"], good["packet"]) == (True, None)
    assert bad["packet"] == {"source": "192.0.2.1", "destination": "192.0.2.2", "service": "tcp/444"}
    assert "ingress of web-2" in bad["proof"][-1]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("any -> web-3 tcp/443 allow", r"must.yaml, line 4: assertions\[1\]: .*did you mean web-2"),
        ("any -> web-1 tcp/443 alow", r"must.yaml, line 4: assertions\[1\]: .*did you mean allow"),
    ],
)
def test_what_is_wrong_is_told_by_file_line_and_field(server, folder, capsys, wrong, said):
    assert _check(server, folder, "any -> web-1 tcp/22 deny", wrong) != 0
    assert re.search(said, capsys.readouterr().err)


def test_without_a_store_it_makes_none_to_ask(folder, capsys):
    (folder / "must.yaml").write_text("version: 1\nassertions: [any -> any tcp/22 deny]\n", encoding="utf-8")
    assert run(["check", "must.yaml", "--data", str(folder / "none")]) == 1
    assert "no ringfence store is there" in capsys.readouterr().err
    assert not (folder / "none").exists()
