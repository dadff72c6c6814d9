"""``ringfence allow-me``: my own address may reach something, for a time."""

from typing import Annotated

import typer

from ringfence.cli.change import tell
from ringfence.cli.options import DataOption, OrganisationOption, query_of
from ringfence.cli.output import Format, FormatOption
from ringfence.cli.session import ssh_session
from ringfence.policy.errors import Invalid
from ringfence.policy.values import parse_duration


def allow_me(
    data: DataOption,
    target: Annotated[str, typer.Argument(help="A group or an instance, by name or id.")],
    service: Annotated[str, typer.Argument(help="tcp/22, tcp/80-90, udp, icmp/8, …")],
    life: Annotated[str, typer.Option("--for", metavar="TIME", help="How long: 30m, 1h, 2d.")] = "1h",
    address: Annotated[
        str | None, typer.Option(help="Who is meant; where the SSH session comes from, if you give none.")
    ] = None,
    organisation: OrganisationOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Let my address reach a group's members, or one instance, for a time; then the rule goes and connections are cut.

    An instance gets a group of its own for it, allow-me-NAME, which stays.
    Example: [bold]ringfence allow-me db-1 tcp/22 --for 1h[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    body = {
        "target": target,
        "service": service,
        "address": address or _my_address(),
        "expires-s": parse_duration(life, field="--for"),
    }
    tell(ask(data, Ask("POST", "/allow", body, query_of(organisation))), output)


def _my_address() -> str:
    """Where this SSH session comes from."""
    said = ssh_session()
    if not said:
        raise Invalid("not known, because this is no SSH session: give an address", field="--address")
    return said.split()[0]
