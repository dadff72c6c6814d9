"""`ringfence reach` beside a running server, as docs/reach.md shows it."""

import json
import re
from pathlib import Path

import pytest

from contract.running import running_server
from ringfence.cli.app import run

PAGE = Path(__file__).parents[2] / "docs" / "reach.md"
EXAMPLES = re.findall(r"```console\n\$ ringfence ([^\n]*)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
RULES = {
    "web": {"network": "0.0.0.0/0", "start-port": 443},
    "db": {"security-group": "web", "start-port": 5432},
    "ops": None,
}


POLICY = """
version: 1
groups:
  web: {ingress: [{protocol: tcp, ports: 443, from: 0.0.0.0/0}]}
  db: {ingress: [{protocol: tcp, ports: 5432, from: group web}]}
  ops:
instances:
  web-1: {groups: [default, web], addresses: [192.0.2.10]}
  db-1: {groups: [default, db], addresses: [192.0.2.20]}
  ops-1: {groups: [default, ops], addresses: [192.0.2.30]}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that holds the policy of the page."""
    with running_server(tmp_path_factory.mktemp("reach")) as running:
        groups = {}
        for number, (name, rule) in enumerate(RULES.items(), start=1):
            made = running.call("POST", "/security-group", json.dumps({"name": name}).encode())
            groups[name] = made.json["reference"]["id"]
            _add_rule(running, groups, name, rule)
            instance = {"name": f"{name}-1", "addresses": [f"192.0.2.{number}0"]}
            id_ = running.admin.post("/admin/v1/instances", json=instance).json()["id"]
            body = json.dumps({"instance": {"id": id_}}).encode()
            assert running.call("PUT", f"/security-group/{groups[name]}:attach", body).status == 200
        yield running


def _add_rule(running, groups, name, rule):
    if rule is None:
        return
    peer = {"security-group": {"id": groups[rule["security-group"]]}} if "security-group" in rule else {}
    body = {**rule, **peer, "flow-direction": "ingress", "protocol": "tcp"}
    assert running.call("POST", f"/security-group/{groups[name]}/rules", json.dumps(body).encode()).status == 200


@pytest.mark.parametrize(("line", "wanted"), EXAMPLES)
def test_the_page_shows_what_the_command_prints(server, capsys, monkeypatch, line, wanted):
    monkeypatch.setenv("RINGFENCE_DATA", str(server.folder))
    assert run(line.split()) == 0
    shown = capsys.readouterr()
    assert re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "…", shown.out + shown.err) == wanted


@pytest.mark.parametrize(("line", "wanted"), EXAMPLES)
def test_a_file_that_says_the_same_is_answered_the_same(tmp_path, capsys, line, wanted):
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    assert run([*line.split(), "--file", str(file)]) == 0
    shown = capsys.readouterr()
    assert re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "…", shown.out + shown.err) == wanted


def test_without_ends_it_is_the_matrix_of_groups(server):
    rows = server.admin.get("/admin/v1/reach", params={"service": "tcp/5432,tcp/443"}).json()["reach"]
    cells = {(row["from"][0], row["to"][0]): row["services"] for row in rows}
    inward = {pair: services for pair, services in cells.items() if pair[1] != "internet"}
    assert inward[("web", "db")] == "tcp/5432"
    assert inward[("internet", "web")] == "tcp/443"
    assert ("internet", "db") not in inward
    assert cells[("ops", "internet")] == "tcp/443, tcp/5432"


@pytest.mark.parametrize(
    ("asked", "status", "word"),
    [
        ({"to": "dbb"}, 404, "did you mean db"),
        ({"to": "db", "service": "tcp/99999"}, 400, "service"),
        ({"from": "127.0.0.1"}, 400, "no flow"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_in_words(server, asked, status, word):
    answer = server.admin.get("/admin/v1/reach", params=asked)
    assert answer.status_code == status
    assert word in answer.json()["message"]


def test_a_single_address_is_told_from_the_others_of_its_network(server):
    [row] = server.admin.get("/admin/v1/reach", params={"from": "198.51.100.7", "to": "web-1"}).json()["reach"]
    assert (row["from"], row["to"], row["services"]) == (["198.51.100.7/32"], ["web-1"], "tcp/443")
