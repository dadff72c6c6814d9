"""Events and quotas as the official SDK reads them, the history as it is exported, and no secret in either."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from exoscale.api.exceptions import ExoscaleAPIAuthException, ExoscaleAPIClientException
from exoscale.api.v2 import Client

from contract.running import running_server
from contract.test_server_process import server_process
from ringfence.cli.app import run
from ringfence.wire.account import DAY_S, decode_period

pytestmark = pytest.mark.usefixtures("exchanges")


@pytest.fixture
def server(tmp_path):
    with running_server(tmp_path / "data") as running:
        yield running


def client_of(server, key=None):
    return Client(key["id"] if key else server.key, key["secret"] if key else server.secret, url=server.url)


def test_every_change_of_ones_own_is_an_event_in_the_official_shape(server, exchanges):
    client = client_of(server)
    group = client.create_security_group(name="web")["reference"]["id"]
    client.add_external_source_to_security_group(id=group, cidr="192.0.2.0/24")
    client.add_external_source_to_security_group(id=group, cidr="192.0.2.0/24")
    server.admin.post("/admin/v1/organisations", json={"name": "theirs"})
    server.admin.post("/admin/v1/keys?organisation=theirs", json={"name": "their key"})
    events = client.list_events()
    assert ("list-events", 200) in exchanges
    assert [event["handler"] for event in events] == [
        "create-organisation",
        "create-key",
        "create-security-group",
        "add-external-source-to-security-group",
        "add-external-source-to-security-group",
    ]
    made, unchanged = events[2], events[4]
    assert made["iam-api-key"] == {"key": server.key, "name": "tests"}
    assert made["source-ip"] == "127.0.0.1"
    assert made["request-id"]
    assert group in made["message"]
    assert re.search(r"revision \d+ -> \d+", made["message"])
    assert unchanged["message"].endswith("unchanged")
    assert "iam-api-key" not in events[0]
    assert events[0]["message"].endswith("by operator")


def test_a_period_is_asked_for_with_from_and_to(server):
    client = client_of(server)
    now = datetime.now(UTC)
    later, earlier = (now + timedelta(hours=1)).isoformat(), (now - timedelta(hours=1)).isoformat()
    assert client.list_events(**{"from": earlier, "to": later})
    assert client.list_events(**{"from": later, "to": (now + timedelta(hours=2)).isoformat()}) == []
    assert client.list_events(to=earlier) == []
    for wrong in ({"from": "yesterday"}, {"from": later, "to": earlier}):
        with pytest.raises(ExoscaleAPIClientException):
            client.list_events(**wrong)
    assert server.call("GET", "/event?limit=3").status == 400


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, (10**9 - DAY_S, 10**9)),
        ({"from": "1970-01-01T00:00:10Z"}, (10, 10**9)),
        ({"to": "1970-01-02T00:00:10+00:00"}, (10, DAY_S + 10)),
        ({"from": "1970-01-01T01:00:00+01:00", "to": "1970-01-01"}, (0, 0)),
    ],
)
def test_what_is_not_said_of_a_period_is_the_last_day(given, wanted):
    assert decode_period(tuple(given.items()), 10**9) == wanted


def test_only_an_owner_reads_events(server):
    for role in ("operator", "reader"):
        key = server.admin.post("/admin/v1/keys", json={"role": role}).json()
        with pytest.raises(ExoscaleAPIAuthException, match="may not read the history"):
            client_of(server, key).list_events()
        client_of(server, key).list_quotas()


def test_quotas_in_the_official_shape_count_what_there_is(server, exchanges):
    client = client_of(server)
    server.admin.put("/admin/v1/organisations/default/quota", json={"security-group": 2})
    client.create_security_group(name="web")
    quotas = {one["resource"]: one for one in client.list_quotas()["quotas"]}
    assert quotas["security-group"] == {"resource": "security-group", "usage": 2, "limit": 2}
    assert client.get_quota(entity="iam-key")["usage"] == 1
    assert {("list-quotas", 200), ("get-quota", 200)} <= set(exchanges)
    with pytest.raises(
        ExoscaleAPIClientException, match="quota security-group of organisation default is reached: 2 of 2"
    ):
        client.create_security_group(name="more")
    with pytest.raises(ExoscaleAPIClientException):
        client.get_quota(entity="nothing")


@pytest.fixture
def ringfence(server, capsys):
    """`ringfence(verb...)` against the server's folder: status, stdout, stderr."""

    def use(*words):
        status = run([*words, "--data", str(server.folder)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return use


def test_the_command_line_exports_lines_that_verify_and_shows_when_they_do_not(server, ringfence, tmp_path):
    client = client_of(server)
    group = client.create_security_group(name="web")["reference"]["id"]
    client.add_external_source_to_security_group(id=group, cidr="192.0.2.0/24")
    status, out, _ = ringfence("history", "-o", "json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [line["action"] for line in lines] == ["CreateOrganisation", "CreateKey", "CreateGroup", "AddSource"]
    table = ringfence("history", "--since", "1h")[1].splitlines()
    assert re.search(rf" default +tests \({server.key}\) +127.0.0.1 +AddSource .* \d+ -> \d+ +applied$", table[-1])
    assert ringfence("history", "--since", "2100-01-01", "-o", "json")[:2] == (0, "")
    assert ringfence("history", "--since", "soon")[0] == 2
    status, _, err = ringfence("history", "verify")
    assert (status, "the history is unbroken: 4 lines" in err) == (0, True)
    export = tmp_path / "export"
    export.write_text(out)
    assert run(["history", "verify", str(export)]) == 0
    export.write_text(out.replace("192.0.2.0", "192.0.9.0"))
    assert run(["history", "verify", str(export)]) == 1
    export.write_text("no line\n")
    assert run(["history", "verify", str(export)]) == 1


def test_who_follows_the_export_sees_what_comes(server):
    command = [sys.executable, "-m", "ringfence", "history", "--follow", "-o", "json", "--data", str(server.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  our own
        try:
            assert [json.loads(process.stdout.readline())["number"] for _ in range(2)] == [1, 2]
            client_of(server).create_security_group(name="web")
            assert json.loads(process.stdout.readline())["action"] == "CreateGroup"
        finally:
            process.kill()


def test_no_secret_leaks_whatever_is_done_with_it(tmp_path):
    """Log, database, answers and the process list, after the key's secret was used in every wrong way."""
    with server_process(tmp_path) as (process, server):
        canaries = [server.secret]
        made = server.admin.post(f"/admin/v1/keys/{server.key}", json={"overlap-s": 60}).json()
        canaries.append(made["secret"])
        shown = []
        for secret in canaries:
            server.secret = secret
            header = server.sign("GET", "/v2/security-group")
            shown += [
                server.call("GET", "/security-group"),
                server.call("GET", "/no-such-thing"),
                server.call("POST", "/security-group", b'{"name": 1}'),
                server.call("POST", "/security-group", b"[" * 100),
                server.call("GET", "/instance", signed=False, headers={"Authorization": header}),
                server.call("PUT", "/security-group/x:attach", b"{}"),
                server.call("GET", "/event"),
            ]
        texts = [answer.body for answer in shown]
        texts += [server.admin.get(f"/admin/v1/{path}").content for path in ("keys", "history", "organisations")]
        texts += [server.admin.post("/admin/v1/keys", json={"role": "none"}).content]
        texts += [server.admin.post("/admin/v1/keys/EXOnone", json={"overlap-s": -1}).content]
        texts += [path.read_bytes() for path in server.folder.iterdir() if path.is_file()]
        texts += [_read(path / name) for path in Path("/proc").glob("[0-9]*") for name in ("cmdline", "comm")]
        texts += [_read(Path(f"/proc/{process.pid}/environ"))]
        process.terminate()
        process.wait(10)
        texts += [(tmp_path / "log").read_bytes(), *(p.read_bytes() for p in server.folder.iterdir() if p.is_file())]
    assert b"/v2/no-such-thing" in texts[-1] + (tmp_path / "log").read_bytes()
    hits = [text[:80] for text in texts for secret in canaries if secret.encode() in text]
    assert hits == []


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""
