"""The command line without a server: the folder is opened by the command itself."""

import json
import logging
import os
import re
import socket
import stat
import sys
import threading
import time

import pytest

from ringfence.cli.app import run
from ringfence.cli.credentials import save_endpoint

EXPORTS = ["EXOSCALE_API_KEY", "EXOSCALE_API_SECRET", "EXOSCALE_API_ENDPOINT", "EXOSCALE_ZONE"]


@pytest.fixture
def ringfence(tmp_path, capsys, monkeypatch):
    """Runs one command line on a data folder; the exit status, stdout and stderr come back."""
    monkeypatch.setenv("RINGFENCE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(logging.root, "handlers", [*logging.root.handlers])  # some verbs log to what is captured here

    def call(*arguments):
        status = run(arguments)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


def _json(ringfence, *arguments):
    status, out, err = ringfence(*arguments, "-o", "json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_a_new_key_comes_as_two_shell_assignments(ringfence):
    status, out, _ = ringfence("key", "create", "--name", "laptop", "-o", "env")
    assert status == 0
    assert re.fullmatch(r"EXOSCALE_API_KEY=\S+\nEXOSCALE_API_SECRET=\S+\n", out)


def test_a_key_is_listed_without_its_secret_until_it_is_revoked(ringfence):
    made = _json(ringfence, "key", "create", "--name", "laptop")
    (listed,) = _json(ringfence, "key", "list")
    assert (listed["id"], listed["name"], listed["role"]) == (made["id"], "laptop", "owner")
    assert made["secret"] not in json.dumps(listed)
    assert re.search(r" owner +- +\d{4}-\d\d-\d\d \d\d:\d\d UTC +-$", ringfence("key", "list")[1], re.MULTILINE)
    assert ringfence("key", "revoke", made["id"])[0] == 0
    assert _json(ringfence, "key", "list") == []


def test_an_organisation_is_made_limited_given_a_limited_key_and_removed(ringfence):
    assert ringfence("organisation", "create", "acme")[0] == 0
    shown = _json(ringfence, "organisation", "quota", "acme", "host=2", "instance=unlimited", "iam-key=default")
    assert {one["name"]: one["limit"] for one in shown}.items() >= {"host": 2, "instance": -1, "iam-key": 1000}.items()
    assert ringfence("organisation", "quota", "acme", "host=-2")[0] == 2
    made = _json(ringfence, "key", "create", "--organisation", "acme", "--group", "default")
    (listed,) = _json(ringfence, "key", "list", "--organisation", "acme")
    assert (listed["organisation"], listed["role"], listed["groups"]) == ("acme", "operator", ["default"])
    rotated = _json(ringfence, "key", "rotate", made["id"], "--overlap", "1h")
    assert rotated["secret"] != made["secret"]
    assert ringfence("key", "rotate", made["id"], "--overlap", "soon")[0] == 2
    assert ringfence("organisation", "remove", "acme")[0] == 0
    assert [one["name"] for one in _json(ringfence, "organisation", "list")] == ["default"]


def test_revoking_an_unknown_key_fails_and_names_it(ringfence):
    ringfence("key", "create")
    ringfence("key", "create")
    status, out, err = ringfence("key", "revoke", "EXOnobody")
    assert (status, out) == (1, "")
    assert "EXOnobody" in err


def test_a_host_gets_the_lines_that_its_agent_reads(ringfence):
    status, out, _ = ringfence("host", "add", "h1", "-o", "env")
    assert status == 0
    assert re.fullmatch(r"RINGFENCE_HOST=h1\nRINGFENCE_HOST_KEY=\S+\n", out)


def test_a_host_that_was_never_heard_is_listed_with_nulls(ringfence):
    ringfence("host", "add", "h1")
    _, out, err = ringfence("host", "status", "-o", "json")
    (status,) = json.loads(out)
    assert "no server runs with" in err
    assert (status["host"], status["applied"], status["age_s"], status["error"]) == ("h1", None, None, None)
    assert isinstance(status["wanted"], int)


def test_an_instance_keeps_its_id_and_wears_the_default_group(ringfence):
    id_ = "6c0f1e8e-0000-4000-8000-000000000001"
    ringfence("instance", "add", "web", "--id", id_, "--address", "192.0.2.1", "--address", "2001:db8::1")
    (listed,) = _json(ringfence, "instance", "list")
    assert (listed["id"], listed["addresses"]) == (id_, ["192.0.2.1", "2001:db8::1"])
    assert listed["groups"] == ["default"]


def test_a_wrong_address_is_refused_with_its_place(ringfence):
    status, _, err = ringfence("instance", "add", "web", "--address", "192.0.2.1/24")
    assert status == 2
    assert err.startswith("ringfence: addresses[0]: ")


def test_a_public_group_is_listed(ringfence):
    assert ringfence("group", "public-create", "public-probes", "--description", "ours")[0] == 0
    (listed,) = _json(ringfence, "group", "public-list")
    assert (listed["name"], listed["description"]) == ("public-probes", "ours")


def test_an_organisation_that_there_is_not_is_said_to_be_unknown(ringfence):
    ringfence("group", "create", "web")
    status, _, err = ringfence("explain", "internet", "10.0.0.1", "tcp/1", "--organisation", "nope")
    assert (status, "there is no organisation named nope" in err) == (1, True)


def test_without_hosts_no_rule_is_unused(ringfence):
    ringfence("group", "create", "web")
    assert ringfence("rule", "add", "web", "tcp/443", "--from", "0.0.0.0/0")[0] == 0
    status, out, err = ringfence("unused", "--window", "1h")
    assert (status, out, err) == (0, "", "ringfence: every rule that a host enforces was used\n")
    assert ringfence("unused", "--window", "1x")[0] == 2


def test_a_refusal_is_explained_in_words(ringfence):
    ringfence("instance", "add", "db", "--address", "192.0.2.1")
    status, out, _ = ringfence("explain", "internet", "db", "tcp/5432")
    assert status == 0
    assert out.startswith("denied: ")
    assert _json(ringfence, "explain", "internet", "db", "tcp/5432")["allowed"] is False


def test_a_table_shows_what_there_is_and_an_empty_one_says_so(ringfence):
    ringfence("key", "create")
    assert ringfence("instance", "list") == (0, "", "ringfence: nothing there yet\n")
    ringfence("instance", "add", "web", "--address", "192.0.2.1")
    head, row = ringfence("instance", "list")[1].splitlines()
    assert head.split() == ["id", "name", "organisation", "host", "bound-to", "mode", "addresses", "groups"]
    assert row.split()[1:] == ["web", "default", "-", "-", "enforce", "192.0.2.1", "default"]


def test_env_keeps_its_key_and_makes_another_when_that_was_revoked(ringfence, tmp_path):
    lines = ringfence("env", "--endpoint", "http://127.0.0.1:1/v2")[1]
    assert re.findall(r"^export (\w+)=", lines, re.MULTILINE) == EXPORTS
    assert ringfence("env", "--endpoint", "http://127.0.0.1:1/v2")[1] == lines
    assert stat.S_IMODE(os.stat(tmp_path / "data" / "client.json").st_mode) == 0o600  # noqa: PTH116  the mode is the point
    (key,) = _json(ringfence, "key", "list")
    ringfence("key", "revoke", key["id"])
    assert ringfence("env", "--endpoint", "http://127.0.0.1:1/v2")[1] != lines


def test_env_waits_for_the_first_server_of_a_folder_that_is_just_starting(ringfence, tmp_path):
    server = threading.Timer(0.1, save_endpoint, (tmp_path / "data", ["http://127.0.0.1:1/v2"], "ch-dk-2"))
    (tmp_path / "data").mkdir(mode=0o700)
    server.start()
    assert "export EXOSCALE_API_ENDPOINT=http://127.0.0.1:1/v2\n" in ringfence("env")[1]
    server.join()


def test_env_without_a_server_says_what_is_missing(ringfence, monkeypatch):
    monkeypatch.setattr("ringfence.cli.env._START_S", 0.0)
    status, out, err = ringfence("env")
    assert (status, out) == (1, "")
    assert "--endpoint" in err


@pytest.mark.parametrize("damaged", ["", "{", "[]", "{}", "null", '"id"'])
def test_env_makes_another_key_when_the_kept_one_is_damaged(ringfence, tmp_path, damaged):
    ringfence("env", "--endpoint", "http://127.0.0.1:1/v2")
    (tmp_path / "data" / "client.json").write_text(damaged)
    status, lines, _ = ringfence("env", "--endpoint", "http://127.0.0.1:1/v2")
    assert status == 0
    assert ringfence("env", "--endpoint", "http://127.0.0.1:1/v2")[1] == lines


def test_env_names_the_zone_of_the_server_unless_another_is_said(ringfence, tmp_path):
    save_endpoint(tmp_path / "data", ["http://127.0.0.1:1/v2"], "at-vie-1")
    assert "export EXOSCALE_ZONE=at-vie-1\n" in ringfence("env")[1]
    assert "export EXOSCALE_ZONE=de-fra-1\n" in ringfence("env", "--zone", "de-fra-1")[1]


def test_env_beside_a_server_on_unix_sockets_says_so(ringfence, tmp_path):
    save_endpoint(tmp_path / "data", [], "ch-dk-2")
    status, _, err = ringfence("env")
    assert status == 1
    assert "unix sockets only" in err


@pytest.mark.parametrize("verb", ["key list", "key revoke EXO1", "host status", "instance list", "group public-list"])
def test_a_verb_that_only_asks_makes_no_store(ringfence, tmp_path, verb):
    status, _, err = ringfence(*verb.split())
    assert status == 1
    assert f"opening {tmp_path / 'data'}: no ringfence store is there" in err
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_opened_is_complained_about_at_once(ringfence, tmp_path):
    (tmp_path / "data").write_text("a file")
    started_s = time.monotonic()
    assert ringfence("key", "create")[0] == 1
    assert time.monotonic() - started_s < 3


@pytest.mark.parametrize("key", ["a/b", "../hosts", "..", "a?b", ""])
def test_what_is_no_id_of_a_key_reaches_no_other_route(ringfence, key):
    ringfence("key", "create")
    status, _, err = ringfence("key", "revoke", key)
    assert status == 1
    assert "ringfence key list" in err


def test_what_steers_a_terminal_is_shown_escaped(ringfence):
    ringfence("key", "create", "--name", "e\x1b]0;pwned\x07\nX")
    out = ringfence("key", "list")[1]
    assert r"e\x1b]0;pwned\x07\nX" in out
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize(
    "wrong", [("--zone", ""), ("--zone", "a b"), ("--public-url", "rf.example"), ("--public-url", "http://a/b")]
)
def test_a_server_refuses_a_zone_or_an_url_that_is_none(ringfence, wrong):
    status, _, err = ringfence("server", *wrong)
    assert status == 2
    assert wrong[0] in err


@pytest.mark.parametrize(
    "wrong",
    [
        ("nonsense",),
        ("key", "create", "-o", "yaml"),
        ("explain", "one"),
        ("key", "create", "--role", "x"),
        ("key", "--no"),
    ],
)
def test_a_wrong_command_line_is_status_2(ringfence, wrong):
    assert ringfence(*wrong)[0] == 2


def test_a_listen_address_that_is_none_is_status_2(ringfence):
    status, _, err = ringfence("server", "--listen", "8443")
    assert status == 2
    assert "HOST:PORT" in err


def test_an_agent_without_credential_is_told_what_to_run(ringfence, tmp_path, monkeypatch):
    monkeypatch.delenv("RINGFENCE_HOST", raising=False)
    monkeypatch.delenv("RINGFENCE_HOST_KEY", raising=False)
    folder = str(tmp_path)
    status, _, err = ringfence("agent", "--server", "unix:/x", "--data", folder, "--inventory", "/nowhere")
    assert status == 1
    assert "ringfence agent join" in err


def test_the_version_is_told(ringfence):
    assert ringfence("version")[:2] == (0, "ringfence 0.1.0\n")


def test_the_policy_is_changed_by_names_and_each_verb_says_what_it_did(ringfence):
    ringfence("instance", "add", "vm", "--address", "192.0.2.1")
    assert ringfence("group", "create", "web", "--dry-run")[1].startswith("group web created\n")
    for arguments, did in (
        (("group", "create", "web"), "group web created"),
        (("group", "source", "add", "web", "198.51.100.7"), "group web: source 198.51.100.7/32 added"),
        (("group", "attach", "web", "vm"), "instance vm wears group web"),
        (("group", "detach", "web", "vm"), "instance vm wears group web no more"),
        (("group", "source", "remove", "web", "198.51.100.7/32"), "group web: source 198.51.100.7/32 removed"),
    ):
        status, out, err = ringfence(*arguments)
        assert (status, out) == (0, f"{did}\n")
        assert "ringfence: operation " in err
    added = _json(ringfence, "rule", "add", "web", "tcp/443", "--from", "0.0.0.0/0")
    assert "ingress tcp/443 from 0.0.0.0/0" in added["did"][0]
    assert f"rule {added['ids'][0]} deleted" in ringfence("rule", "delete", "web", *added["ids"])[1]
    assert ringfence("group", "delete", "web")[1] == "group web deleted\n"


def test_a_change_that_is_wrong_names_the_field_and_the_nearest_name(ringfence):
    ringfence("group", "create", "web")
    assert ringfence("rule", "add", "group:web", "tcp/80", "--from", "group:web")[0] == 0
    assert "did you mean web?" in ringfence("rule", "add", "wep", "tcp", "--from", "web")[2]
    assert "ringfence: service: expected a service such" in ringfence("rule", "add", "web", "tcp/x", "--from", "web")[2]
    assert "ringfence: expected exactly one of from " in ringfence("rule", "add", "web", "tcp")[2]
    for word in ("internet", "any"):
        said = f"ringfence: from: a rule names a network or a group: for anybody 0.0.0.0/0, and ::/0, not {word}\n"
        assert ringfence("rule", "add", "web", "tcp/443", "--from", word)[2] == said
    assert ringfence("plan", "none.yaml")[2] == "ringfence: reading none.yaml: No such file or directory\n"


def test_groups_are_listed_with_what_is_in_them(ringfence):
    ringfence("group", "create", "web", "--description", "the public site")
    ringfence("rule", "add", "web", "tcp/443", "--from", "0.0.0.0/0")
    ringfence("group", "source", "add", "web", "192.0.2.0/24")
    ringfence("instance", "add", "web-1", "--address", "192.0.2.10")
    ringfence("group", "attach", "web", "web-1")
    default, web = _json(ringfence, "group", "list")
    assert (default["name"], default["rules"], default["sources"]) == ("default", 0, [])
    assert (web["name"], web["rules"], web["sources"]) == ("web", 1, ["192.0.2.0/24"])
    assert (web["worn-by"], web["visibility"], web["description"]) == (1, "private", "the public site")


def test_rules_are_listed_with_the_time_that_they_last(ringfence, monkeypatch):
    ringfence("group", "create", "web")
    ringfence("rule", "add", "web", "tcp/443", "--from", "0.0.0.0/0")
    monkeypatch.setenv("SSH_CONNECTION", "198.51.100.7 50000 10.0.0.1 22")
    assert ringfence("allow-me", "web", "tcp/22", "--for", "2h")[0] == 0
    first, second = _json(ringfence, "rule", "list", "--group", "web")
    assert (first["allows"], first["expires-at"]) == ("ingress tcp/443 from 0.0.0.0/0", None)
    assert second["allows"] == "ingress tcp/22 from 198.51.100.7/32"
    assert 7100 < second["expires-at"] - time.time() <= 7200
    monkeypatch.setattr("ringfence.cli.admin_client.ssh_session", lambda: None)
    status, _, err = ringfence("allow-me", "web", "tcp/22")
    said = "ringfence: address: where you come from is not known here: give it, by --address at the command line\n"
    assert (status, err) == (2, said)
    add = ("rule", "add", "web", "tcp/80", "--from", "web")
    assert ringfence(*add, "--expires", "soon")[0] == 2
    for option, most in (("--expires", "3650d"), ("--confirm", "24h")):
        for wrong in ("0s", "3651d"):
            said = f"ringfence: {option}: expected a time from 1s to {most}, got '{wrong}'\n"
            assert ringfence(*add, option, wrong) == (2, "", said)
        assert ringfence(*add, option, most, "--dry-run")[0] == 0
    assert ringfence("confirm") == (0, "", "ringfence: no change waits to be confirmed\n")


def test_a_host_a_group_or_a_limit_that_there_is_not_is_answered_with_the_nearest(ringfence):
    ringfence("host", "add", "frankfurt-1")
    ringfence("group", "create", "web")
    for verb in ("counters", "drops"):
        said = "ringfence: there is no host frankfurt-2; did you mean frankfurt-1?\n"
        assert ringfence("host", verb, "frankfurt-2") == (1, "", said)
    said = "ringfence: group: there is no security group 'wep'; did you mean web?\n"
    assert ringfence("host", "counters", "--group", "wep") == (1, "", said)
    assert ringfence("organisation", "quota", "default", "rules=3")[2].startswith("ringfence: expected one of ")


def test_a_table_is_wrapped_where_a_narrow_terminal_ends_and_nowhere_else(ringfence, monkeypatch):
    ringfence("group", "create", "web", "--description", "what the whole world may see of us")
    piped = ringfence("group", "list")[1]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "98")
    shown = ringfence("group", "list")[1]
    assert len(piped.splitlines()) == 3
    assert max(map(len, shown.splitlines())) <= 98 < max(map(len, piped.splitlines()))
    assert sorted(shown.split()) == sorted(piped.split())
    monkeypatch.setenv("COLUMNS", "20")  # ids stay whole, for whoever copies them
    assert ringfence("instance", "list")[0] == 0
    assert re.search(r"  [0-9a-f]{8}-[0-9a-f-]{27}  ", ringfence("group", "list")[1])


def test_metrics_of_no_server_are_none(ringfence, tmp_path):
    ringfence("host", "add", "h1")
    said = f"ringfence: asking the server of {tmp_path / 'data'}: none runs: start ringfence server, or check --data\n"
    assert ringfence("metrics") == (1, "", said)


def test_metrics_name_groups_by_every_letter_that_they_have(ringfence, monkeypatch):
    named = {"host": "h1", "group": "web\u00a0tier", "rule": "r", "direction": "ingress"}
    rule = {**named, "judged": 7, "connections": None}
    monkeypatch.setattr("ringfence.cli.admin_client.require_server", lambda _: None)
    monkeypatch.setattr("ringfence.cli.admin_client.ask", lambda *_: {"hosts": [], "counters": [rule]})
    line = 'ringfence_rule_judged_packets_total{host="h1",group="web\u00a0tier",rule="r",direction="ingress"} 7'
    assert line in ringfence("metrics", "--rules")[1].splitlines()


def test_what_the_system_refuses_is_told_with_what_to_do(ringfence, tmp_path):
    ringfence("key", "create")
    (tmp_path / "there").write_text("")
    said = f"ringfence: writing {tmp_path / 'there'}: it is there already: a backup is a new file\n"
    assert ringfence("server", "backup", str(tmp_path / "there"), "--data", str(tmp_path / "data")) == (1, "", said)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, _, err = ringfence("server", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert status == 1
    assert "Address already in use: who listens there says ss -ltnp; choose another with --listen\n" in err


def test_a_file_that_is_none_of_ours_is_a_sentence_and_no_traceback(ringfence, tmp_path):
    said = f"ringfence: {tmp_path / 'none'}: No such file or directory\n"
    assert ringfence("history", "verify", str(tmp_path / "none")) == (1, "", said)
    (tmp_path / "octets").write_bytes(bytes(range(256)))
    assert "line 1: expected a line as ringfence history" in ringfence("history", "verify", str(tmp_path / "octets"))[2]
    (tmp_path / "empty").touch()
    said = f"ringfence: {tmp_path / 'empty'}: it is empty, which proves nothing: "
    assert ringfence("history", "verify", str(tmp_path / "empty"))[::2] == (
        1,
        f"{said}export it again by ringfence history -o json\n",
    )
    said = f"ringfence: writing {tmp_path}: it is a folder, or its folder cannot be written\n"
    assert ringfence("demo", "--env", str(tmp_path)) == (1, "", said)


def test_octets_that_are_no_text_are_refused(ringfence):
    said = "ringfence: the line has letters that are not UTF-8: no name and no text can have them\n"
    assert ringfence("group", "create", "w\udcff") == (2, "", said)  # as Python gives them


def test_a_time_or_an_url_that_is_wrong_is_told_by_its_option(ringfence):
    said = "ringfence: --ttl: expected a time from 1s to 24h, got '25h'\n"
    assert ringfence("host", "token", "h1", "--ttl", "25h") == (2, "", said)
    said = "ringfence: --endpoint: expected http(s)://HOST[:PORT], with the path /v2 or none\n"
    assert ringfence("env", "--endpoint", "nowhere") == (2, "", said)


def test_a_password_in_a_url_is_refused_and_not_repeated(ringfence):
    ringfence("key", "create")  # a store that is SQLite's
    status, _, err = ringfence("server", "--database", "postgresql://u:secret@h/d")
    assert (status, "PGPASSFILE" in err, "secret" in err) == (2, True, False)
