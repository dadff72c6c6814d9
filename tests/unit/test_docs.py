"""The contract in docs/semantics.md and the tests that send it over the wire name each other, whole."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEMANTICS = ROOT / "docs" / "semantics.md"
ROW_FILES = (
    "test_semantics.py",
    "test_frames.py",
    "test_cut.py",
    "test_atomic.py",
    "test_blink.py",
    "test_self.py",
    "test_bridged.py",
    "test_observe.py",
    "test_expected.py",
)
_TEST = re.compile(r"`(test_\w+)`")
_LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
PAGES = ("beside.md", "semantics.md", "dataplane.md", "threats.md", "glossary.md")


def _rows():
    """The rows of every table, without heads and rulers."""
    lines = SEMANTICS.read_text(encoding="utf-8").splitlines()
    table = [(line, below) for line, below in zip(lines, [*lines[1:], ""], strict=True) if line.startswith("|")]
    return [line for line, below in table if not line.startswith("|---") and not below.startswith("|---")]


def _functions(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def _row_tests():
    functions = set().union(*(_functions(ROOT / "tests" / "netns" / name) for name in ROW_FILES))
    return {name for name in functions if name.startswith("test_")}


def test_every_row_of_the_semantics_has_a_test_and_a_source():
    rows = _rows()
    assert len(rows) > 40
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert all(cells), row
        assert _TEST.findall(cells[-1]), f"no test in: {row}"


def test_every_test_that_the_semantics_name_exists_and_every_test_of_a_row_is_named():
    named = {name for row in _rows() for name in _TEST.findall(row)}
    assert named == _row_tests()


def test_links_between_the_pages_lead_somewhere():
    for page in (ROOT / "docs" / name for name in PAGES):
        targets = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
        assert all((page.parent / target).exists() for target in targets), (page, targets)
