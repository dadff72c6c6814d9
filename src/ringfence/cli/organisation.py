"""``ringfence organisation``: who owns groups, instances, hosts and keys, and how much of them each may have."""

from typing import Annotated
from urllib.parse import quote

import typer

from ringfence.cli.options import DataOption
from ringfence.cli.output import Format, FormatOption, complain, show_rows
from ringfence.policy.errors import Invalid

app = typer.Typer(help="Organisations: create, list, remove, set quotas.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="The organisation's name.")]


@app.command("create")
def create(data: DataOption, name: NameArgument) -> None:
    """Create an organisation. What is one's is not there for the others, whatever they ask.

    Example: [bold]ringfence organisation create acme && ringfence key create --organisation acme[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    ask(data, Ask("POST", "/organisations", {"name": name}))
    complain(f"organisation {name} is there, with its group default and no key yet")


@app.command("list")
def list_(data: DataOption, output: FormatOption = Format.TABLE) -> None:
    """The organisations, the first one before all others.

    Example: [bold]ringfence organisation list[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    show_rows(ask(data, Ask("GET", "/organisations"))["organisations"], ("id", "name"), output)


@app.command("remove")
def remove(data: DataOption, name: NameArgument) -> None:
    """Remove an organisation that has no hosts, instances and groups any more; its keys are revoked with it.

    Example: [bold]ringfence organisation remove acme[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    ask(data, Ask("DELETE", _path(name)))
    complain(f"organisation {name} is removed")


@app.command("quota")
def quota(
    data: DataOption,
    name: NameArgument,
    limits: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LIMIT=VALUE]...", help="Limits to set: a number, unlimited, or default."),
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what an organisation uses of each of its limits, after setting those that are given.

    Example: [bold]ringfence organisation quota acme security-group=200 rule-per-group=default[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    path = f"{_path(name)}/quota"
    wanted = dict(_parse(text) for text in limits or ())
    answer = ask(data, Ask("PUT", path, wanted) if wanted else Ask("GET", path))
    show_rows(answer["quotas"], ("name", "used", "limit"), output)


def _path(name: str) -> str:
    return f"/organisations/{quote(name, safe='')}"


def _parse(text: str) -> tuple[str, int | None]:
    name, _, value = text.partition("=")
    if value == "default":
        return name, None
    if value == "unlimited":
        return name, -1
    if not value.isdecimal() or not value.isascii():
        raise Invalid(f"expected NAME=NUMBER, NAME=unlimited or NAME=default, got {text!a}", field="LIMIT=VALUE")
    return name, int(value)
