"""``ringfence doctor``: what this host can and cannot do, and what stands in the way."""

from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.output import Format, FormatOption, show_rows

_COLUMNS = ("state", "about", "text", "advice")


def doctor(
    inventory: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The agent's inventory: what it declares is looked at, too.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="The agent's own folder: it is looked at, and the server that it names is asked."),
    ] = None,
    *,
    output: FormatOption = Format.TABLE,
) -> None:
    """Look at this host, in the network namespace this is started in, and say what is wrong and what to do.

    Nothing is changed. What needs root is skipped without it. Exit status: 0 no problem, 1 some; warnings are none.
    Example: [bold]sudo ringfence doctor --inventory /etc/rf.toml[/bold]
    """
    import os

    from ringfence.agent.examination import examine_host

    findings = examine_host(inventory, data, os.environ)
    rows = [{"state": one.state.value, "about": one.about, "text": one.text, "advice": one.advice} for one in findings]
    show_rows(rows, _COLUMNS, output)
    if any(row["state"] == "problem" for row in rows):
        raise typer.Exit(1)
