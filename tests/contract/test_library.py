"""docs/library.md: every line of it runs."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "library.md"


def test_every_example_of_the_page_says_what_it_shows():
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert found.attempted > 40
    assert found.failed == 0
