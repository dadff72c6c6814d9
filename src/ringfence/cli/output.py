"""How results look: a table for people, JSON or shell assignments for scripts; and how complaints look on stderr."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

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

FormatOption = Annotated[Format, typer.Option("--output", "-o", help="table for people, json for scripts.")]
KeyFormatOption = Annotated[
    KeyFormat, typer.Option("--output", "-o", help="table for people, json for scripts, env for a shell's eval.")
]


def show_rows(
    rows: Sequence[Row], columns: Sequence[str], output: Format, *, nothing: str = "nothing there yet"
) -> None:
    """Rows as aligned columns, or as a JSON list of whole rows; ``nothing`` is what is said when there are none."""
    if output is Format.JSON:
        show(json.dumps(list(rows), indent=2))
    elif rows:
        show("\n".join(_aligned([columns, *([_cell(row.get(column), column) for column in columns] for row in rows)])))
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
    typer.echo(_plain_lines(text))


def complain(text: str) -> None:
    """A message that is no result, on stderr."""
    print(f"ringfence: {_plain_lines(text)}", file=sys.stderr)  # noqa: T201  the command line's own voice


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


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
