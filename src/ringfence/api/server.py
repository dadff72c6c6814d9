"""The server process: opens the control plane, serves both apps on their sockets, ends cleanly.

Input: the data folder, where to listen, and the settings. Output: nothing; ``ready`` is called with the URLs once
requests are accepted. The operator's app is served on ``control.sock`` in the data folder and nowhere else.
"""

import asyncio
import logging
import resource
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import uvicorn
from uvicorn.server import ServerState

from ringfence.api.admin import build_admin_app
from ringfence.api.app import ApiOptions, build_app
from ringfence.api.connection import Connection
from ringfence.api.exchange import Asgi
from ringfence.api.listen import BACKLOG, Listen, UnixListen, check_plaintext, open_socket, render_url
from ringfence.control.plane import ControlPlane
from ringfence.control.settings import Settings

CONTROL_SOCKET: Final = "control.sock"
SPARE_FILES: Final = 512  # for the store, the listeners and callers of the API, beside the agents' connections
MOST_FILES: Final = 1_000_000  # where the system sets no limit
GRACE_S: Final = 5.0  # for answers under way when the server is told to end
KEEP_ALIVE_S: Final = 75  # longer than clients keep idle connections, so that they close first and no POST is lost

log = logging.getLogger("ringfence.api")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """``insecure`` permits plain HTTP beyond loopback. ``stop``, when set, ends the server as SIGTERM does."""

    api: ApiOptions = field(default_factory=ApiOptions)
    insecure: bool = False
    database: str | None = None  # the URL of PostgreSQL; None for what the folder has
    stop: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Listener:
    """One open socket and the app that it serves."""

    listen: Listen
    opened: socket.socket
    app: Asgi


async def serve(
    folder: Path,
    listens: list[Listen],
    settings: Settings,
    ready: Callable[[list[str]], None],
    options: ServeOptions | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, with open feeds too; a write is on disk before it is acknowledged.

    Raises:
        OperatorError: the folder is in use by another process, an address is taken, or plain HTTP would leave loopback.
    """
    options = options or ServeOptions()
    check_plaintext(listens, insecure=options.insecure)
    plane = await ControlPlane.open(folder, settings, database=options.database)
    try:
        await _serve_plane(plane, folder, listens, ready, options)
    finally:
        await plane.close()


async def _serve_plane(
    plane: ControlPlane, folder: Path, listens: list[Listen], ready: Callable[[list[str]], None], options: ServeOptions
) -> None:
    public = build_app(plane, replace(options.api, most_feeds=raise_file_limit() - SPARE_FILES))
    control = UnixListen(folder / CONTROL_SOCKET)
    listeners: list[_Listener] = []
    try:
        listeners.append(_Listener(control, open_socket(control), build_admin_app(plane)))
        for listen in listens:
            listeners.append(_Listener(listen, open_socket(listen), public))  # noqa: PERF401  those opened so far are closed
        await _accept(listeners, ready, options.stop)
    finally:
        for listener in listeners:
            _close(listener)


async def _accept(listeners: list[_Listener], ready: Callable[[list[str]], None], stop: asyncio.Event) -> None:
    state = ServerState()
    servers = [await _start(listener, state) for listener in listeners]
    _stop_on_signals(stop)
    urls = [render_url(listener.listen, listener.opened) for listener in listeners[1:]]
    log.info("server ready", extra={"fields": {"listens": urls}})
    ready(urls)
    await stop.wait()
    log.info("server ends", extra={"fields": {"connections": len(state.connections)}})
    for server in servers:
        server.close()
    await _drain(state)


async def _start(listener: _Listener, state: ServerState) -> asyncio.AbstractServer:
    config = uvicorn.Config(
        listener.app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # zones.py reads them, from trusted proxies only
        server_header=False,
        date_header=False,  # the front writes it
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    config.load()
    loop = asyncio.get_running_loop()

    def connect() -> Connection:
        return Connection(config, state, {})

    if isinstance(listener.listen, UnixListen):
        return await loop.create_unix_server(connect, sock=listener.opened, backlog=BACKLOG)
    return await loop.create_server(connect, sock=listener.opened, backlog=BACKLOG)


def raise_file_limit() -> int:
    """How many files this process may have open, after the soft limit was raised to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def _stop_on_signals(stop: asyncio.Event) -> None:
    """Only the main thread may; elsewhere whoever started the thread sets ``stop``."""
    if threading.current_thread() is threading.main_thread():
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)


async def _drain(state: ServerState) -> None:
    """Lets answers under way finish within ``GRACE_S``, then cuts."""
    for connection in list(state.connections):
        connection.shutdown()
    tasks = set(state.tasks)
    if tasks:
        await asyncio.wait(tasks, timeout=GRACE_S)
    for task in tasks:
        task.cancel()
    for connection in list(state.connections):
        connection.transport.close()


def _close(listener: _Listener) -> None:
    listener.opened.close()
    if isinstance(listener.listen, UnixListen):
        listener.listen.path.unlink(missing_ok=True)
