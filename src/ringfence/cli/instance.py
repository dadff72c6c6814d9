"""``ringfence instance``: what wears groups."""

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from ringfence.cli.change import ForceOption
from ringfence.cli.options import DataOption, OrganisationOption, query_of
from ringfence.cli.output import Format, FormatOption, complain, show_rows

app = typer.Typer(help="Instances: declare one without a host, list all, observe or enforce.", no_args_is_help=True)
_COLUMNS = ("id", "name", "organisation", "host", "mode", "addresses", "groups")


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
    """Declare an instance that no host carries, to develop against the API alone.

    Instances of a host come from the agent's inventory: there they are really filtered.
    Example: [bold]ringfence instance add web-1 --address 192.0.2.10 --address 2001:db8::10[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    given = {"id": id_, "mac": mac}
    body = {"name": name, "addresses": address or []} | {field: value for field, value in given.items() if value}
    show_rows([ask(data, Ask("POST", "/instances", body, query_of(organisation)))], ("id", "name"), output)


@app.command("list")
def list_(data: DataOption, output: FormatOption = Format.TABLE) -> None:
    """Every instance with its host, its addresses and the groups it wears."""
    from ringfence.cli.admin_client import Ask, ask

    show_rows(ask(data, Ask("GET", "/instances"))["instances"], _COLUMNS, output)


OwnerOption = Annotated[
    str | None, typer.Option("--organisation", help="Whose instance is meant, when several have instances of the name.")
]
NameArgument = Annotated[str, typer.Argument(help="The instance's name or id, as list shows it.")]


@app.command("observe")
def observe(data: DataOption, name: NameArgument, organisation: OwnerOption = None) -> None:
    """Drop nothing of an instance any more: what would be dropped is counted and logged, and passes.

    Example: [bold]ringfence instance observe web-1[/bold], then [bold]ringfence host drops[/bold]
    """
    _set_mode(data, name, organisation, observe=True)


@app.command("enforce")
def enforce(
    data: DataOption, name: NameArgument, organisation: OwnerOption = None, *, force: ForceOption = False
) -> None:
    """Drop what no rule of an instance allows, live connections included. This is how instances are born.

    A host that is an instance itself is born observed, so that no mistake in its groups makes it unreachable.
    """
    _set_mode(data, name, organisation, observe=False, force=force)


def _set_mode(data: Path, name: str, organisation: str | None, *, observe: bool, force: bool = False) -> None:
    from ringfence.cli.admin_client import Ask, ask

    body: dict[str, object] = {"observe": observe, "force": force}
    operation = ask(data, Ask("PUT", f"/instances/{quote(name, safe='')}", body, query_of(organisation)))
    mode = "observed: nothing of it is dropped" if observe else "enforced"
    note = f" ({operation['message']})" if operation.get("message") else ""
    complain(f"instance {name} is {mode}; operation {operation['state']}{note}")
