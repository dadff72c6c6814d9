"""``ringfence reach``: who can reach whom, exactly, and by which rules."""

from typing import Annotated

import typer

from ringfence.cli.options import DataOption
from ringfence.cli.output import Format, FormatOption, complain, show_rows
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
    """Say who can reach whom on what, exactly, with the rules that imply it; without ends, every group and every group.

    Example: [bold]ringfence reach --to db tcp/5432[/bold]
    """
    given = {"from": source, "to": destination, "service": service}
    query = {name: value for name, value in given.items() if value is not None}
    rows = question(data, file, "reach", query)["reach"]
    if rows or output is Format.JSON:
        show_rows(rows, ("from", "to", "services", "rules"), output)
    else:
        complain("nothing passes")
