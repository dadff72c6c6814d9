"""Our network namespace: which interfaces exist in it, and that one agent alone filters it."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from ringfence.policy.errors import OperatorError

# Abstract, so it belongs to the network namespace itself, whatever folder an agent has, and goes with the process.
_LOCK_ADDRESS: Final = "\0ringfence-agent"


class Filtered(OperatorError):
    """An agent filters the network namespace already."""


class LinksDoor(Protocol):
    def names(self) -> frozenset[str]:
        """The names of all interfaces, up or down."""
        ...


class KernelLinks:
    def names(self) -> frozenset[str]:
        try:
            return frozenset(name for _, name in socket.if_nameindex())
        except OSError as error:
            raise OperatorError("list the network interfaces", str(error)) from error


@contextmanager
def lock_network() -> Iterator[None]:
    """Only one agent filters the network namespace of the caller; ``Filtered`` at once when another does."""
    step = "lock the network namespace"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        try:
            lock.bind(_LOCK_ADDRESS)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                reason = "another agent filters this network namespace already; two would undo each other's rules"
                raise Filtered(step, reason) from error
            raise OperatorError(step, error.strerror or str(error)) from error
        yield
