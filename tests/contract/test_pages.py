"""Pages with a policy file show what the commands print when they are asked about it."""

import re
from pathlib import Path

import pytest

from ringfence.cli.app import run

DOCS = Path(__file__).parents[2] / "docs"
_EXAMPLE = re.compile(r"```console\n\$ ringfence ([^\n]*)\n(.*?)```", re.DOTALL)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _examples(*pages):
    for page in pages:
        text = (DOCS / page).read_text(encoding="utf-8")
        policy = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1]
        yield from (pytest.param(policy, *found, id=f"{page}-{found[0]}") for found in _EXAMPLE.findall(text))


@pytest.mark.parametrize(("policy", "line", "wanted"), _examples("policy-file.md", "explain.md"))
def test_the_page_shows_what_the_command_prints(tmp_path, capsys, monkeypatch, policy, line, wanted):
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(policy, encoding="utf-8")
    assert run(line.split()) == 0
    shown = capsys.readouterr()
    assert _UUID.sub("…", shown.out + shown.err) == wanted
