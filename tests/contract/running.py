"""A real server in a thread, with its store on disk, and the ways in which tests talk to it."""

import asyncio
import json
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import uvloop

from ringfence.api import CONTROL_SOCKET, ApiOptions, ServeOptions, parse_listen, serve
from ringfence.api.rates import RateLimits
from ringfence.control.settings import Settings
from ringfence.wire.signature import SignedRequest, sign_request
from waiting import wait_until

QUICK = Settings(settle_wait_s=0.25, operation_timeout_s=2.0)


@dataclass
class Answered:
    """One answer as it came: ``body`` is the raw text."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Running:
    """A server that accepts requests at ``url``; ``admin`` is its operator's socket."""

    folder: Path
    url: str
    unix: Path
    admin: httpx.Client
    key: str = ""
    secret: str = ""
    seen: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return (parts.hostname, parts.port)

    def sign(self, method: str, target: str, body: bytes = b"", *, ahead_s: int = 600) -> str:
        """The Authorization header of a request with the server's first key."""
        return sign_request(
            self.key, self.secret, SignedRequest(method, target.encode(), body), int(time.time()) + ahead_s
        )

    def call(
        self, method: str, path: str, body: bytes = b"", *, signed: bool = True, headers=(), root: str = "/v2"
    ) -> Answered:
        """One request, path below ``root``, on a connection of its own."""
        target = f"{root}{path}"
        sent = {"Authorization": self.sign(method, target, body)} if signed else {}
        if body:
            sent["Content-Type"] = "application/json"
        connection = HTTPConnection(*self.address, timeout=10)
        connection.request(method, target, body=body or None, headers={**sent, **dict(headers)})
        answer = connection.getresponse()
        answered = Answered(answer.status, dict(answer.getheaders()), answer.read())
        connection.close()
        return answered

    def talk(self, data: bytes, *, pieces: int = 1, timeout_s: float = 5.0) -> bytes:
        """What the server answers to raw bytes, until it closes or ``timeout_s`` passed without more."""
        with socket.create_connection(self.address, timeout=timeout_s) as connection:
            step = max(1, -(-len(data) // pieces))
            for start in range(0, len(data), step):
                connection.sendall(data[start : start + step])
            return _receive_all(connection)


def _receive_all(connection: socket.socket) -> bytes:
    received = bytearray()
    try:
        while piece := connection.recv(65536):
            received += piece
    except (TimeoutError, ConnectionResetError):
        pass
    return bytes(received)


@contextmanager
def running_server(folder: Path, settings: Settings = QUICK, options: ServeOptions | None = None):
    """A server with one key, until the block ends; then it is ended as SIGTERM would."""
    options = options or ServeOptions(ApiOptions(rates=RateLimits(0, 0, 0, 0)))  # tests ask as fast as they can
    unix = folder / "api.sock"
    started: list[tuple[asyncio.AbstractEventLoop, list[str]]] = []
    failed: list[BaseException] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        listens = [parse_listen("127.0.0.1:0"), parse_listen(f"unix:{unix}")]
        await serve(folder, listens, settings, lambda urls: started.append((loop, urls)), options)

    def run() -> None:
        try:
            uvloop.run(main())
        except BaseException as error:  # noqa: BLE001  shown to the test that waits
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: started or failed, timeout_s=10)
    if failed:
        raise failed[0]
    loop, urls = started[0]
    try:
        yield _running(folder, urls[0], unix)
    finally:
        loop.call_soon_threadsafe(options.stop.set)
        thread.join(timeout=20)
        assert not thread.is_alive(), "the server did not end"
        if failed:
            raise failed[0]


def _running(folder: Path, url: str, unix: Path) -> Running:
    admin = admin_client(folder)
    key = admin.post("/admin/v1/keys", json={"name": "tests"}).json()
    return Running(folder, url, unix, admin, key["id"], key["secret"])


def admin_client(folder: Path) -> httpx.Client:
    """A client of the operator's socket of the server in ``folder``."""
    transport = httpx.HTTPTransport(uds=str(folder / CONTROL_SOCKET))
    return httpx.Client(transport=transport, base_url="http://control", timeout=10)
