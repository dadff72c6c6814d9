"""``ringfence instance``: what wears groups."""

from typing import Annotated

import typer

from ringfence.cli.options import DataOption
from ringfence.cli.output import Format, FormatOption, show_rows

app = typer.Typer(help="Instances: declare one without a host, list all.", no_args_is_help=True)
_COLUMNS = ("id", "name", "host", "addresses", "groups")


@app.command("add")
def add(
    data: DataOption,
    name: Annotated[str, typer.Argument(help="The instance's name.")],
    address: Annotated[list[str] | None, typer.Option(help="An IPv4 or IPv6 address; repeat for more.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="A UUID to keep; one is chosen if you give none.")] = None,
    mac: Annotated[str | None, typer.Option(help="Its MAC address.")] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Declare an instance that no host carries, to develop against the API alone.

    Instances of a host come from the agent's inventory: there they are really filtered.
    Example: [bold]ringfence instance add web-1 --address 192.0.2.10 --address 2001:db8::10[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    given = {"id": id_, "mac": mac}
    body = {"name": name, "addresses": address or []} | {field: value for field, value in given.items() if value}
    show_rows([ask(data, Ask("POST", "/instances", body))], ("id", "name"), output)


@app.command("list")
def list_(data: DataOption, output: FormatOption = Format.TABLE) -> None:
    """Every instance with its host, its addresses and the groups it wears."""
    from ringfence.cli.admin_client import Ask, ask

    show_rows(ask(data, Ask("GET", "/instances"))["instances"], _COLUMNS, output)
