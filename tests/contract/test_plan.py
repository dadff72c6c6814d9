"""`ringfence plan` and dry runs: as docs/plan.md shows them, of files and against a running server."""

import json
import re
from pathlib import Path

import pytest

from contract.running import running_server
from contract.test_pages import without_ids
from ringfence.cli.app import run
from terraforming import GROUP, RULE, configured, ended, group, new_rule, plan, refers

PAGE = (Path(__file__).parents[2] / "docs" / "plan.md").read_text(encoding="utf-8")
OLD, NEW = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
[(LINE, WANTED), (TERRAFORM, WANTED_OF_TERRAFORM)] = re.findall(
    r"```console\n\$ ringfence (plan [^\n]*)\n(.*?)```", PAGE, re.DOTALL
)
ASSERTS = NEW.index("assertions:")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.yaml").write_text(OLD, encoding="utf-8")
    (tmp_path / "policy.yaml").write_text(NEW, encoding="utf-8")
    (tmp_path / "without.yaml").write_text(NEW[:ASSERTS], encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that holds the page's old policy."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "old.yaml").write_text(OLD, encoding="utf-8")
    with running_server(folder / "data") as running:
        for number, name in enumerate(("web", "app", "db"), start=1):
            body = {"name": f"{name}-1", "addresses": [f"192.0.2.{number}0"]}
            assert running.admin.post("/admin/v1/instances", json=body).status_code == 200
        assert run(["apply", str(folder / "old.yaml"), "--data", str(running.folder)]) == 0
        yield running


def _shown(capsys):
    return without_ids(capsys.readouterr().out)


@pytest.mark.usefixtures("folder")
def test_the_page_shows_what_the_command_prints(capsys):
    assert run(LINE.split()) == 5
    assert _shown(capsys) == WANTED


@pytest.mark.usefixtures("folder")
def test_a_server_that_holds_the_old_policy_answers_the_same_and_changes_nothing(server, capsys):
    for _ in range(2):
        assert run(["plan", "policy.yaml", "--prune", "--data", str(server.folder)]) == 5
        shown = _shown(capsys).splitlines()
        of_hosts = [line for line in WANTED.splitlines() if not line.startswith("hosts")]
        assert [line for line in shown if not line.startswith(("hosts", "cuts"))] == of_hosts


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("plan old.yaml --file old.yaml --exit-code", 0),
        ("plan without.yaml --file old.yaml", 0),
        ("plan without.yaml --file old.yaml --exit-code", 4),
        ("plan policy.yaml --file old.yaml --exit-code", 5),
        ("plan nowhere.yaml --file old.yaml", 1),
    ],
)
def test_the_exit_status_tells_a_pipeline(capsys, line, status):
    assert run(line.split()) == status
    if status == 0:
        assert ("no packet's fate changes" in capsys.readouterr().out) == ("old.yaml --file" in line)


def test_a_dry_run_of_a_single_verb_shows_its_plan(server, capsys):
    asked = ["rule", "add", "db", "tcp/5432", "--from", "192.0.2.20", "--data", str(server.folder), "--dry-run"]
    assert run(asked) == 0
    assert "no packet's fate changes" in capsys.readouterr().out
    assert run([*asked[:3], "tcp/5433", "--from", "192.0.2.0/24", *asked[6:], "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["plan"]
    [row] = found["opens"]
    assert (row["from"], row["to"], row["services"]) == (
        ["192.0.2.0/24", "group app", "group web"],
        ["group db"],
        "tcp/5433",
    )
    assert (found["closes"], found["connections"]) == ([], [])


def test_a_terraform_plan_is_judged_by_the_server_that_it_is_for(server, folder, capsys):
    groups = {one["name"]: one["id"] for one in server.call("GET", "/security-group").json["security-groups"]}
    changes = [
        group(f"{GROUP}.jump", name="jump", external_sources=["203.0.113.0/24"]),
        new_rule(f"{RULE}.ssh", group_id=groups["web"], start_port=22, end_port=22),
        ended("exoscale_compute_instance.vm", "exoscale_compute_instance", security_group_ids=[groups["web"]]),
    ]
    written = [configured(RULE, "ssh", user_security_group_id=refers(f"{GROUP}.jump.id"))]
    (folder / "next.json").write_text(plan(*changes, resources=written), encoding="utf-8")
    line = [*TERRAFORM.split(), "--data", str(server.folder)]
    assert run(line) == 0
    shown = capsys.readouterr()
    assert without_ids(shown.err + shown.out) == WANTED_OF_TERRAFORM
    assert run([*line, "--exit-code"]) == 4
    (folder / "next.json").write_text(plan(group(f"{GROUP}.web", name="web")), encoding="utf-8")
    capsys.readouterr()
    assert run(line) == 1
    assert f"{GROUP}.web: " in capsys.readouterr().err


def test_an_assertion_about_nobody_known_is_told_by_file_and_line(folder, capsys):
    (folder / "policy.yaml").write_text(NEW.replace("app -> db", "ap -> db"), encoding="utf-8")
    assert run(LINE.split()) == 2
    assert re.search(r"policy.yaml, line 18: .*did you mean app", capsys.readouterr().err)
