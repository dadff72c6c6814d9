"""A live TCP connection between two nodes that talks all the time in both directions, and knows when it was last heard.

Every few milliseconds each end sends the next number; each end checks that the numbers come in order. When a firewall
cuts the connection nobody is told, so the moment of the cut is the last moment at which anything still arrived.
"""

import contextlib
import selectors
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from ringfence.policy.values import Address
from ringfence.world.topology import Placed

_PERIOD_S: Final = 0.002
_NUMBER: Final = struct.Struct("!Q")
_CHUNK: Final = 65536
_CONNECT_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What one end has heard so far: how many numbers, in order, and when the last came (monotonic seconds)."""

    count: int
    last_s: float


@dataclass(slots=True)
class _End:
    """One end of the connection: what it still has to send, what it has received."""

    socket: socket.socket
    sent: int = 0
    unsent: bytes = b""
    received: bytes = b""
    heard: Heard = field(default_factory=lambda: Heard(0, time.monotonic()))

    def send_next(self) -> None:
        if not self.unsent:
            self.unsent = _NUMBER.pack(self.sent)
            self.sent += 1
        # A cut connection fills its send buffer; from then on there is nothing to do but to wait.
        with contextlib.suppress(BlockingIOError):
            self.unsent = self.unsent[self.socket.send(self.unsent) :]

    def receive(self) -> None:
        self.received += self.socket.recv(_CHUNK)
        whole = len(self.received) - len(self.received) % _NUMBER.size
        for (number,) in _NUMBER.iter_unpack(self.received[:whole]):
            if number != self.heard.count:
                raise ValueError(f"the stream lost its order: {number} came where {self.heard.count} was due")
            self.heard = Heard(self.heard.count + 1, time.monotonic())
        self.received = self.received[whole:]


class Stream:
    """A connection from ``source`` to a listener of its own at ``destination``; it talks until ``close``."""

    def __init__(self, source: Placed, destination: Placed, address: Address, port: int) -> None:
        client, server = _connect(source, destination, address, port)
        self._client = _End(client)
        self._server = _End(server)
        self._stopped = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._talk, name=f"stream-{port}", daemon=True)
        self._thread.start()

    def heard(self) -> tuple[Heard, Heard]:
        """What the server heard from the client, and the client from the server.

        Raises:
            ValueError, OSError: what ended the stream, when something other than silence did.
        """
        if self._failure is not None:
            raise self._failure
        return self._server.heard, self._client.heard

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._client.socket.close()
        self._server.socket.close()

    def _talk(self) -> None:
        with selectors.DefaultSelector() as selector:
            for end in (self._client, self._server):
                selector.register(end.socket, selectors.EVENT_READ, data=end)
            try:
                while not self._stopped.is_set():
                    self._talk_once(selector)
            except (OSError, ValueError) as error:
                self._failure = error

    def _talk_once(self, selector: selectors.BaseSelector) -> None:
        next_s = time.monotonic() + _PERIOD_S
        self._client.send_next()
        self._server.send_next()
        while (left_s := next_s - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                key.data.receive()


def last_heard_s(stream: Stream) -> float:
    """The last moment at which anything arrived, in either direction (monotonic seconds)."""
    return max(heard.last_s for heard in stream.heard())


def heard_since(stream: Stream, moment_s: float) -> bool:
    """Whether both directions were heard after ``moment_s`` (monotonic seconds)."""
    return all(heard.last_s > moment_s for heard in stream.heard())


def _connect(source: Placed, destination: Placed, address: Address, port: int) -> tuple[socket.socket, socket.socket]:
    listener = destination.namespace.run(
        lambda: socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    )
    with listener:
        client = source.namespace.run(lambda: socket.create_connection((str(address), port), _CONNECT_TIMEOUT_S))
        listener.settimeout(_CONNECT_TIMEOUT_S)
        server, _ = listener.accept()
    for end in (client, server):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.setblocking(False)  # noqa: FBT003  the standard library's own signature
    return client, server
