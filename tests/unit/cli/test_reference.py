"""docs/reference/cli.md and --help tell of the same verbs and options."""

import re
from pathlib import Path

import pytest
import typer

from ringfence.cli.app import app

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "cli.md"
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
_SAID = re.compile(r"(?<![\w/-])ringfence ([a-z][^`\n|)#;&>]*)")
SHARED = {"--help", "--data", "--output", "--install-completion", "--show-completion"}  # told once, above the verbs


def _verbs(command, path):
    if hasattr(command, "commands"):
        if command.invoke_without_command and path != "ringfence":
            yield path, command
        if command.invoke_without_command:
            yield path, command
        for name, inner in command.commands.items():
            yield from _verbs(inner, f"{path} {name}")
    else:
        yield path, command


VERBS = dict(_verbs(typer.main.get_command(app), "ringfence"))
SECTIONS = dict(
    re.findall(
        r"^## (ringfence [a-z -]+)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
)


def _options(command):
    return {option for parameter in command.params for option in parameter.opts if option.startswith("--")}


def test_every_verb_has_a_section_and_every_section_a_verb():
    assert set(SECTIONS) == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_verb_stands_in_its_section(verb):
    assert {option for option in _options(VERBS[verb]) - SHARED if option not in SECTIONS[verb]} == set()


@pytest.mark.parametrize("verb", VERBS)
def test_a_section_tells_of_no_option_that_there_is_not(verb):
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", SECTIONS[verb])) - SHARED <= _options(VERBS[verb])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_text(verb):
    assert (VERBS[verb].help or "").strip().endswith((".", "]", '"'))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_tells_of_a_verb_or_an_option_that_there_is_not(page):
    """Of sentences only those that begin with a verb: ``ringfence`` is the name of the whole, too."""
    for said in _SAID.findall(page.read_text(encoding="utf-8")):
        words = said.split()
        verb = "ringfence"
        while words and any(f"{known} ".startswith(f"{verb} {words[0]} ") for known in VERBS):
            verb = f"{verb} {words.pop(0)}"
        if verb in VERBS:
            options = {found[0] for word in words if (found := re.match(r"--[a-z][a-z0-9-]+", word))}
            assert options <= _options(VERBS[verb]) | SHARED, f"ringfence {said}"
        elif verb != "ringfence" and words:
            assert not re.fullmatch(r"[a-z-]+", words[0]), f"ringfence {said}"
