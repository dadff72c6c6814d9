"""Conntrack's events about connections: a socket in its multicast groups, while somebody listens.

Output: ``Connection`` events, and how many the kernel dropped because the socket was full. While nobody listens, the
kernel makes no events (``nf_conntrack_events`` = 2, its default), so that they cost nothing.
"""

import errno
import socket
import struct
from contextlib import suppress
from typing import Final, Protocol

from ringfence.agent.doors.netlink import READ_SIZE_BYTES, SOL_NETLINK, explain_refusal, open_netlink, wait_readable
from ringfence.nft.connections import GROUP_BEGUN, GROUP_ENDED, Connection, parse_connections
from ringfence.policy.errors import OperatorError

_RECEIVE_SIZE_BYTES: Final = 8 << 20  # some 15,000 events
_MOST_EVENTS: Final = 256  # in one ``take``: some ten milliseconds
_JOIN, _LEAVE = 1, 2  # NETLINK_ADD_MEMBERSHIP, NETLINK_DROP_MEMBERSHIP
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("=9I")  # the last: how many were dropped because the socket was full
_STEP: Final = "listen to connections"


class ConnectionsDoor(Protocol):
    def listen(self, *, on: bool) -> None:
        """Starts or stops receiving events."""
        ...

    async def wait(self) -> None:
        """Until there may be something to take. One waits at a time."""
        ...

    def take(self) -> tuple[Connection, ...]:
        """The next events, without waiting: a bounded number of them."""
        ...

    def lost(self) -> int:
        """How many events were dropped so far."""
        ...


class KernelConnections:
    """The connections of the network namespace in which it is made."""

    def __init__(self) -> None:
        self._socket = open_netlink(_RECEIVE_SIZE_BYTES)
        self._socket.setblocking(False)  # noqa: FBT003  the standard library's own signature

    def close(self) -> None:
        self._socket.close()

    def listen(self, *, on: bool) -> None:
        try:
            for group in (GROUP_BEGUN, GROUP_ENDED):
                self._socket.setsockopt(SOL_NETLINK, _JOIN if on else _LEAVE, group)
        except OSError as error:
            raise OperatorError(_STEP, explain_refusal(error.errno)) from error

    async def wait(self) -> None:
        await wait_readable(self._socket)

    def take(self) -> tuple[Connection, ...]:
        found: list[Connection] = []
        with suppress(BlockingIOError):
            while len(found) < _MOST_EVENTS:
                try:
                    found += parse_connections(self._socket.recv(READ_SIZE_BYTES))
                except BlockingIOError:
                    raise
                except (ValueError, KeyError) as error:
                    raise OperatorError(_STEP, f"not understood: {error}") from error
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # dropped events are counted: see ``lost``
                        raise OperatorError(_STEP, explain_refusal(error.errno)) from error
        return tuple(found)

    def lost(self) -> int:
        counted: int = _MEMINFO.unpack(self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[-1]
        return counted
