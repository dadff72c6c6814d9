"""The guard: a local proxy that lets everything through but the real, billable cloud.

Parts of the Terraform provider ignore the endpoint that they are given (its older client of the API has it built in).
With the guard as their HTTPS proxy such a call ends in a sentence instead of a bill. Input: CONNECT requests of clients
on this machine. Output: tunnels, or a refusal whose status line says why, because that is what the clients show.
"""

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ringfence.policy.errors import OperatorError
from ringfence.world.client import render_exports

READY_LINE: Final = "ringfence guard ready: "
GUARDED: Final = ("exoscale.com", "exo.io")  # the API and the object storage
_UNPROXIED: Final = "localhost,127.0.0.1,::1"
_HEAD_BYTES: Final = 16 * 1024
_HEAD_TIME_S: Final = 10.0
_CONNECT_TIME_S: Final = 20.0
_CHUNK_BYTES: Final = 64 * 1024
_CONNECT: Final = re.compile(rb"CONNECT ([A-Za-z0-9._:\[\]-]{1,260}):([0-9]{1,5}) HTTP/1\.[01]\r\n")


class Refusal(Exception):
    """Why a request goes no further; ``reason`` stands in the status line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Guard:
    """A running guard: where it listens, and which process it is."""

    url: str
    pid: int

    @property
    def export_lines(self) -> str:
        """Shell lines that send HTTPS through the guard. Both spellings, for clients differ in which they read."""
        proxied = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), self.url)
        spared = dict.fromkeys(("NO_PROXY", "no_proxy"), _UNPROXIED)
        return render_exports({**proxied, **spared, "RINGFENCE_GUARD_PID": str(self.pid)})


def start_guard() -> Guard:
    """A guard in a process of its own, on a free port of loopback, that goes on when this process ends.

    Raises:
        OperatorError: HTTPS goes through a proxy already, or the guard did not start.
    """
    for name in ("HTTPS_PROXY", "https_proxy"):
        if os.environ.get(name):
            reason = f"{name} is set already, and the guard speaks to the internet itself: unset it first"
            raise OperatorError("starting the guard", reason)
    process = subprocess.Popen(
        (sys.executable, "-m", "ringfence", "guard", "--listen", "127.0.0.1:0"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path("/"),
        start_new_session=True,
        text=True,
    )
    line = process.stdout.readline() if process.stdout else ""
    if not line.startswith(READY_LINE):
        raise OperatorError("starting the guard", f"it did not become ready: {line.strip() or 'no answer'}")
    return Guard(line.removeprefix(READY_LINE).strip(), process.pid)


async def serve_guard(opened: socket.socket) -> None:
    """Serve the proxy on an open, listening socket until cancelled."""
    server = await asyncio.start_server(_serve_client, sock=opened, limit=_HEAD_BYTES)
    async with server:
        await server.serve_forever()


def parse_target(head: bytes) -> tuple[str, int]:
    """Host and port that a request wants to be connected to.

    Raises:
        Refusal: it is no CONNECT request, or for the real cloud.
    """
    found = _CONNECT.match(head)
    if found is None:
        raise Refusal(405, "ringfence guard: only HTTPS (CONNECT HOST:PORT) goes through here")
    host, port = found[1].decode("ascii").strip("[]").rstrip(".").lower(), int(found[2])
    if any(host == name or host.endswith(f".{name}") for name in GUARDED):
        words = (
            f"ringfence guard: {host} is the real cloud, which would bill you; this call ignores EXOSCALE_API_ENDPOINT"
        )
        raise Refusal(403, words)
    return host, port


async def _serve_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer), contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        try:
            target = parse_target(await _read_head(reader))
            upstream = await _connect(target)
        except Refusal as refusal:
            writer.write(_render_refusal(refusal))
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _tunnel((reader, writer), upstream)


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(_HEAD_TIME_S):
            return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise Refusal(431, f"ringfence guard: a request head is at most {_HEAD_BYTES} bytes here") from error


async def _connect(target: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(_CONNECT_TIME_S):
            return await asyncio.open_connection(*target)
    except (OSError, TimeoutError) as error:
        why = getattr(error, "strerror", None) or "no answer"
        raise Refusal(502, f"ringfence guard: cannot reach {target[0]} port {target[1]}: {why}") from error


def _render_refusal(refusal: Refusal) -> bytes:
    body = f"{refusal.reason}\n".encode()
    head = f"HTTP/1.1 {refusal.status} {refusal.reason}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _tunnel(client: _Ends, upstream: _Ends) -> None:
    """Octets both ways until both ends have finished or one breaks off."""
    with contextlib.closing(upstream[1]):
        ways = [asyncio.ensure_future(_carry(*way)) for way in ((client[0], upstream[1]), (upstream[0], client[1]))]
        try:
            await asyncio.gather(*ways)
        finally:
            for way in ways:
                way.cancel()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while octets := await reader.read(_CHUNK_BYTES):
        writer.write(octets)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
