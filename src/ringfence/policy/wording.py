"""Text for sentences: users' names made printable, suggestions for unknown names, times."""

from collections.abc import Iterable
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial
from heapq import nlargest
from operator import eq
from typing import Final

_FEW: Final = 10  # names fit into one readable line
_LONGEST: Final = 300  # letters of what may be near a name
_COMPARED: Final = 200  # names, letter by letter, which takes up to a millisecond for each


def shown(text: str) -> str:
    """A user's text with every non-printable character, such as a terminal's escapes, as its Python escape."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def suggestion(text: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, or all when they are few, or nothing.

    Of very many it is looked for among those alone that have most letters at the text's places, so that a slip of one
    caller does not keep the others waiting. O(known).
    """
    text = text[:_LONGEST]
    names = sorted({shown(name) for name in known})
    close = get_close_matches(text, nlargest(_COMPARED, names, partial(_alike, text)), n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(names)}" if 0 < len(names) < _FEW else ""


def moment_words(at: int) -> str:
    """Date and time in UTC of ``at``, in seconds since the epoch."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _alike(text: str, name: str) -> int:
    """How many letters are at the same place, counted from the beginning, and from the end."""
    forwards, backwards = map(eq, text, name), map(eq, reversed(text), reversed(name))
    return sum(map(bool, forwards)) + sum(map(bool, backwards))
