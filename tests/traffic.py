"""Live UDP between real sockets: both ends send numbered datagrams; the kernel's own clock says when each arrived."""

import contextlib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ringfence.policy.values import Address
from ringfence.world.topology import Placed

_SO_TIMESTAMPNS = 35
_PERIOD_S = 0.001
_TIMESPEC = struct.Struct("@qq")
_NUMBER = struct.Struct("!Q")
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(slots=True)
class End:
    """One end of a talk; ``heard`` holds the number and the arrival (ns since the epoch) of every datagram."""

    socket: socket.socket
    sends: bool = True
    sent: int = 0
    heard: list[tuple[int, int]] = field(default_factory=list)

    def send(self) -> None:
        if self.sends:
            # Refused by an ICMP error, or by our own rules where the host itself sends.
            with contextlib.suppress(OSError):
                self.socket.send(_NUMBER.pack(self.sent))
            self.sent += 1

    def receive(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                datagram, ancillary, _, _ = self.socket.recvmsg(_NUMBER.size, 64)
                seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2][: _TIMESPEC.size])
                self.heard.append((_NUMBER.unpack(datagram)[0], seconds * 10**9 + nanoseconds))


@dataclass(slots=True)
class Talk:
    """A UDP flow that ``client`` opened. With ``reply_only`` the client sends one datagram and falls silent."""

    client: End
    server: End

    @property
    def last_ns(self) -> int:
        """When anything last arrived at either end."""
        return max((heard[-1][1] for heard in (self.client.heard, self.server.heard) if heard), default=0)

    @property
    def flows(self) -> bool:
        return len(self.client.heard) > 5 and (len(self.server.heard) > 5 or not self.client.sends)

    def lost(self) -> list[int]:
        """Numbers that one end sent and the other did not hear; to be asked once all have fallen silent."""
        missing = []
        for sender, receiver in ((self.client, self.server), (self.server, self.client)):
            heard = {number for number, _ in receiver.heard}
            missing += [number for number in range(sender.sent) if number not in heard]
        return missing


_SENDER = """
import socket, sys, time
opened = socket.socket(fileno=int(sys.argv[1]))
while True:
    try:
        opened.send(bytes(8))
    except OSError:
        pass
    time.sleep(0.00005)
"""


@contextlib.contextmanager
def sending_process(end: End) -> Iterator[None]:
    """The end sends every 0.1 ms from a process of its own, so that nothing this process does can hold it up."""
    end.sends = False
    descriptor = end.socket.fileno()
    command = (sys.executable, "-S", "-E", "-c", _SENDER, str(descriptor))
    with subprocess.Popen(command, pass_fds=(descriptor,)) as sender:  # noqa: S603  our own few lines
        try:
            yield
        finally:
            sender.kill()


class Traffic:
    """Talks that go on in a thread of their own until ``close``."""

    def __init__(self) -> None:
        self._talks: list[Talk] = []
        self._sending = threading.Event()
        self._sending.set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._thread.start()

    def talk(self, source: Placed, destination: Placed, family: int, port: int, *, reply_only: bool = False) -> Talk:
        """A new flow from the source to a port of the destination."""
        talk = open_talk(source, destination, destination.address(family), port)
        if reply_only:
            talk.client.send()
            talk.client.sends = False
        with self._lock:
            self._talks.append(talk)
        return talk

    def fall_silent(self) -> None:
        """Return when nobody sends any more and everything under way has arrived."""
        self._sending.clear()
        self._thread.join()
        for talk in self._talks:
            talk.client.receive()
            talk.server.receive()

    def close(self) -> None:
        self.fall_silent()
        for talk in self._talks:
            talk.client.socket.close()
            talk.server.socket.close()

    def _run(self) -> None:
        while self._sending.is_set():
            next_s = time.monotonic() + _PERIOD_S
            with self._lock:
                talks = list(self._talks)
            for talk in talks:
                for end in (talk.client, talk.server):
                    end.send()
                for end in (talk.client, talk.server):
                    end.receive()
            time.sleep(max(0.0, next_s - time.monotonic()))


def open_talk(source: Placed, destination: Placed, address: Address, port: int) -> Talk:
    server = destination.namespace.run(lambda: _socket(address.version))
    client = source.namespace.run(lambda: _socket(address.version))
    server.bind((str(address), port))
    client.bind((str(source.address(address.version)), 0))
    client.connect((str(address), port))
    server.connect(client.getsockname())
    return Talk(End(client), End(server))


def _socket(family: int) -> socket.socket:
    opened = socket.socket(_FAMILY[family], socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    opened.setblocking(False)  # noqa: FBT003  the standard library's own signature
    return opened


def talk_to_itself(address):
    """Called inside a namespace: a TCP connection from it to one of its own addresses, and an octet through it."""
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.create_server((address, 7070), family=kind) as listener,
        socket.create_connection((address, 7070), timeout=2) as client,
        listener.accept()[0] as accepted,
    ):
        client.sendall(b"x")
        assert accepted.recv(1) == b"x"
