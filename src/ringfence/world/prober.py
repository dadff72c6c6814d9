"""Real probes between nodes: TCP connections, UDP and ICMP echoes, many at once; and the listeners that answer them.

What is denied is dropped in silence, so "closed" can only mean that no answer came in time. A control probe that must
pass is sent last: while it does, silence is the firewall's and not a slow machine's.
"""

import errno
import os
import select
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ringfence.policy.errors import OperatorError
from ringfence.policy.values import Address, Protocol
from ringfence.world.namespaces import Namespace

SILENCE_S: Final = 0.4  # below TCP's first retransmission (1 s): one probe is one packet
_LONGEST_SILENCE_S: Final = 6.4
_ECHO_REQUEST: Final = {4: 8, 6: 128}
_ECHO_PROTOCOL: Final = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_GREETING: Final = b"ringfence probe"
_BACKLOG: Final = 256
_UNREACHABLE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM})


@dataclass(frozen=True, slots=True)
class Service:
    """What is asked of a node: a TCP or UDP port, or an ICMP echo of the address's family (``port`` None)."""

    protocol: Protocol
    port: int | None = None

    def __str__(self) -> str:
        return "icmp echo" if self.port is None else f"{self.protocol.value}/{self.port}"


class Outcome(Enum):
    """OPEN and REFUSED both mean that packets pass, in both directions; REFUSED that nobody listens."""

    OPEN = "open"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    SILENT = "silent"

    @property
    def passed(self) -> bool:
        return self in (Outcome.OPEN, Outcome.REFUSED)


@dataclass(frozen=True, slots=True)
class Probe:
    """``sent_from`` is one of the source's addresses; None lets its kernel choose."""

    source: Namespace
    destination: Address
    service: Service
    sent_from: Address | None = None


@dataclass(frozen=True, slots=True)
class Result:
    probe: Probe
    outcome: Outcome
    elapsed_ms: float | None = None  # None: no answer


@dataclass(frozen=True, slots=True)
class Flight:
    """A probe whose first packet is on its way; ``error`` says why it is not, if so."""

    probe: Probe
    socket: socket.socket
    started_s: float
    error: int = 0


def launch(probe: Probe) -> Flight:
    """Send the probe's first packet and return at once."""
    opened = probe.source.run(lambda: _open(probe))
    started_s = time.monotonic()
    code = opened.connect_ex((str(probe.destination), probe.service.port or 0))
    if code not in (0, errno.EINPROGRESS):
        return Flight(probe, opened, started_s, code)
    if probe.service.protocol is Protocol.UDP:
        opened.send(_GREETING)
    elif probe.service.port is None:
        opened.send(bytes((_ECHO_REQUEST[probe.destination.version], 0, 0, 0, 0, 1, 0, 1)) + _GREETING)
    return Flight(probe, opened, started_s)


def land(flights: Iterable[Flight], *, silence_s: float = SILENCE_S) -> list[Result]:
    """What became of each, in their order: answers as they come, silence for those that gave none for ``silence_s``."""
    in_order = list(flights)
    results = {flight: _judge(flight) for flight in in_order if flight.error}
    waiting = {flight.socket.fileno(): flight for flight in in_order if not flight.error}
    poll = select.poll()
    for descriptor, flight in waiting.items():
        poll.register(descriptor, select.POLLOUT if flight.probe.service.protocol is Protocol.TCP else select.POLLIN)
    while waiting:
        deadline = max(flight.started_s for flight in waiting.values()) + silence_s
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready and time.monotonic() >= deadline:
            break
        for descriptor, _ in ready:
            poll.unregister(descriptor)
            flight = waiting.pop(descriptor)
            results[flight] = _judge(flight)
    for flight in in_order:
        flight.socket.close()
    return [results.get(flight) or Result(flight.probe, Outcome.SILENT) for flight in in_order]


def probe_all(probes: Sequence[Probe], *, control: Probe) -> list[Result]:
    """Send all probes at once and a ``control`` after them; silence counts only when that came back in good time.

    On a machine so busy that it did not, everything is repeated with a longer wait.

    Raises:
        OperatorError: when the control never passes: then the world itself is broken, and nothing can be told.
    """
    silence_s = SILENCE_S
    while silence_s <= _LONGEST_SILENCE_S:
        *results, last = land([launch(probe) for probe in (*probes, control)], silence_s=silence_s)
        if last.outcome.passed and last.elapsed_ms is not None and last.elapsed_ms < silence_s * 1000 / 4:
            return results
        silence_s *= 2
    raise OperatorError("probing", f"the control probe {control.service} to {control.destination} gets no answer")


class Listeners:
    """Answers on a set of services at a set of nodes, in a thread of its own, until ``close``."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._stop_read, self._stop_write = os.pipe()
        self._selector.register(self._stop_read, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="listeners", daemon=True)

    def start(self, namespaces: Iterable[Namespace], services: Iterable[Service]) -> None:
        """Listen on every service (ICMP echoes are the kernel's) in every namespace, IPv4 and IPv6. Call once."""
        wanted = [service for service in services if service.port is not None]
        for namespace in namespaces:
            for service in wanted:
                opened = namespace.run(lambda service=service: _listen(service))  # type: ignore[misc]
                self._selector.register(opened, selectors.EVENT_READ, data=service.protocol)
        self._thread.start()

    def close(self) -> None:
        os.write(self._stop_write, b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if not isinstance(key.fileobj, socket.socket):
                    return
                try:
                    _answer(key.fileobj, key.data)
                except OSError:
                    continue  # the prober has gone already, or a firewall forbids the answer


def _open(probe: Probe) -> socket.socket:
    """Called inside the source's namespace."""
    family = probe.destination.version
    if probe.service.port is None:
        opened = socket.socket(_FAMILY[family], socket.SOCK_DGRAM, _ECHO_PROTOCOL[family])
    else:
        kind = socket.SOCK_STREAM if probe.service.protocol is Protocol.TCP else socket.SOCK_DGRAM
        opened = socket.socket(_FAMILY[family], kind)
    opened.setblocking(False)  # noqa: FBT003  the standard library's own signature
    if probe.sent_from is not None:
        opened.bind((str(probe.sent_from), 0))
    return opened


def _judge(flight: Flight) -> Result:
    elapsed_ms = (time.monotonic() - flight.started_s) * 1000
    error = flight.error or flight.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error == 0:
        return Result(flight.probe, Outcome.OPEN, elapsed_ms)
    if error == errno.ECONNREFUSED:
        return Result(flight.probe, Outcome.REFUSED, elapsed_ms)
    outcome = Outcome.UNREACHABLE if error in _UNREACHABLE else Outcome.SILENT
    return Result(flight.probe, outcome, elapsed_ms)


def _listen(service: Service) -> socket.socket:
    """Called inside the listening namespace."""
    if service.protocol is Protocol.TCP:
        opened = socket.create_server(
            ("::", service.port or 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
        )
    else:
        opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened.bind(("::", service.port or 0))
    opened.setblocking(False)  # noqa: FBT003  the standard library's own signature
    return opened


def _answer(opened: socket.socket, protocol: Protocol) -> None:
    if protocol is Protocol.TCP:
        connection, _ = opened.accept()
        connection.close()
    else:
        message, sender = opened.recvfrom(len(_GREETING) + 1)
        opened.sendto(message, sender)
