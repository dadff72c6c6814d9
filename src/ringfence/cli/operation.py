"""``ringfence operation``: what became of the changes that were accepted, and on which host."""

from typing import Annotated
from urllib.parse import quote

import typer

from ringfence.cli.options import DataOption, OrganisationOption, query_of
from ringfence.cli.output import Format, FormatOption, complain, show_rows

app = typer.Typer(help="Operations: what became of each change, host by host.", no_args_is_help=True)
_COLUMNS = ("id", "state", "revision", "touched", "message", "created-at")
_HOST_COLUMNS = ("host", "state", "after-ms", "reason")


@app.command("list")
def list_(
    data: DataOption,
    last: Annotated[int, typer.Option(min=1, max=1000, help="How many of the newest.")] = 50,
    organisation: OrganisationOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """The newest operations, newest first: their state, the revision that each made, how many hosts it touches.

    Example: [bold]ringfence operation list --last 5[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    query = {**query_of(organisation), "last": str(last)}
    show_rows(ask(data, Ask("GET", "/operations", None, query))["operations"], _COLUMNS, output)


@app.command("show")
def show(
    data: DataOption,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The operation's id, as the API answered it.")],
    organisation: OrganisationOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """One operation, host by host: applied (and how long after), failed with the kernel's reason, silent, or offline.

    Hosts go on converging after an operation's end: one that applied it late is shown as applied.
    Example: [bold]ringfence operation show 6c0f1e8e-0000-4000-8000-000000000001[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    found = ask(data, Ask("GET", f"/operations/{quote(id_, safe='')}", None, query_of(organisation)))
    message = f": {found['message']}" if found["message"] else ""
    complain(f"operation {found['id']} is {found['state']}{message}")
    show_rows(found["hosts"], _HOST_COLUMNS, output, nothing="it touches no host")
