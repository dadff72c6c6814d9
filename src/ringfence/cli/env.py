"""``ringfence env``: what a shell needs so that exo, Terraform and the SDKs talk to this server."""

from typing import Annotated, Final

import typer

from ringfence.cli.options import DataOption, check_url
from ringfence.cli.output import show

_START_S: Final = 5.0  # how long a server that just starts takes to listen, at most


def env(
    data: DataOption,
    endpoint: Annotated[
        str | None, typer.Option(help="The API's URL, /v2 included; by default where the server last listened.")
    ] = None,
    zone: Annotated[str | None, typer.Option(help="The one zone that the server lists; by default as it ran.")] = None,
    *,
    guard: Annotated[
        bool,
        typer.Option(
            "--guard", help="Start a local proxy too that refuses the real cloud, and export it as HTTPS_PROXY."
        ),
    ] = False,
) -> None:
    """Print export lines for exo, Terraform and the SDKs; their key is made at first use and kept in the folder.

    With --guard a call that ignores the endpoint, as parts of the Terraform provider do, ends in an error that says so
    and not on a bill. The guard goes on until [bold]kill $RINGFENCE_GUARD_PID[/bold].
    Example: [bold]eval "$(ringfence env)" && exo compute security-group list[/bold]
    """
    from ringfence.cli.credentials import await_endpoint, choose_url, load_or_create_key, trust_variables
    from ringfence.world.client import DEFAULT_ZONE, export_lines, render_exports
    from ringfence.world.guard import start_guard

    if endpoint is not None:
        check_url(endpoint, field="--endpoint")
    found = await_endpoint(data, patience_s=0 if endpoint else _START_S)
    url = endpoint or choose_url(data, found)
    lines = [export_lines(load_or_create_key(data), url, zone or (found.zone if found else DEFAULT_ZONE))]
    if trusted := trust_variables(data, url):
        lines.append(render_exports(trusted))
    if guard:
        lines.append(start_guard().export_lines)
    show("\n".join(lines))  # all or, when the guard cannot be had, nothing
