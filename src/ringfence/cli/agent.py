"""``ringfence agent``: enforces on this host what the server wants."""

from pathlib import Path
from typing import Annotated

import typer


def agent(
    server: Annotated[
        str, typer.Option(metavar="URL|unix:PATH", help="The server: https://HOST:PORT, or http:// on loopback.")
    ],
    data: Annotated[
        Path, typer.Option("--data", help="The agent's own folder: its credential, and the last policy it applied.")
    ],
    inventory: Annotated[
        Path, typer.Option(help="TOML: which interfaces belong to which instances; re-read on change.")
    ],
    *,
    flow_log: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the flow log to FILE, which is yours to rotate, not into --data."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow plain HTTP to a server that is not on loopback.")
    ] = False,
) -> None:
    """Filter the instances of this host, in the network namespace this is started in. Needs CAP_NET_ADMIN there.

    The credential is RINGFENCE_HOST and RINGFENCE_HOST_KEY in the environment, or the file credential in --data, as
    [bold]ringfence host add NAME -o env[/bold] prints it. When the agent ends, its rules stay in force.
    Example: [bold]ringfence agent --server unix:/run/rf.sock --data /var/lib/rf-agent --inventory /etc/rf.toml[/bold]
    """
    import asyncio
    import os
    import sys

    from ringfence.agent import load_credential, run_agent
    from ringfence.api.log import configure_log

    configure_log(sys.stderr)
    credential = load_credential(data, os.environ)
    asyncio.run(run_agent(server, data, inventory, credential, insecure=insecure, flow_file=flow_log))
