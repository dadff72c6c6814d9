"""One real packet that is asked about, from where its source address really is: open, closed, or skipped and why.

Input: a packet, as ``explain`` and ``check`` name it. Output: ``Probed``. It is sent from a network namespace of this
machine that has the source address: the caller's own, else, with the rights of root, that of a container or a named
one. Where there is none nothing is sent, and that is said; nothing is ever guessed.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from pyroute2 import IPRoute

from ringfence.policy.insight.explain import Service as Asked
from ringfence.policy.insight.explain import parse_service
from ringfence.policy.places import INTERNET_ADDRESSES
from ringfence.policy.values import Address, Protocol, parse_address
from ringfence.world.namespaces import Namespace, open_current_network
from ringfence.world.prober import Outcome, Probe, Result, Service, land, launch

_TRIES: Final = 3  # a single packet may be lost on its way
_SILENCE_S: Final = 0.8  # below TCP's first retransmission, so that a try is one packet
_HERE: Final = "this machine"
_ECHO: Final = {Protocol.ICMP: (4, 8), Protocol.ICMPV6: (6, 128)}
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


class Answer(Enum):
    """OPEN: something came back. CLOSED: nothing did, though it should. SKIPPED: nothing can be said from here."""

    OPEN = "open"
    CLOSED = "closed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Probed:
    """``text`` says what came back, or why nothing was sent or concluded."""

    answer: Answer
    text: str

    @property
    def sentence(self) -> str:
        return f"{self.answer.value}: {self.text}"

    def contradicts(self, *, allowed: bool) -> bool:
        """Whether the network does otherwise than the policy means."""
        return self.answer is (Answer.CLOSED if allowed else Answer.OPEN)


def addresses_here() -> list[str]:
    """Every address from which ``probe_packet`` could send."""
    found: dict[str, None] = {}
    for namespace in _namespaces():
        with suppress(OSError):
            found |= dict.fromkeys(namespace.run(_addresses))
        namespace.close()
    return [address for address in found if not ip_address(address).is_loopback]


def _addresses() -> list[str]:
    with IPRoute() as netlink:
        found = netlink.get_addr()
        return [str(one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS")) for one in found]


def probe_packet(packet: Mapping[str, str]) -> Probed:
    """What really becomes of a first packet: ``source``, ``destination``, ``service``. At most some seconds."""
    source, destination = (parse_address(packet[name], field=name) for name in ("source", "destination"))
    return probe_once(source, destination, parse_service(packet["service"]))


def probe_once(source: Address, destination: Address, asked: Asked) -> Probed:
    """As ``probe_packet``."""
    for address in (source, destination):
        if str(address) in INTERNET_ADDRESSES:
            return _skipped(f"{address} only stands for the internet: name the address of a machine")
    service = _service_of(asked, destination)
    if service is None:
        return _skipped(f"a probe is a TCP connection, a UDP packet or an echo, not {asked}")
    namespace = _find_namespace(source)
    if namespace is None:
        rights = "" if os.geteuid() == 0 else " that this user may enter (try it as root)"
        return _skipped(f"no network of this machine{rights} has the address {source}: ask where {source} is")
    try:
        if namespace.run(partial(_has, destination)):
            return _skipped(f"{destination} is on {namespace.name} as well: the packet would not leave it")
        return _send(Probe(namespace, destination, service, sent_from=source))
    finally:
        namespace.close()


def _send(probe: Probe) -> Probed:
    sender = probe.source.name
    try:
        for _ in range(_TRIES):
            flight = launch(probe)
            [result] = land([flight], silence_s=_SILENCE_S)
            if flight.error:
                return _skipped(f"it cannot be sent from {sender}: {os.strerror(flight.error)}")
            if result.outcome is not Outcome.SILENT:
                break
    except OSError as error:
        return _skipped(f"it cannot be sent from {sender}: {error.strerror}")
    return _judged(result, sender)


def _judged(result: Result, sender: str) -> Probed:
    took = f"{result.elapsed_ms:.1f} ms" if result.elapsed_ms is not None else ""
    match result.outcome:
        case Outcome.OPEN:
            return Probed(Answer.OPEN, f"answered within {took}, asked from {sender}")
        case Outcome.REFUSED:
            return Probed(Answer.OPEN, f"packets pass, asked from {sender}; nobody listens: refused within {took}")
        case Outcome.UNREACHABLE:
            return Probed(Answer.CLOSED, f"something on the way answers that it is unreachable, asked from {sender}")
        case Outcome.SILENT:
            if result.probe.service.protocol is Protocol.UDP:
                return _skipped(f"no answer, asked from {sender}: which a UDP service need not give")
            return Probed(
                Answer.CLOSED, f"no answer to {_TRIES} packets, asked from {sender}: dropped, or nobody is there"
            )


def _skipped(text: str) -> Probed:
    return Probed(Answer.SKIPPED, text)


def _service_of(asked: Asked, destination: Address) -> Service | None:
    if asked.protocol in (Protocol.TCP, Protocol.UDP):
        return Service(asked.protocol, asked.port)
    echo = (destination.version, asked.icmp_type)
    return Service(asked.protocol) if echo == _ECHO.get(asked.protocol) and asked.icmp_code == 0 else None


def _find_namespace(source: Address) -> Namespace | None:
    """The first network that has the address, for the caller to close."""
    for namespace in _namespaces():
        with suppress(OSError):
            if namespace.run(partial(_has, source)):
                return namespace
        namespace.close()
    return None


def _namespaces() -> Iterator[Namespace]:
    """The caller's own network, then every other that has a name or a process and may be looked at."""
    own = Namespace(_HERE, open_current_network())
    seen = {_identity(own.fd)}
    yield own
    named = ((f"the namespace {path.name}", path) for path in sorted(Path("/run/netns").glob("*")))
    processes = ((f"the network of process {path.name}", path / "ns/net") for path in Path("/proc").glob("[0-9]*"))
    for name, path in (*named, *processes):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # the process is gone, or is another user's
        if _identity(fd) in seen:
            os.close(fd)
            continue
        seen.add(_identity(fd))
        yield Namespace(name, fd)


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _has(address: Address) -> bool:
    """Whether the network of this thread has the address."""
    with IPRoute() as netlink:
        found = netlink.get_addr(family=_FAMILY[address.version])
        own = (one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS") for one in found)  # the latter may be a peer's
        return str(address) in own
