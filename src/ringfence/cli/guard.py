"""``ringfence guard``: a local proxy between the official clients and the real cloud."""

from typing import Annotated

import typer

from ringfence.cli.output import show


def guard(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where clients on this machine reach it. Port 0 takes a free one.")
    ] = "127.0.0.1:8444",
) -> None:
    """Let HTTPS through to everywhere but *.exoscale.com and *.exo.io: a proxy for HTTPS_PROXY. Loopback only.

    [bold]ringfence env --guard[/bold] starts one in the background and prints the lines that use it.
    Example: [bold]ringfence guard --listen 127.0.0.1:8444 & export HTTPS_PROXY=http://127.0.0.1:8444[/bold]
    """
    import asyncio

    from ringfence.api.listen import TcpListen, is_loopback, open_socket, parse_listen, render_listen
    from ringfence.policy.errors import Invalid
    from ringfence.world.guard import READY_LINE, serve_guard

    where = parse_listen(listen)
    if not isinstance(where, TcpListen) or not is_loopback(where):
        raise Invalid("expected HOST:PORT on loopback: the guard has no password", field="--listen")
    with open_socket(where) as opened:
        show(f"{READY_LINE}http://{render_listen(TcpListen(where.host, opened.getsockname()[1]))}")
        asyncio.run(serve_guard(opened))
