"""A server process for the HTTP bench: the API as it is served, and the bare apps beside it in the same event loop.

Run as a program with a data folder; prints the ports of the API, the framed and the wholly bare app.
"""

import asyncio
import sys
from pathlib import Path

import uvloop

from bench.bare_app import make_bare_app
from ringfence.api.admin import build_admin_app
from ringfence.api.app import ApiOptions, build_app
from ringfence.api.gathered_lines import GatheredLines
from ringfence.api.listen import UnixListen, open_socket, parse_listen
from ringfence.api.rates import RateLimits
from ringfence.api.server import CONTROL_SOCKET, _accept, _close, _Listener
from ringfence.control.plane import ControlPlane
from ringfence.control.settings import Settings
from ringfence.log import configure_log
from ringfence.wire.group_encoder import GroupEncoder


async def serve(folder: Path) -> None:
    plane = await ControlPlane.open(folder, Settings())
    groups = plane.snapshot.groups
    content = GroupEncoder().many(groups.values(), groups, name=None)
    control, public = UnixListen(folder / CONTROL_SOCKET), parse_listen("127.0.0.1:0")
    apps = [
        build_app(plane, ApiOptions(rates=RateLimits(1e9, 1e9, 1e9))),
        *(make_bare_app(content, folder, framed=framed) for framed in (True, False)),
    ]
    listeners = [_Listener(control, open_socket(control), build_admin_app(plane))]
    listeners += [_Listener(public, open_socket(public), app) for app in apps]
    try:
        await _accept(listeners, lambda urls: print(*(url.split(":")[2][:-3] for url in urls), flush=True), _never())  # noqa: T201
    finally:
        for listener in listeners:
            _close(listener)
        await plane.close()


def _never():
    """Signals end it."""
    return asyncio.Event()


if __name__ == "__main__":
    configure_log(sys.stderr, GatheredLines)
    uvloop.run(serve(Path(sys.argv[1])))
