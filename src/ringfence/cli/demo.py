"""``ringfence demo``: everything, for real, in a throw-away world."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    env: Annotated[
        Path | None, typer.Option("--env", metavar="FILE", help="Write the export lines to FILE once the world stands.")
    ] = None,
    *,
    stay: Annotated[
        bool, typer.Option("--stay", help="Keep it running, and reachable for exo, Terraform and SDKs, until Ctrl-C.")
    ] = False,
) -> None:
    """Build a throw-away world, protect it through the API, and prove with real packets that model and kernel agree.

    Needs no root: agent and instances live in user and network namespaces of their own, the server listens on
    loopback, the host's firewall stays untouched. Takes about five seconds. Exit status 0 only if all agree.

    Example: [bold]ringfence demo --stay --env demo.env[/bold], elsewhere [bold]. ./demo.env; exo c sg list[/bold]
    """
    from ringfence.world.demo import run_demo

    raise typer.Exit(run_demo(stay=stay, env_file=env))
