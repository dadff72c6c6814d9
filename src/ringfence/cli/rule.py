"""``ringfence rule``: rules of groups, changed on the server's own machine. Programs use the API."""

from typing import Annotated

import typer

from ringfence.cli.change import Edit, changing
from ringfence.cli.group import GroupArgument

app = typer.Typer(help="Rules of groups: add, delete.", no_args_is_help=True)
_PEER = "A network, an address, or a group (name or id)."


@app.command("add")
@changing
def add(
    group: GroupArgument,
    service: Annotated[str, typer.Argument(help="tcp/443, tcp/80-90, udp, icmp, icmp/8, icmp/3/4, esp.")],
    source: Annotated[str | None, typer.Option("--from", help=f"Ingress from there. {_PEER}")] = None,
    destination: Annotated[str | None, typer.Option("--to", help=f"Egress to there. {_PEER}")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
) -> list[Edit]:
    """Add a rule to a group: let something in from a peer, or out to one.

    Example: [bold]ringfence rule add web tcp/443 --from 0.0.0.0/0[/bold]
    """
    edit = {"edit": "add-rule", "group": group, "service": service, "from": source, "to": destination}
    return [{**edit, "description": description}]


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
