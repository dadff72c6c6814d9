"""Observing a group and what is told of it meanwhile, as docs/observe.md shows it."""

import json
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from contract.running import running_server
from contract.test_agent_protocol import FLOWS, INVENTORY, add_host, send
from ringfence.cli.app import run
from ringfence.policy.commands import ClaimInstances, InstanceClaim
from ringfence.policy.model import Interface
from ringfence.policy.values import parse_address
from ringfence.wire.feed import encode_claim
from ringfence.wire.flows import FlowReport, decode_log, encode_flow_report

PAGE = (Path(__file__).parents[2] / "docs" / "observe.md").read_text(encoding="utf-8")
[LOG] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
EXAMPLES = re.findall(r"```console\n\$ ringfence ([^\n]*)\n(.*?)```", PAGE, re.DOTALL)
IDS = {"web-1": "11111111-1111-4111-8111-111111111111", "web-2": "22222222-2222-4222-8222-222222222222"}
NAMES = ("web-1", "web-2", "app-1")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def add_instances(server):
    for number, name in enumerate(NAMES, start=1):
        instance = {"name": name, "addresses": [f"10.0.0.{number}"]} | ({"id": IDS[name]} if name in IDS else {})
        assert server.admin.post("/admin/v1/instances", json=instance).status_code == 200


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("observed")) as running:
        add_instances(running)
        edits = [{"edit": "create-group", "name": group} for group in ("web", "app")]
        edits += [{"edit": "attach", "group": name.split("-")[0], "instance": name} for name in NAMES]
        edits += [{"edit": "detach", "group": "default", "instance": name} for name in NAMES]
        assert running.admin.post("/admin/v1/change", json={"edits": edits}).status_code == 200
        yield running


@pytest.fixture
def told(server, monkeypatch):
    monkeypatch.setenv("RINGFENCE_DATA", str(server.folder))
    if not server.admin.get("/admin/v1/hosts").json()["hosts"]:
        tell(server)


def tell(server):
    """The host that has the instances comes, and tells of what it logged."""
    key = add_host(server, "h1")
    known = {one["name"]: one["id"] for one in server.admin.get("/admin/v1/instances").json()["instances"]}
    claims = tuple(
        InstanceClaim(name, known[name], (Interface(f"tap{n}", (parse_address(f"10.0.0.{n + 1}", field="$"),)),))
        for n, name in enumerate(NAMES)
    )
    assert send(server, key, "PUT", INVENTORY, encode_claim(ClaimInstances(claims))).status_code == 200
    records = tuple(decode_log(LOG.encode().splitlines(), "page"))
    assert send(server, key, "POST", FLOWS, encode_flow_report(FlowReport(records))).status_code == 204


@pytest.mark.usefixtures("told")
def test_the_page_shows_what_the_commands_print(server, capsys):
    assert len(EXAMPLES) == 4
    for line, wanted in EXAMPLES:
        assert run(line.split()) == 0
        shown = capsys.readouterr()
        # No agent is there to apply it.
        printed = UUID.sub("…", shown.out + shown.err).replace("… pending", "… success")
        assert printed == wanted
    assert run(["group", "enforce", "web", "--dry-run"]) == 0
    assert "web-2" in capsys.readouterr().out
    observed = {one["name"]: one["mode"] for one in server.admin.get("/admin/v1/instances").json()["instances"]}
    assert observed == {"web-1": "observe", "web-2": "observe", "app-1": "enforce"}


@pytest.mark.usefixtures("told")
def test_one_instance_alone_an_enforced_one_and_one_that_nobody_knows(capsys):
    assert run(["observed", "web-2", "-o", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["service"] for row in answer["refused"]] == ["icmp/8/0"]
    assert run(["observed", "app-1"]) == 0
    assert "0 of 1 observed: begin with ringfence instance observe" in capsys.readouterr().err
    assert run(["observed", "wep-1"]) == 1
    assert "did you mean web-1" in capsys.readouterr().err


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    ("arguments", "ports"),
    [
        (["web"], [8080, 8080, 23, None]),
        (["instance:web-2"], [None]),
        (["web", "--since", "2026-01-01T01:00:30"], [23, None]),
        (["group:web", "--since", "2026-01-01", "--limit", "3"], [8080, 23, None]),
        (["app"], []),
    ],
)
def test_one_by_one_those_are_shown_that_are_asked_for(capsys, arguments, ports):
    assert run(["observed", *arguments, "--log", "-o", "json"]) == 0
    ends = [row["destination"].partition(":")[2] for row in json.loads(capsys.readouterr().out)]
    assert [int(port) if port else None for port in ends] == ports


@pytest.mark.usefixtures("told")
def test_options_of_the_log_without_it_and_times_that_are_none(capsys):
    for option in (["--since", "1h"], ["--limit", "2"], ["--follow"]):
        assert run(["observed", "web", *option]) == 2
        assert f"{option[0]}: expected only with --log" in capsys.readouterr().err
    assert run(["observed", "web", "--log", "--since", "soon"]) == 2
    assert "or a date such as 2026-01-31" in capsys.readouterr().err
    assert run(["observed", "web", "--log", "--limit", "0"]) == 2


def test_who_follows_hears_on_when_the_server_was_started_anew(tmp_path):
    records = tuple(decode_log(LOG.encode().splitlines(), "page"))[:3]
    program = (sys.executable, "-m", "ringfence", "host", "flows", "--follow", "-o", "json", "--data", str(tmp_path))

    def report(server, *some):
        assert send(server, key, "POST", FLOWS, encode_flow_report(FlowReport(some))).status_code == 204

    with ExitStack() as stack:
        with running_server(tmp_path) as server:
            key = add_host(server, "h1")
            report(server, *records[:2])
            follower = stack.enter_context(subprocess.Popen(program, stdout=subprocess.PIPE))  # noqa: S603  our own
            stack.callback(follower.kill)
            shown = [json.loads(follower.stdout.readline())["time"] for _ in range(2)]
        with running_server(tmp_path) as server:
            report(server, records[2])
            shown.append(json.loads(follower.stdout.readline())["time"])
    assert len(set(shown)) == 3


@pytest.mark.usefixtures("told")
def test_what_is_suggested_counts_all_packets_of_a_flow(server):
    answer = server.admin.get("/admin/v1/instances/web-1/suggestion").json()
    assert (answer["packets"], "group app" in answer["policy"]) == (3, True)
