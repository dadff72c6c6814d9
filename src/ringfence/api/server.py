"""The server process: opens the control plane, serves both apps on their sockets, ends cleanly.

Input: the data folder, where to listen, and the settings. Output: nothing; ``ready`` is called with the URLs once
requests are accepted. The operator's app is served on ``control.sock`` in the data folder and nowhere else.
"""

import asyncio
import logging
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ringfence.api.admin import build_admin_app
from ringfence.api.app import ApiOptions, build_app
from ringfence.api.authority import Authority, TlsFiles, find_authority
from ringfence.api.connection import Connection, Open
from ringfence.api.exchange import HttpApp
from ringfence.api.listen import BACKLOG, Listen, UnixListen, check_plaintext, is_loopback, open_socket, render_url
from ringfence.api.tls import HANDSHAKE_TIME_S, Certificate, own_certificate
from ringfence.control.plane import ControlPlane
from ringfence.control.settings import Settings
from ringfence.pulse import beat

CONTROL_SOCKET: Final = "control.sock"
SPARE_FILES: Final = 512  # for the store, the listeners and callers of the API, beside the agents' connections
MOST_FILES: Final = 1_000_000  # where the system sets no limit
GRACE_S: Final = 5.0  # for answers under way when the server is told to end
# How many connections are taken at each turn of the event loop. libuv takes one for each file that it watches, however
# many wait, so that a caller who connects to a busy server would wait for as many turns as there are others before it.
AT_ONCE: Final = 16
# How long the writer's thread may keep the interpreter when the event loop wants it, which gives it up at each line of
# its log. With Python's own 5 ms the median read among writes takes a fifth longer.
TURN_S: Final = 0.001

log = logging.getLogger("ringfence.api")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """``tls`` is the operator's certificate; without it that of the own CA counts, if ``server init`` made one.

    ``insecure`` has plain HTTP served beyond loopback. ``stop``, when set, ends the server as SIGTERM does.
    """

    api: ApiOptions = field(default_factory=ApiOptions)
    tls: TlsFiles | None = None
    insecure: bool = False
    database: str | None = None  # the URL of PostgreSQL; None for what the folder has
    stop: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Served:
    """What is served: a data folder, the certificate beyond loopback, and the CA that it is from if that is ours."""

    folder: Path
    plane: ControlPlane
    authority: Authority | None
    certificate: Certificate | None


@dataclass(frozen=True, slots=True)
class _Listener:
    """One open socket and the app that it serves, with TLS or, without a ``certificate``, without."""

    listen: Listen
    opened: socket.socket
    app: HttpApp
    certificate: Certificate | None = None

    @property
    def url(self) -> str:
        return render_url(self.listen, self.opened, tls=self.certificate is not None)


async def serve(
    folder: Path,
    listens: list[Listen],
    settings: Settings,
    ready: Callable[[list[str]], None],
    options: ServeOptions | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, with open feeds too; a write is on disk before it is acknowledged.

    Raises:
        OperatorError: the folder is in use by another process, an address is taken, the certificate cannot be used, or
            plain HTTP would leave loopback; later, when this process must be started anew.
    """
    options = options or ServeOptions()
    authority = None if options.tls or options.insecure else find_authority(folder)
    certificate = _load_certificate(authority, options)
    if certificate is None:
        check_plaintext(listens, insecure=options.insecure)
    plane = await ControlPlane.open(folder, settings, database=options.database)
    plane.failure.add_done_callback(lambda _: options.stop.set())
    beside = [asyncio.ensure_future(beat())]
    if certificate:
        beside.append(asyncio.ensure_future(certificate.keep()))
    try:
        await _serve_plane(_Served(folder, plane, authority, certificate), listens, ready, options)
    finally:
        for task in beside:
            task.cancel()
        await plane.close()
    if plane.failure.done():
        raise plane.failure.result()


def _load_certificate(authority: Authority | None, options: ServeOptions) -> Certificate | None:
    if authority is not None:
        return own_certificate(authority, datetime.now(UTC))
    return Certificate(options.tls) if options.tls else None


async def _serve_plane(
    served: _Served, listens: list[Listen], ready: Callable[[list[str]], None], options: ServeOptions
) -> None:
    api = replace(options.api, most_feeds=raise_file_limit() - SPARE_FILES)
    public = build_app(served.plane, api, authority=served.authority)
    control = UnixListen(served.folder / CONTROL_SOCKET)
    listeners: list[_Listener] = []
    try:
        listeners.append(_Listener(control, open_socket(control), build_admin_app(served.plane, served.authority)))
        for listen in listens:
            used = None if is_loopback(listen) else served.certificate
            listeners.append(_Listener(listen, open_socket(listen), public, used))  # those opened so far are closed
        await _accept(listeners, ready, options.stop)
    finally:
        for listener in listeners:
            listener.app.end()
            _close(listener)


async def _accept(listeners: list[_Listener], ready: Callable[[list[str]], None], stop: asyncio.Event) -> None:
    sys.setswitchinterval(TURN_S)
    opened = Open()
    servers = [server for listener in listeners for server in await _start(listener, opened)]
    _stop_on_signals(stop)
    urls = [listener.url for listener in listeners[1:]]
    log.info("server ready", extra={"fields": {"listens": urls}})
    ready(urls)
    await stop.wait()
    log.info("server ends", extra={"fields": {"connections": len(opened.connections)}})
    for server in servers:
        server.close()
    for listener in listeners:
        _close(listener)  # who comes now is refused at once, and not taken to be cut
    await _drain(opened)


async def _start(listener: _Listener, opened: Open) -> list[asyncio.AbstractServer]:
    def connect() -> Connection:
        return Connection(listener.app, opened)

    return [await _watch(listener, listener.opened.dup(), connect) for _ in range(AT_ONCE)]


async def _watch(
    listener: _Listener, opened: socket.socket, connect: Callable[[], Connection]
) -> asyncio.AbstractServer:
    loop = asyncio.get_running_loop()
    if isinstance(listener.listen, UnixListen):
        return await loop.create_unix_server(connect, sock=opened, backlog=BACKLOG)
    if listener.certificate is None:
        return await loop.create_server(connect, sock=opened, backlog=BACKLOG)
    return await loop.create_server(
        connect,
        sock=opened,
        backlog=BACKLOG,
        ssl=listener.certificate.context,
        ssl_handshake_timeout=HANDSHAKE_TIME_S,
        ssl_shutdown_timeout=GRACE_S,
    )


def raise_file_limit() -> int:
    """Raises the soft limit of open files to the hard one. Returns that limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def _stop_on_signals(stop: asyncio.Event) -> None:
    """Only the main thread can handle signals; in another thread its starter sets ``stop``."""
    if threading.current_thread() is threading.main_thread():
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)


async def _drain(opened: Open) -> None:
    """Lets answers under way finish within ``GRACE_S``, then cuts."""
    for connection in list(opened.connections):
        connection.end()
    tasks = set(opened.tasks)
    if tasks:
        await asyncio.wait(tasks, timeout=GRACE_S)
    for task in tasks:
        task.cancel()
    for connection in list(opened.connections):
        connection.close()


def _close(listener: _Listener) -> None:
    """Does nothing the second time, because another server may have taken the path."""
    if listener.opened.fileno() < 0:
        return
    if isinstance(listener.listen, UnixListen):
        listener.listen.path.unlink(missing_ok=True)
    listener.opened.close()
