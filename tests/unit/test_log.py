"""Log lines: one JSON object each for machines, readable and harmless lines for a terminal."""

import io
import json
import logging
import sys

import pytest

from ringfence.log import JsonLines, ManyLines, PlainLines, configure_log


def record(text, **fields):
    made = logging.LogRecord("ringfence.api", logging.WARNING, "f.py", 1, text, (), None)
    made.created = 1700000000.25
    if fields:
        made.fields = fields
    return made


def test_a_machine_gets_one_object_a_line_whatever_a_caller_wrote():
    line = JsonLines().format(record('a\n"b"\x1b[2J\u2028', path="/v2/\n", status=404))
    assert "\n" not in line
    assert line.isascii()
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "ringfence.api",
        "message": 'a\n"b"\x1b[2J\u2028',
        "path": "/v2/\n",
        "status": 404,
    }


def test_a_person_gets_a_line_that_cannot_touch_the_terminal():
    line = PlainLines().format(record("refused \x1b[2J\n", path="/v2/zone", caller=None))
    assert line == "22:13:20 warning refused \\x1b[2J\\n (path=/v2/zone)"


def test_one_record_may_be_many_lines():
    rows = [(1700000000.25, "one é", {"n": 1}), (1700000001.5, "two", {"n": 2})]
    many = ManyLines(logging.getLogger("ringfence.api"), rows)
    shown = [json.loads(line) for line in JsonLines().format(many).split("\n")]
    assert [(line["time"][17:], line["level"], line["message"], line["n"]) for line in shown] == [
        ("20.250Z", "info", "one é", 1),
        ("21.500Z", "info", "two", 2),
    ]
    assert PlainLines().format(many) == "22:13:20 info one \\xe9 (n=1)\n22:13:21 info two (n=2)"


@pytest.mark.parametrize("formatter", [JsonLines(), PlainLines()])
def test_an_exception_is_shown_where_it_is_logged(formatter):
    made = record("broke")
    try:
        int("why")
    except ValueError:
        made.exc_info = sys.exc_info()
    assert "ValueError: invalid literal" in formatter.format(made)


def test_the_log_goes_to_one_place_as_json_when_nobody_watches(monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    stream = io.StringIO()
    configure_log(stream)
    logging.getLogger("ringfence.anything").info("hello", extra={"fields": {"n": 1}})
    assert json.loads(stream.getvalue())["n"] == 1
