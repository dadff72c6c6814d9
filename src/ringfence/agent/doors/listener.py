"""A netlink socket on which the kernel speaks unasked: of rules, links, packets or connections.

Output: datagrams, as they came. It knows none of them: ``nft`` parses those that have a content that counts.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass

from ringfence.agent.doors.netlink import NETFILTER, READ_SIZE_BYTES, SOL_NETLINK, explain_refusal, open_netlink
from ringfence.policy.errors import OperatorError

_JOIN, _LEAVE = 1, 2  # NETLINK_ADD_MEMBERSHIP, NETLINK_DROP_MEMBERSHIP


@dataclass(frozen=True, slots=True)
class Drained:
    """``lost``: datagrams found no room and were dropped. ``more``: more may be waiting."""

    lost: bool
    more: bool


class Listener:
    """A socket in the network namespace of the thread that makes it; ``step`` is what errors call the listening.

    Its methods raise ``OperatorError`` with the kernel's answer.
    """

    def __init__(self, step: str, receive_bytes: int, protocol: int = NETFILTER) -> None:
        self._step = step
        self._socket = open_netlink(receive_bytes, protocol)
        self._socket.setblocking(False)  # noqa: FBT003  the standard library's own signature

    def close(self) -> None:
        self._socket.close()

    def join(self, group: int) -> None:
        """Hears from now on what the kernel tells a multicast group."""
        self.set_option(SOL_NETLINK, _JOIN, group)

    def leave(self, group: int) -> None:
        self.set_option(SOL_NETLINK, _LEAVE, group)

    def set_option(self, level: int, option: int, value: int | bytes) -> None:
        """Sets an option of the socket."""
        try:
            self._socket.setsockopt(level, option, value)
        except OSError as error:
            raise self._failed(error) from error

    def get_option(self, option: int, size: int) -> bytes:
        """An option of the socket, of at most ``size`` octets."""
        return self._socket.getsockopt(socket.SOL_SOCKET, option, size)

    def ask(self, request: bytes) -> bytes:
        """The answer to a request. The kernel has queued it by when the request is sent."""
        try:
            self._socket.sendto(request, (0, 0))
            return self._socket.recv(READ_SIZE_BYTES)
        except OSError as error:
            raise self._failed(error) from error

    async def wait(self) -> None:
        """Until there is something to drain. One waits at a time."""
        loop = asyncio.get_running_loop()
        came: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._socket, _settle, came)
        try:
            await came
        finally:
            loop.remove_reader(self._socket)

    def drain(self, hear: Callable[[bytes], object], most: int, size_bytes: int = READ_SIZE_BYTES) -> Drained:
        """Calls ``hear`` with what came, datagram by datagram, without waiting: at most ``most`` of them.

        Of each there is no more than ``size_bytes``. A ``ValueError`` or ``KeyError`` of ``hear`` is an
        ``OperatorError``, too: the datagram was not understood.
        """
        lost = False
        for _ in range(most):
            try:
                hear(self._socket.recv(size_bytes))
            except BlockingIOError:
                return Drained(lost, more=False)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise self._failed(error) from error
                lost = True
            except (ValueError, KeyError) as error:
                raise OperatorError(self._step, f"not understood: {error}") from error
        return Drained(lost, more=True)

    def _failed(self, error: OSError) -> OperatorError:
        return OperatorError(self._step, explain_refusal(error.errno))


def _settle(came: asyncio.Future[None]) -> None:
    if not came.done():
        came.set_result(None)
