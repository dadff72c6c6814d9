"""How results look: a table for people, JSON or shell assignments for scripts; and how complaints look on stderr."""

import json
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from itertools import zip_longest
from typing import Annotated, Final

import typer


class Format(StrEnum):
    """What ``-o`` may name."""

    TABLE = "table"
    JSON = "json"


class KeyFormat(StrEnum):
    """What ``-o`` may name where the result is a secret to be kept in variables."""

    TABLE = "table"
    JSON = "json"
    ENV = "env"


Row = Mapping[str, object]
_GAP: Final = "  "

FormatOption = Annotated[Format, typer.Option("--output", "-o", help="table for people, json for scripts.")]
KeyFormatOption = Annotated[
    KeyFormat, typer.Option("--output", "-o", help="table for people, json for scripts, env for a shell's eval.")
]


def show_rows(
    rows: Sequence[Row], columns: Sequence[str], output: Format, *, nothing: str = "nothing there yet"
) -> None:
    """Rows as aligned columns, or as a JSON list of whole rows; ``nothing`` is what is said when there are none.

    On a terminal that is too narrow, texts of several words are wrapped; what goes elsewhere has a line for each row.
    """
    if output is Format.JSON:
        show(json.dumps(list(rows), indent=2))
    elif rows:
        cells = [[_cell(row.get(column), column) for column in columns] for row in rows]
        show(
            "\n".join(_aligned([columns, *cells], shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
        )
    else:
        complain(nothing)


def show_secret(fields: Row, variables: Mapping[str, str], output: KeyFormat) -> None:
    """One result whose ``variables`` (name of the variable -> name of the field) can be kept in a shell."""
    match output:
        case KeyFormat.JSON:
            show(json.dumps(fields, indent=2))
        case KeyFormat.ENV:
            show("\n".join(f"{variable}={shlex.quote(str(fields[name]))}" for variable, name in variables.items()))
        case KeyFormat.TABLE:
            show("\n".join(_aligned([[name, _cell(value, name)] for name, value in fields.items()])))


def show(text: str) -> None:
    """A result, on stdout."""
    try:
        typer.echo(_plain_lines(text))
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, say
        raise OSError(error.errno, error.strerror, "writing the result") from error


def complain(text: str) -> None:
    """A message that is no result, on stderr."""
    print(f"ringfence: {_plain_lines(text)}", file=sys.stderr)  # noqa: T201  the command line's own voice


def _aligned(rows: Sequence[Sequence[str]], within: int | None = None) -> list[str]:
    """A line for each row; ``within`` so many letters, as far as they can be, cells go on below their first line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if within is not None:
        _narrow(widths, [max(map(_longest_word, column)) for column in zip(*rows, strict=True)], within)
    return [line for row in rows for line in _lines(row, widths)]


def _narrow(widths: list[int], least: Sequence[int], within: int) -> None:
    """The widest that can be narrower, again and again; words stay whole, so that ids can be copied."""
    while sum(widths) + len(_GAP) * (len(widths) - 1) > within:
        wide = [column for column, width in enumerate(widths) if width > least[column]]
        if not wide:
            return
        widths[max(wide, key=widths.__getitem__)] -= 1


def _lines(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    cells = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    for parts in zip_longest(*cells, fillvalue=""):
        yield _GAP.join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()


def _wrapped(cell: str, width: int) -> list[str]:
    if len(cell) <= width:
        return [cell]
    return textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False)


def _longest_word(cell: str) -> int:
    return max(map(len, cell.split()), default=0)


def _cell(value: object, column: str) -> str:
    if value in (None, [], ""):
        return "-"
    if column.endswith("-at") and isinstance(value, int):
        return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M} UTC"
    if isinstance(value, list):
        return _plain(", ".join(str(item) for item in value))
    return f"{value:.1f}" if isinstance(value, float) else _plain(str(value))


def _plain_lines(text: str) -> str:
    return "\n".join(_plain(line) for line in text.split("\n"))


def _plain(text: str) -> str:
    """Names are others' words: what is not printable is shown escaped, so that it cannot steer a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
