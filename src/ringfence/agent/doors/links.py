"""The network namespace: its interfaces, what takes their frames, and the lock by which only one agent filters it."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ringfence.policy.errors import OperatorError

# An abstract address belongs to the network namespace, whatever the agent's folder, and is freed with the process.
_LOCK_ADDRESS: Final = "\0ringfence-agent"
_DEVICES: Final = "/sys/class/net"


class Filtered(OperatorError):
    """An agent filters the network namespace already."""


@dataclass(frozen=True, slots=True)
class Master:
    """What takes an interface's frames before they are packets of this host; ``name`` is None when nothing does."""

    name: str | None
    is_bridge: bool = False


class LinksDoor(Protocol):
    def master_of(self, interface: str) -> Master | None:
        """What the interface is a port of; None when that cannot be seen."""
        ...

    def names(self) -> frozenset[str]:
        """The names of all interfaces, up or down."""
        ...


class KernelLinks:
    def names(self) -> frozenset[str]:
        try:
            return frozenset(name for _, name in socket.if_nameindex())
        except OSError as error:
            raise OperatorError("list the network interfaces", str(error)) from error

    def master_of(self, interface: str) -> Master | None:
        # Strings, not paths: a host has a thousand ports, and they are looked at for ever.
        device = f"{_DEVICES}/{interface}"
        try:
            name = Path(os.readlink(f"{device}/master")).name  # noqa: PTH115  as above
        except OSError:
            there = os.path.exists(device)  # noqa: PTH110  as above; else /sys may be another network namespace's
            return Master(None) if there else None
        kind = _kind_of(name)
        return Master(None) if kind == "vrf" else Master(name, kind == "bridge")  # what a VRF routes passes the rules


def _kind_of(device: str) -> str | None:
    """The kind of a device that has ports, as the kernel calls it, if it calls it anything."""
    try:
        told = Path(_DEVICES, device, "uevent").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((line.removeprefix("DEVTYPE=") for line in told if line.startswith("DEVTYPE=")), None)


@contextmanager
def lock_network() -> Iterator[None]:
    """Holds the caller's network namespace for this agent alone; raises ``Filtered`` at once when another holds it."""
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
