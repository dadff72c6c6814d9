"""Which network interfaces exist in our network namespace."""

import socket
from typing import Protocol

from ringfence.policy.errors import OperatorError


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
