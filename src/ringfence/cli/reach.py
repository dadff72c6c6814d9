"""``ringfence reach``: who can reach whom, exactly, and by which rules."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ringfence.cli.options import DataOption
from ringfence.cli.outlook import INDENT
from ringfence.cli.output import Format, FormatOption, complain, show, show_rows
from ringfence.cli.questions import FileOption, question

_END = "An instance or group (name or id), an address, a network, internet, or any."


def reach(
    data: DataOption,
    service: Annotated[
        str | None, typer.Argument(help="tcp/5432, tcp/80-90, udp, icmp/8, esp; several with commas.")
    ] = None,
    source: Annotated[str | None, typer.Option("--from", help=_END)] = None,
    destination: Annotated[str | None, typer.Option("--to", help=_END)] = None,
    file: FileOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Say who can reach whom on what, exactly, and by which rules; without ends, every group and every group.

    Rules are told where at least one end is given, and with -o json.
    Example: [bold]ringfence reach --to db tcp/5432[/bold]
    """
    given = {"from": source, "to": destination, "service": service}
    query = {name: value for name, value in given.items() if value is not None}
    rows = question(data, file, "reach", query)["reach"]
    if rows and output is Format.TABLE and (source or destination):
        show("\n".join(line for row in rows for line in _lines(row)))
    elif rows or output is Format.JSON:
        show_rows(rows, ("from", "to", "services"), output)
    else:
        complain("nothing passes")


def _lines(row: dict[str, Any]) -> Iterator[str]:
    """A row in the form in which a plan shows what opens."""
    yield f"{', '.join(row['from'])} -> {', '.join(row['to'])} {row['services']}"
    yield from (f"{INDENT}{rule}" for rule in row["rules"])
