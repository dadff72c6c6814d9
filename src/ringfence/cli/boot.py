"""``ringfence boot``: enforces what is known from disk before there is a network, and ends."""

from pathlib import Path
from typing import Annotated

import typer


def boot(
    data: Annotated[
        Path, typer.Option("--data", help="The agent's own folder: its credential, and the last policy it applied.")
    ],
    inventory: Annotated[Path, typer.Option(help="TOML: the inventory, as the agent reads it.")],
) -> None:
    """Close every managed port, or enforce the last good policy from disk, before the network is there; then end.

    No server is contacted, nothing is written, nothing is opened that the last policy did not allow. Interfaces need
    not exist yet; where an agent runs already, it is left alone. Needs CAP_NET_ADMIN.
    The unit [bold]packaging/systemd/ringfence-boot.service[/bold] runs it.
    Example: [bold]ringfence boot --data /var/lib/ringfence-agent --inventory /etc/ringfence/inventory.toml[/bold]
    """
    import os
    import sys

    from ringfence.agent.doors.links import Filtered
    from ringfence.agent.service import run_boot
    from ringfence.cli.output import complain
    from ringfence.log import configure_log

    configure_log(sys.stderr)
    try:
        booted = run_boot(data, inventory, os.environ)
    except Filtered:
        complain("an agent filters this network namespace already and enforces its policy: nothing to do")
        return
    for refused in booted.outcome.refused:
        complain(refused)
    complain(booted.text)
