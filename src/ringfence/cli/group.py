"""``ringfence group``: public groups, which only an operator makes. All other groups are made through the API."""

from typing import Annotated

import typer

from ringfence.cli.options import DataOption
from ringfence.cli.output import Format, FormatOption, complain, show_rows

app = typer.Typer(help="Public groups: peers that every organisation may name.", no_args_is_help=True)


@app.command("public-create")
def public_create(
    data: DataOption,
    name: Annotated[str, typer.Argument(help="How rules name it, e.g. public-monitoring.")],
    description: Annotated[str | None, typer.Option(help="What it stands for.")] = None,
) -> None:
    """Create a public group: rules of anybody may name it as their peer, by its name.

    Example: [bold]ringfence group public-create public-monitoring --description "our probes"[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    ask(data, Ask("POST", "/groups", {"name": name} | ({"description": description} if description else {})))
    complain(f"public group {name} is there")


@app.command("public-list")
def public_list(data: DataOption, output: FormatOption = Format.TABLE) -> None:
    """The public groups and the networks they stand for."""
    from ringfence.cli.admin_client import Ask, ask

    columns = ("id", "name", "description", "external-sources")
    show_rows(ask(data, Ask("GET", "/groups"))["groups"], columns, output)
