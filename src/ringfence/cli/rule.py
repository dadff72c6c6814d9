"""``ringfence rule``: rules of groups, changed on the server's own machine. Programs use the API."""

from typing import Annotated

import typer

from ringfence.cli.change import LONGEST_RULE, Edit, changing
from ringfence.cli.group import GroupArgument
from ringfence.cli.options import DataOption, OrganisationOption, query_of
from ringfence.cli.output import Format, FormatOption, show_rows
from ringfence.policy.values import parse_duration

app = typer.Typer(help="Rules of groups: list, add, delete.", no_args_is_help=True)
_PEER = "A network, an address, or a group (name or id)."


@app.command("list")
def list_(
    data: DataOption,
    group: Annotated[str | None, typer.Option(help="Only the rules of this group, by name or id.")] = None,
    organisation: OrganisationOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """The rules of all groups, or of one: their ids, what they allow, and until when.

    Example: [bold]ringfence rule list --group web[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    query = query_of(organisation) | ({"group": group} if group else {})
    columns = ("group", "rule", "allows", "expires-at")
    show_rows(ask(data, Ask("GET", "/rules", query=query))["rules"], columns, output)


@app.command("add")
@changing
def add(
    group: GroupArgument,
    service: Annotated[str, typer.Argument(help="tcp/443, tcp/80-90, udp, icmp, icmp/8, icmp/3/4, esp.")],
    source: Annotated[str | None, typer.Option("--from", help=f"Ingress from there. {_PEER}")] = None,
    destination: Annotated[str | None, typer.Option("--to", help=f"Egress to there. {_PEER}")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="Delete it again, and cut what it allowed, after so long: 2h.")
    ] = None,
) -> list[Edit]:
    """Add a rule to a group: let something in from a peer, or out to one.

    Example: [bold]ringfence rule add web tcp/443 --from 0.0.0.0/0[/bold]
    """
    edit = {"edit": "add-rule", "group": group, "service": service, "from": source, "to": destination}
    expires_s = None if expires is None else parse_duration(expires, field="--expires", most=LONGEST_RULE)
    return [{**edit, "description": description, "expires-s": expires_s}]


@app.command("delete")
@changing
def delete(
    group: GroupArgument,
    rule: Annotated[str, typer.Argument(help="The rule's id.")],
) -> list[Edit]:
    """Delete a rule of a group; connections that it alone allowed are cut.

    Example: [bold]ringfence rule delete web 6c0f1e8e-0000-4000-8000-000000000001[/bold]
    """
    return [{"edit": "delete-rule", "group": group, "rule": rule}]
