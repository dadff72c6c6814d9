"""The process that an agent is: what it loads for its whole life, and how it says that it cannot begin."""

import json
import logging
import subprocess
import sys

from ringfence.agent.__main__ import main

_LIBRARIES = {"typer", "rich", "pydantic", "httpx", "httpcore", "anyio", "cryptography", "http", "email", "difflib"}
_NEEDLESS = _LIBRARIES | {"ringfence.cli", "ringfence.control"}


def test_an_agent_loads_nothing_that_only_command_lines_doctors_or_servers_need():
    code = "import sys, ringfence.agent.__main__; print(*sys.modules)"
    loaded = subprocess.check_output((sys.executable, "-c", code), text=True).split()  # noqa: S603  our own program
    assert "ringfence.agent.loop" in loaded
    assert not _NEEDLESS & set(loaded)


def test_an_agent_that_cannot_begin_says_why_in_its_log(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RINGFENCE_HOST", raising=False)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert main([f"data={tmp_path}", "inventory=/nowhere", "server=unix:/nowhere"]) == 1
    line = json.loads(capsys.readouterr().err)
    assert line["level"] == "critical"
    assert "ringfence agent join" in line["message"]
