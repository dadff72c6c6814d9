"""``ringfence group``: groups, their sources and who wears them; and public groups, which only an operator makes."""

from typing import Annotated

import typer

from ringfence.cli.change import Edit, changing
from ringfence.cli.options import DataOption, OrganisationOption, query_of
from ringfence.cli.output import Format, FormatOption, complain, show_rows

app = typer.Typer(help="Groups: list, create, delete, attach, detach, sources; public ones.", no_args_is_help=True)
source_app = typer.Typer(help="External sources of a group: add, remove.", no_args_is_help=True)
app.add_typer(source_app, name="source")
GroupArgument = Annotated[str, typer.Argument(help="The group's name or id.")]
InstanceArgument = Annotated[str, typer.Argument(help="The instance's name or id.")]
NetworkArgument = Annotated[str, typer.Argument(metavar="NETWORK", help="A network, or an address.")]


@app.command("list")
def list_(data: DataOption, organisation: OrganisationOption = None, output: FormatOption = Format.TABLE) -> None:
    """The groups: how many rules each has, how many instances wear it, its external sources.

    Example: [bold]ringfence group list[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    groups = ask(data, Ask("GET", "/security-groups", query=query_of(organisation)))["groups"]
    columns = ("name", "id", "rules", "worn-by", "sources", "visibility", "description")
    show_rows(groups, columns, output)


@app.command("create")
@changing
def create(
    name: Annotated[str, typer.Argument(help="The new group's name.")],
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
) -> list[Edit]:
    """Create a group. It has no rules yet: by it alone nothing is let in, and everything out.

    Example: [bold]ringfence group create web --description "the public site"[/bold]
    """
    return [{"edit": "create-group", "name": name, "description": description}]


@app.command("delete")
@changing
def delete(group: GroupArgument) -> list[Edit]:
    """Delete a group that nobody wears and no rule of another group names.

    Example: [bold]ringfence group delete web[/bold]
    """
    return [{"edit": "delete-group", "group": group}]


@app.command("attach")
@changing
def attach(group: GroupArgument, instance: InstanceArgument) -> list[Edit]:
    """Have an instance wear a group.

    Example: [bold]ringfence group attach web web-1[/bold]
    """
    return [{"edit": "attach", "group": group, "instance": instance}]


@app.command("detach")
@changing
def detach(group: GroupArgument, instance: InstanceArgument) -> list[Edit]:
    """Have an instance wear a group no more; connections that the group alone allowed are cut.

    Example: [bold]ringfence group detach web web-1[/bold]
    """
    return [{"edit": "detach", "group": group, "instance": instance}]


@app.command("observe")
@changing
def observe(group: GroupArgument) -> list[Edit]:
    """Drop nothing any more of the instances that wear a group at this moment: what would be is counted and logged.

    Who wears it later is not observed by that. Then: [bold]ringfence observed web[/bold].
    Example: [bold]ringfence group observe web[/bold]
    """
    return [{"edit": "observe", "group": group, "observe": True}]


@app.command("enforce")
@changing
def enforce(group: GroupArgument) -> list[Edit]:
    """Drop again what no rule allows, of all instances that wear a group at this moment.

    Example: [bold]ringfence group enforce web[/bold]
    """
    return [{"edit": "observe", "group": group, "observe": False}]


@source_app.command("add")
@changing
def add_source(group: GroupArgument, network: NetworkArgument) -> list[Edit]:
    """Add a network to what a group means where rules name it.

    Example: [bold]ringfence group source add office 203.0.113.0/24[/bold]
    """
    return [{"edit": "add-source", "group": group, "source": network}]


@source_app.command("remove")
@changing
def remove_source(group: GroupArgument, network: NetworkArgument) -> list[Edit]:
    """Take a network out of what a group means where rules name it.

    Example: [bold]ringfence group source remove office 203.0.113.0/24[/bold]
    """
    return [{"edit": "remove-source", "group": group, "source": network}]


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
    """The public groups and the networks they stand for.

    Example: [bold]ringfence group public-list[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    columns = ("id", "name", "description", "external-sources")
    show_rows(ask(data, Ask("GET", "/groups"))["groups"], columns, output)
