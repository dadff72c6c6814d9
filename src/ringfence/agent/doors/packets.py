"""The packets that the kernel logs: a socket bound to our group of nfnetlink_log. Output: ``Told`` packets."""

import errno
import socket
from contextlib import suppress
from typing import Final, Protocol

from ringfence.agent.doors.netlink import READ_SIZE_BYTES, explain_refusal, open_netlink, wait_readable
from ringfence.nft.expressions import LOG_GROUP
from ringfence.nft.netlink import NLMSG_ERROR, parse_messages, parse_refusal
from ringfence.nft.packetlog import Told, encode_requests, parse_told
from ringfence.policy.errors import OperatorError

_RECEIVE_SIZE_BYTES: Final = 1 << 20
_MOST_DATAGRAMS: Final = 64  # in one ``take``
_STEP: Final = "listen to refused packets"


class PacketsDoor(Protocol):
    async def wait(self) -> None:
        """Until there may be something to take. One waits at a time."""
        ...

    def take(self) -> tuple[Told, ...]:
        """The next logged packets, without waiting. Packets that came too fast are lost without notice."""
        ...

    def interface(self, index: int) -> str | None:
        """The name of an interface; None when it is gone."""
        ...


class KernelPackets:
    """The log of the network namespace in which it is made; ``OperatorError`` when another program has our group."""

    def __init__(self) -> None:
        self._socket = open_netlink(_RECEIVE_SIZE_BYTES)
        try:
            for request in encode_requests():
                self._ask(request)
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)  # noqa: FBT003  the standard library's own signature

    def close(self) -> None:
        self._socket.close()

    async def wait(self) -> None:
        await wait_readable(self._socket)

    def take(self) -> tuple[Told, ...]:
        found: list[Told] = []
        with suppress(BlockingIOError):
            for _ in range(_MOST_DATAGRAMS):
                try:
                    found += parse_told(self._socket.recv(READ_SIZE_BYTES))
                except BlockingIOError:
                    raise
                except ValueError as error:
                    raise OperatorError(_STEP, f"not understood: {error}") from error
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise OperatorError(_STEP, explain_refusal(error.errno)) from error
        return tuple(found)

    def interface(self, index: int) -> str | None:

        try:
            return socket.if_indextoname(index)
        except OSError:
            return None

    def _ask(self, request: bytes) -> None:
        try:
            self._socket.sendto(request, (0, 0))
            answers = [one for one in parse_messages(self._socket.recv(READ_SIZE_BYTES)) if one.type == NLMSG_ERROR]
        except OSError as error:
            raise OperatorError(_STEP, explain_refusal(error.errno)) from error
        for answer in answers:
            if (refusal := parse_refusal(answer)) is not None:
                taken = refusal.errno in (errno.EPERM, errno.EBUSY)  # the kernel says EPERM (nfulnl_recv_config)
                hint = f", or another program listens to log group {LOG_GROUP}" if taken else ""
                raise OperatorError(_STEP, f"{explain_refusal(refusal.errno, refusal.text)}{hint}")
