"""``ringfence instance``: what wears groups."""

from typing import Annotated
from urllib.parse import quote

import typer

from ringfence.cli.change import Edit, changing
from ringfence.cli.options import DataOption, OrganisationOption, query_of
from ringfence.cli.output import Format, FormatOption, complain, show_rows

app = typer.Typer(
    help="Instances: declare one without a host, list all, observe or enforce, release, remove.", no_args_is_help=True
)
_COLUMNS = ("id", "name", "organisation", "host", "bound-to", "mode", "addresses", "groups")
NameArgument = Annotated[str, typer.Argument(help="The instance's name or id, as list shows it.")]


@app.command("add")
def add(
    data: DataOption,
    name: Annotated[str, typer.Argument(help="The instance's name.")],
    address: Annotated[list[str] | None, typer.Option(help="An IPv4 or IPv6 address; repeat for more.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="A UUID to keep; one is chosen if you give none.")] = None,
    mac: Annotated[str | None, typer.Option(help="Its MAC address.")] = None,
    organisation: OrganisationOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Declare an instance that no host carries: to develop against the API alone, or for a host to claim by its id.

    Instances of a host come from the agent's inventory: there they are really filtered.
    Example: [bold]ringfence instance add web-1 --address 192.0.2.10 --address 2001:db8::10[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    given = {"id": id_, "mac": mac}
    body = {"name": name, "addresses": address or []} | {field: value for field, value in given.items() if value}
    show_rows([ask(data, Ask("POST", "/instances", body, query_of(organisation)))], ("id", "name"), output)


@app.command("list")
def list_(data: DataOption, output: FormatOption = Format.TABLE) -> None:
    """Every instance with the host that runs it, the one that alone may claim it, its addresses and its groups.

    Example: [bold]ringfence instance list[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    show_rows(ask(data, Ask("GET", "/instances"))["instances"], _COLUMNS, output)


@app.command("observe")
@changing
def observe(name: NameArgument) -> list[Edit]:
    """Drop nothing of an instance any more: what would be dropped is counted and logged, and passes.

    Example: [bold]ringfence instance observe web-1[/bold], then [bold]ringfence observed web-1[/bold]
    """
    return [{"edit": "observe", "instance": name, "observe": True}]


@app.command("enforce")
@changing
def enforce(name: NameArgument) -> list[Edit]:
    """Drop what no rule of an instance allows, live connections included. This is how instances are born.

    A host that is an instance itself is born observed, so that no mistake in its groups makes it unreachable.
    Example: [bold]ringfence instance enforce web-1 --dry-run[/bold] says what was seen of it and would be dropped.
    """
    return [{"edit": "observe", "instance": name, "observe": False}]


@app.command("release")
def release(data: DataOption, name: NameArgument, organisation: OrganisationOption = None) -> None:
    """Let another host claim an instance whose host has given it up: it keeps its id, name and groups.

    First take it out of the inventory of the host that runs it, then release it, then give its id in the other's.
    Example: [bold]ringfence instance release web-1[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    ask(data, Ask("DELETE", f"/instances/{quote(name, safe='')}/host", query=query_of(organisation)))
    complain(f"instance {name} is bound to no host: another may claim it by its id")


@app.command("remove")
def remove(data: DataOption, name: NameArgument, organisation: OrganisationOption = None) -> None:
    """Forget an instance that is on no host, for good: it leaves its groups, and its name and addresses are free.

    First take it out of the inventory of the host that runs it.
    Example: [bold]ringfence instance remove web-1[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    ask(data, Ask("DELETE", f"/instances/{quote(name, safe='')}", query=query_of(organisation)))
    complain(f"instance {name} is removed")
