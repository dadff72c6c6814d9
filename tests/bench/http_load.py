"""Closed-loop HTTP clients in one thread, cheap enough to keep a server busy, and the processor time of that server.

Input: requests as bytes. Output: how long each answer took, by the kind of its request. Every answer must be a 200.
"""

import select
import socket
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Kind = str
Waits = dict[Kind, list[float]]


def cpu_s(pid: int) -> float:
    """What a process has used so far, by its own clock (clock_getcpuclockid(3)): neighbours hardly change it."""
    return time.clock_gettime((~pid << 3) | 2)


def drive(port: int, requests: Iterable[tuple[Kind, bytes]], clients: int, *, pause_s: float = 0.0) -> Waits:
    """Sends all requests, each client its next one as soon as its last one was answered.

    With a pause the clients look for answers only so often: the server then never spends its time on waking them up,
    which it does all the more the idler they are.
    """
    waits: Waits = defaultdict(list)
    left, poll = iter(requests), select.epoll()
    connected = [_Client(port) for _ in range(clients)]  # all of them before any asks, or the first would wait for that
    busy = {client.number: client for client in connected if client.ask(left)}
    for client in busy.values():
        poll.register(client.number, select.EPOLLIN)
    while busy:
        time.sleep(pause_s)
        for number, _ in poll.poll():
            client = busy[number]
            if client.hear():
                waits[client.kind].append(time.perf_counter() - client.asked_s)
                if not client.ask(left):
                    poll.unregister(number)
                    busy.pop(number).connection.close()
    poll.close()
    return waits


@dataclass(slots=True)
class _Client:
    port: int
    kind: Kind = ""
    asked_s: float = 0.0
    answer: bytes = b""
    end: int = 0  # of the answer, 0 while its head is not whole
    connection: socket.socket = None

    def __post_init__(self):
        self.connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)

    @property
    def number(self) -> int:
        return self.connection.fileno()

    def ask(self, left: Iterator[tuple[Kind, bytes]]) -> bool:
        """Sends the next request; False when there is none."""
        self.kind, request = next(left, ("", b""))
        self.answer, self.end = b"", 0
        self.asked_s = time.perf_counter()
        self.connection.sendall(request)
        return bool(request)

    def hear(self) -> bool:
        """Whether the answer is whole."""
        heard = self.connection.recv(1 << 20)
        assert heard, (self.kind, "the server closed the connection", self.answer)
        self.answer = self.answer + heard if self.answer else heard
        if not self.end and (head := self.answer.find(b"\r\n\r\n")) > 0:
            assert self.answer.startswith(b"HTTP/1.1 200"), self.answer
            length = self.answer[:head].lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            self.end = head + 4 + int(length)
        return 0 < self.end <= len(self.answer)
