"""``ringfence allow-me``: my own address may reach something, for a time."""

from typing import Annotated, Any

import typer

from ringfence.cli.change import LONGEST_RULE, tell
from ringfence.cli.options import DataOption, OrganisationOption, query_of
from ringfence.cli.output import Format, FormatOption
from ringfence.policy.errors import Invalid
from ringfence.policy.values import parse_duration


def allow_me(
    data: DataOption,
    target: Annotated[str, typer.Argument(help="A group or an instance, by name or id.")],
    service: Annotated[str, typer.Argument(help="tcp/22, tcp/80-90, udp, icmp/8, …")],
    life: Annotated[str, typer.Option("--for", metavar="TIME", help="How long: 30m, 1h, 2d.")] = "1h",
    address: Annotated[
        str | None,
        typer.Option(help="Who is meant; by default where the SSH session, or the call, comes from."),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The API of a server elsewhere, /v2 included; EXOSCALE_API_KEY signs."),
    ] = None,
    organisation: OrganisationOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Let my address reach a group's members, or one instance, for a time; then the rule goes and connections are cut.

    An instance gets a group of its own for it, allow-me-NAME, which stays.
    Example: [bold]ringfence allow-me db-1 tcp/22 --for 1h[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    body: dict[str, object] = {
        "target": target,
        "service": service,
        "expires-s": parse_duration(life, field="--for", most=LONGEST_RULE),
    }
    if address is not None:
        body["address"] = address
    if endpoint is None:
        tell(ask(data, Ask("POST", "/allow", body, query_of(organisation))), output)
    elif organisation is None:
        tell(_ask_elsewhere(endpoint, body), output)
    else:
        raise Invalid("with --endpoint the organisation is that of the key: leave it out", field="--organisation")


def _ask_elsewhere(endpoint: str, body: dict[str, object]) -> dict[str, Any]:
    from ringfence.world.client import ApiClient, environment_credentials

    client = ApiClient(environment_credentials(), endpoint)
    try:
        return client.allow(body)
    finally:
        client.close()
