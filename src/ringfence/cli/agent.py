"""``ringfence agent``: enforces on this host what the server wants; and how a host comes to a server."""

from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.options import refuse_before_verb
from ringfence.cli.output import complain, show
from ringfence.policy.errors import Invalid

app = typer.Typer(invoke_without_command=True)
_FOLDER = "The agent's own folder: its credential, and the last policy it applied."


@app.callback()
def agent(
    context: typer.Context,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL|unix:PATH",
            help="The server: https://HOST:PORT, or http:// on loopback.",
            show_default="as joined",
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help=_FOLDER)] = None,
    inventory: Annotated[
        Path | None, typer.Option(help="TOML: which interfaces belong to which instances; re-read on change.")
    ] = None,
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

    The credential is the file credential in --data, which [bold]ringfence agent join[/bold] writes, or
    RINGFENCE_HOST and RINGFENCE_HOST_KEY in the environment. When the agent ends, its rules stay in force.
    Example: [bold]ringfence agent --data /var/lib/rf-agent --inventory /etc/rf.toml[/bold]
    """
    if refuse_before_verb(context):
        return
    import os
    import sys

    from ringfence.agent.credential import load_credential

    if data is None or inventory is None:
        raise Invalid("required, but not given", field="--data" if data is None else "--inventory")
    credential = load_credential(data, os.environ)
    address = server or credential.server
    if address is None:
        raise Invalid("required, because this host was not joined by ringfence agent join", field="--server")
    # An agent runs for months and needs nothing of what reads command lines: it gets a process without that.
    given = {"server": address, "data": data, "inventory": inventory, "flow-file": flow_log, "insecure": insecure}
    arguments = [f"{name}={value}" for name, value in given.items() if value]
    # -P: what lies in the folder in which an operator stands is none of its modules.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "ringfence.agent", *arguments])  # noqa: S606  no shell is meant


@app.command("join")
def join(
    url: Annotated[str, typer.Argument(help="The server: https://HOST:PORT, http:// on loopback, or unix:PATH.")],
    token: Annotated[
        str,
        typer.Argument(envvar="RINGFENCE_JOIN_TOKEN", help="As ringfence host token prints it; - reads it from stdin."),
    ],
    data: Annotated[Path, typer.Option("--data", help=_FOLDER)],
) -> None:
    """Make this host known to a server: by a token, with a key that is made here and never leaves.

    With a token of a server with its own CA the server must prove to be that one, before anything is told to it.
    May be repeated if it broke off: the same command then ends what it began.
    Example: [bold]ringfence agent join https://rf.example:8443 TOKEN --data /var/lib/ringfence-agent[/bold]
    """
    import asyncio
    import sys

    from ringfence.agent.join import join_server

    text = sys.stdin.readline() if token == "-" else token  # noqa: S105  a dash is no secret
    host = asyncio.run(join_server(url, text, data))
    complain(f"joined as host {host}; start ringfence agent --data {data} --inventory FILE")


@app.command("inventory")
def inventory(
    host: Annotated[
        str | None,
        typer.Argument(help="The host's name, as at ringfence host token.", show_default="the machine's own"),
    ] = None,
) -> None:
    """Print a first inventory for this machine as its own instance: its uplinks, its addresses, and your way in.

    Nothing is changed. Read it, mend it, and save it where the agent reads it. The failsafe port is that of the SSH
    session in which this is said.
    Example: [bold]ringfence agent inventory > /etc/ringfence/inventory.toml[/bold]
    """
    import socket

    from ringfence.agent.doors.addresses import find_links
    from ringfence.agent.draft import draft_inventory
    from ringfence.cli.session import ssh_session
    from ringfence.policy.lockout import parse_session
    from ringfence.wire.hostauth import parse_host_name

    name = parse_host_name(host or socket.gethostname().partition(".")[0], field="HOST")
    show(draft_inventory(name, find_links(), parse_session(ssh_session() or "")).rstrip())


@app.command("leave")
def leave() -> None:
    """Take all of ringfence's rules out of this host's kernel: from then on it filters nothing here.

    For a host that shall no longer be protected; a stopped agent alone leaves its rules. Needs CAP_NET_ADMIN, and that
    no agent runs. The agent's folder stays, and whether the server knows the host is for
    [bold]ringfence host remove[/bold] there.
    Example: [bold]systemctl disable --now ringfence-agent ringfence-boot && ringfence agent leave[/bold]
    """
    from ringfence.agent.doors.links import Filtered
    from ringfence.agent.service import run_leave
    from ringfence.policy.errors import OperatorError

    try:
        run_leave()
    except Filtered as error:
        reason = (
            "an agent still filters this network namespace: stop it first (systemctl disable --now ringfence-agent)"
        )
        raise OperatorError("take the rules out", reason) from error
    complain("no rule of ringfence is left in this host's kernel: nothing is filtered by it any more")
