"""Pages with a policy file show what the commands print when they are asked about it."""

import re
from pathlib import Path

import pytest

from ringfence.cli.app import run

DOCS = Path(__file__).parents[2] / "docs"
_EXAMPLE = re.compile(r"```console\n\$ ringfence ([^\n]*)\n(.*?)```", re.DOTALL)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def examples(page):
    """The policy of a page, and each command line with what it prints."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1], _EXAMPLE.findall(text)


def without_ids(text):
    return _UUID.sub("…", text)


def _offline(*pages):
    for page in pages:
        policy, found = examples(page)
        offline = (one for one in found if not one[0].startswith("apply"))  # which test_apply shows beside a server
        yield from (pytest.param(policy, *one, id=f"{page}-{one[0]}") for one in offline)


@pytest.mark.parametrize(("policy", "line", "wanted"), [*_offline("policy-file.md", "explain.md", "machines.md")])
def test_the_page_shows_what_the_command_prints(tmp_path, capsys, monkeypatch, policy, line, wanted):
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(policy, encoding="utf-8")
    assert run(line.split()) == 0
    shown = capsys.readouterr()
    assert without_ids(shown.out + shown.err) == wanted
