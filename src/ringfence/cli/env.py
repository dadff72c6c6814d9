"""``ringfence env``: what a shell needs so that exo, Terraform and the SDKs talk to this server."""

from typing import Annotated

import typer

from ringfence.cli.options import DataOption
from ringfence.cli.output import show


def env(
    data: DataOption,
    endpoint: Annotated[
        str | None, typer.Option(help="The API's URL, /v2 included; by default where the server last listened.")
    ] = None,
    zone: Annotated[str | None, typer.Option(help="The one zone that the server lists; by default as it ran.")] = None,
) -> None:
    """Print export lines for exo, Terraform and the SDKs; their key is made at first use and kept in the folder.

    Example: [bold]eval "$(ringfence env)" && exo compute security-group list[/bold]
    """
    from ringfence.cli.credentials import choose_url, load_endpoint, load_or_create_key
    from ringfence.world.client import DEFAULT_ZONE, export_lines

    found = load_endpoint(data)
    url = endpoint or choose_url(data, found)
    show(export_lines(load_or_create_key(data), url, zone or (found.zone if found else DEFAULT_ZONE)))
