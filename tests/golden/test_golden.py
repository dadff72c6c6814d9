"""Policies for people beside the nft text that enforces them. `make golden` rewrites the text: read what changed.

Each NAME.toml holds groups with rules in words and the instances that wear them; NAME.nft is what comes of it. The ids
in it are made of the names, and a legend says which is which.
"""

import os
from pathlib import Path

import pytest

from ringfence.nft import About, Generation, render_text
from ringfence.policy.program import names
from ringfence.policy.program.compile import compile_program
from ringfence.policy.view import resolve_view
from wordings import load_policy

POLICIES = sorted(Path(__file__).parent.glob("*.toml"))
REWRITE = os.environ.get("RINGFENCE_GOLDEN") == "1"


def rendered(path):
    snapshot, ports = load_policy(path)
    view = resolve_view(snapshot)
    text = render_text(compile_program(view, ports), Generation(3), About(7, "golden"))
    return "\n".join([*_legend(snapshot, view), "", text])


def _legend(snapshot, view):
    yield f"# {len(snapshot.groups)} groups on {len(view.endpoints)} ports, from the .toml of the same name."
    for group in snapshot.groups.values():
        yield f"# group {group.name}: {group.id.hex}"
        yield from (f"#   rule {rule.id.hex}: {words}" for rule, words in zip(group.rules, _words(group), strict=True))
    worn = {endpoint.groups for endpoint in view.endpoints}
    for groups in sorted(worn):
        wearing = ", ".join(snapshot.groups[group].name for group in groups) or "nothing"
        yield f"# profile {names.profile_of(groups)}: wears {wearing}"


def _words(group):
    return [rule.description for rule in group.rules]


@pytest.mark.parametrize("path", POLICIES, ids=[path.stem for path in POLICIES])
def test_the_policy_gives_the_expected_text(path):
    expected = path.with_suffix(".nft")
    if REWRITE:
        expected.write_text(rendered(path), encoding="ascii")
    assert rendered(path) == expected.read_text(encoding="ascii"), f"{expected.name} is not current: make golden"


def test_every_expected_text_has_its_policy():
    assert {path.stem for path in Path(__file__).parent.glob("*.nft")} == {path.stem for path in POLICIES}
