"""Log lines: one JSON object each for machines, readable and harmless lines for a terminal."""

import io
import json
import logging
import sys

import pytest

from ringfence.log import JsonLines, PlainLines, configure_log


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
