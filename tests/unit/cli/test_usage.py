"""What is said of a command line that is wrong, and what ``--help`` looks like."""

import os
import subprocess
import sys

import pytest
import typer.main

from ringfence.cli.app import app, run
from ringfence.cli.metrics import _families
from ringfence.cli.usage import dress

TREE = dress(typer.main.get_command(app))


def _verbs(command, path=()):
    if not hasattr(command, "commands") or (command.invoke_without_command and path):
        yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _verbs(inner, (*path, name))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("explain app db", "explain: SERVICE is missing: tcp/5432, udp/53, icmp,"),
        ("explain app db tcp/1 more", "explain: too much on the line: more\n  usage: ringfence explain [OPTIONS] "),
        ("reach --form db", "reach: there is no option --form; did you mean --from or --to?\n"),
        ("rule add web tcp/1 --from", "option '--from' needs a value\n"),
        ("grup list", "no such command 'grup'. Did you mean 'group'?\n  usage: ringfence [OPTIONS] COMMAND"),
        ("group lst", "group: no such command 'lst'. Did you mean 'list'?\n"),
        ("host drops h1 --limit ten", "host drops: --limit: expected a whole number\n"),
        ("server --rate-limit -3", "server: --rate-limit: expected a number of at least 0\n"),
        ("key create --role king", "key create: --role: 'king' is not one of 'owner', 'operator', 'reader'\n"),
        ("diff x", "diff: REVISION: expected a whole number\n"),
    ],
)
def test_a_wrong_line_is_told_what_is_wrong_with_it(capsys, line, said):
    assert run(line.split()) == 2
    out, err = capsys.readouterr()
    assert (out, err[: len(f"ringfence: {said}")]) == ("", f"ringfence: {said}")


def test_a_wrong_line_ends_with_an_example_that_is_right(capsys):
    run(["rule", "add", "web"])
    assert capsys.readouterr().err.splitlines()[1:] == [
        "  usage: ringfence rule add [OPTIONS] GROUP SERVICE",
        "  for example: ringfence rule add web tcp/443 --from 0.0.0.0/0",
        "  more: ringfence rule add --help",
    ]


@pytest.mark.parametrize("verb", [path for path, _ in _verbs(TREE)], ids=" ".join)
def test_the_help_of_a_verb_has_an_example_and_fits(capsys, monkeypatch, verb):
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Example: " in shown
    assert "<bool>" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_verbs_alone_show_help_and_nothing_else(capsys):
    assert run(["group"]) == 2
    out, err = capsys.readouterr()
    assert "Usage: ringfence group" in out
    assert err == ""


def test_a_reader_that_goes_away_is_no_traceback():
    line = f"{sys.executable} -m ringfence --help | true"
    ended = subprocess.run(["bash", "-c", line], env=os.environ, capture_output=True, check=False)  # noqa: S603, S607
    assert ended.stderr == b""


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("key create > /dev/full", 1, "ringfence: writing the result: No space left on device\n"),
        ("--help > /dev/full", 1, "ringfence: the system refuses: No space left on device\n"),
        ("key list >&-", 0, ""),
        ("key list -o json >&-", 0, ""),
        ("key list 2>&-", 0, ""),
        ("grup 2>&-", 2, ""),
    ],
)
def test_an_output_that_takes_nothing_is_no_traceback(tmp_path, line, status, said):
    run(["key", "create", "--data", str(tmp_path)])
    environment = os.environ | {"RINGFENCE_DATA": str(tmp_path)}
    command = ["bash", "-c", f"{sys.executable} -m ringfence {line}"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert (ended.returncode, ended.stderr) == (status, said)


def test_a_name_in_a_metric_is_escaped_as_prometheus_reads_it():
    row = {"host": "h1", "group": 'a"b\\c\nd', "judged": 7}
    *_, line = _families((("judged_total", "counter", "Packets.", "judged"),), [row], ("host", "group"))
    assert line == r'ringfence_judged_total{host="h1",group="a\"b\\c\nd"} 7'
