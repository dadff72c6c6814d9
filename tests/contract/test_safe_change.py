"""docs/safe-change.md shows what the commands print, one after the other, on a fresh server."""

import re
from pathlib import Path

from contract.running import running_server
from ringfence.cli.app import run

PAGE = Path(__file__).parents[2] / "docs" / "safe-change.md"
EXAMPLES = re.findall(r"```console\n\$ ringfence ([^\n]*)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
_VARYING = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?= UTC)")


def test_the_page_shows_what_the_commands_print(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RINGFENCE_DATA", str(tmp_path))
    with running_server(tmp_path):
        for line, wanted in EXAMPLES:
            assert run(line.split()) == 0, line
            shown = capsys.readouterr()
            assert _VARYING.sub("…", shown.out + shown.err) == wanted, line
