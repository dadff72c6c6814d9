"""Names of hosts and their addresses, as this machine resolves them."""

import socket
from ipaddress import ip_address
from typing import Protocol

from ringfence.policy.errors import OperatorError
from ringfence.policy.values import Address


class NamesDoor(Protocol):
    def addresses(self, host: str) -> frozenset[Address]:
        """Every address of a name, or the address itself; ``OperatorError`` when there is none. May take seconds."""
        ...


class SystemNames:
    def addresses(self, host: str) -> frozenset[Address]:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise OperatorError(f"find the addresses of {host}", str(error)) from error
        return frozenset(ip_address(str(place[0]).partition("%")[0]) for *_, place in found)
