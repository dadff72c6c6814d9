"""The packets that the kernel logs: a socket bound to our group of nfnetlink_log. Output: ``Told`` packets."""

import errno
import socket
from typing import Final, Protocol

from ringfence.agent.doors.listener import Listener
from ringfence.agent.doors.netlink import explain_refusal
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
        self._listener = Listener(_STEP, _RECEIVE_SIZE_BYTES)
        try:
            for request in encode_requests():
                self._ask(request)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._listener.close()

    async def wait(self) -> None:
        await self._listener.wait()

    def take(self) -> tuple[Told, ...]:
        found: list[Told] = []
        self._listener.drain(lambda datagram: found.extend(parse_told(datagram)), _MOST_DATAGRAMS)
        return tuple(found)

    def interface(self, index: int) -> str | None:
        try:
            return socket.if_indextoname(index)
        except OSError:
            return None

    def _ask(self, request: bytes) -> None:
        answers = [one for one in parse_messages(self._listener.ask(request)) if one.type == NLMSG_ERROR]
        for answer in answers:
            if (refusal := parse_refusal(answer)) is not None:
                taken = refusal.errno in (errno.EPERM, errno.EBUSY)  # the kernel says EPERM (nfulnl_recv_config)
                hint = f", or another program listens to log group {LOG_GROUP}" if taken else ""
                raise OperatorError(_STEP, f"{explain_refusal(refusal.errno, refusal.text)}{hint}")
