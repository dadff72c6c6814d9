"""The page of the policy file shows what the commands print."""

import re
from pathlib import Path

import pytest

from ringfence.cli.app import run

PAGE = (Path(__file__).parents[2] / "docs" / "policy-file.md").read_text(encoding="utf-8")
POLICY = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]
EXAMPLES = re.findall(r"```console\n\$ ringfence ([^\n]*)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("line", "wanted"), EXAMPLES)
def test_the_page_shows_what_the_command_prints(tmp_path, capsys, monkeypatch, line, wanted):
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(POLICY, encoding="utf-8")
    assert run(line.split()) == 0
    shown = capsys.readouterr()
    assert re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "…", shown.out + shown.err) == wanted
