"""Names of persons in our sentences: printable, whatever they contain; and the one that was probably meant."""

from collections.abc import Iterable
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Final

_FEW: Final = 10  # names fit into one readable line


def shown(text: str) -> str:
    """A person's text in which what a terminal would obey, or end a line at, stands as its escape in Python."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def suggestion(text: str, known: Iterable[str]) -> str:
    """The end of a sentence that says a name is unknown: the nearest that is known, or all when they are few."""
    names = sorted({shown(name) for name in known})
    close = get_close_matches(text, names, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(names)}" if 0 < len(names) < _FEW else ""


def moment_words(at: int) -> str:
    """A time of the day, given in seconds since the epoch."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
