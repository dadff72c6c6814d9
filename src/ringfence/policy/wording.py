"""Text for sentences: users' names made printable, suggestions for unknown names, times."""

from collections.abc import Iterable
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Final

_FEW: Final = 10  # names fit into one readable line


def shown(text: str) -> str:
    """A user's text with every non-printable character, such as a terminal's escapes, as its Python escape."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def suggestion(text: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, or all when they are few, or nothing."""
    names = sorted({shown(name) for name in known})
    close = get_close_matches(text, names, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(names)}" if 0 < len(names) < _FEW else ""


def moment_words(at: int) -> str:
    """Date and time in UTC of ``at``, in seconds since the epoch."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
