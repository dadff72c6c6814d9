"""Conntrack's events about connections: a socket in its multicast groups, while somebody listens.

Output: ``Connection`` events, and how many the kernel dropped because the socket was full. While nobody listens, the
kernel makes no events (``nf_conntrack_events`` = 2, its default), so that they cost nothing.
"""

import struct
from typing import Final, Protocol

from ringfence.agent.doors.listener import Listener
from ringfence.nft.connections import GROUP_BEGUN, GROUP_ENDED, Connection, parse_connections

_RECEIVE_SIZE_BYTES: Final = 8 << 20  # some 15,000 events
_MOST_DATAGRAMS: Final = 256  # in one ``take``, an event each: some ten milliseconds
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("=9I")  # the last: how many were dropped because the socket was full


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
        self._listener = Listener("listen to connections", _RECEIVE_SIZE_BYTES)

    def close(self) -> None:
        self._listener.close()

    def listen(self, *, on: bool) -> None:
        for group in (GROUP_BEGUN, GROUP_ENDED):
            if on:
                self._listener.join(group)
            else:
                self._listener.leave(group)

    async def wait(self) -> None:
        await self._listener.wait()

    def take(self) -> tuple[Connection, ...]:
        found: list[Connection] = []
        self._listener.drain(lambda datagram: found.extend(parse_connections(datagram)), _MOST_DATAGRAMS)
        return tuple(found)

    def lost(self) -> int:
        counted: int = _MEMINFO.unpack(self._listener.get_option(_SO_MEMINFO, _MEMINFO.size))[-1]
        return counted
