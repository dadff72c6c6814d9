"""Sentences about names that are not known."""

from difflib import get_close_matches
from time import process_time

import pytest

from ringfence.policy.wording import suggestion

MANY = [f"group-of-the-team-{number:05d}" for number in range(5_000)]


@pytest.mark.parametrize(
    ("text", "known", "says"),
    [
        ("wbe", ["web", "database"], "; did you mean web?"),
        ("zzz", ["web", "database"], "; known are database, web"),
        ("zzz", [f"host-{number}" for number in range(50)], ""),
        ("zzz", [], ""),
    ],
)
def test_the_nearest_name_is_suggested_or_all_of_few(text, known, says):
    assert suggestion(text, known) == says


def test_of_many_names_few_are_compared_letter_by_letter():
    text = MANY[4_321].replace("team", "taem")
    took_s = _took_s(lambda: suggestion(text, MANY))
    assert took_s < _took_s(lambda: get_close_matches(text, MANY[:2500]))
    assert suggestion(text, MANY) == f"; did you mean {MANY[4_321]}?"


def test_a_text_of_a_megabyte_is_near_no_name():
    assert suggestion("x" * 1_000_000, ["web"]) == "; known are web"


def _took_s(work):
    began_s = process_time()
    work()
    return process_time() - began_s
