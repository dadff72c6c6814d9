"""The kernel's notices of changes to nf_tables: a socket in its multicast group.

Output: ``Heard``. A socket filter on the port that a transaction came from leaves out our own, but for their count, so
that they wake nobody and fill no buffer.
"""

import socket
import struct
from ctypes import addressof, create_string_buffer
from typing import Final, Protocol

from ringfence.agent.doors.listener import Listener
from ringfence.agent.doors.netlink import NetlinkSocket
from ringfence.nft import Heard, Notices
from ringfence.nft.messages import NEW_GENERATION, message_type
from ringfence.policy.errors import OperatorError

_GROUP_NFTABLES: Final = 7
_SO_ATTACH_FILTER: Final = 26
_STEP: Final = "listen to the kernel's changes of rules"
_RECEIVE_SIZE_BYTES: Final = 64 << 20  # a notice of every line of a large table; used only while it is not read
_MOST_DATAGRAMS: Final = 64  # in one ``take``: some milliseconds at most


class NoticesDoor(Protocol):
    async def wait(self) -> None:
        """Until there may be something to take. One waits at a time."""
        ...

    def take(self, known_until: int | None = None) -> Heard:
        """What came since the last call, without waiting; ``more`` says that not all was taken.

        Transactions up to the count ``known_until`` are left out.
        """
        ...


class KernelNotices:
    """Notices of the network namespace in which it is made; ``own`` is the socket whose transactions are ours."""

    def __init__(self, own: NetlinkSocket) -> None:
        self._listener = Listener(_STEP, _RECEIVE_SIZE_BYTES)
        self._notices = Notices()
        try:
            _attach(self._listener, _without(own.port))
            self._listener.join(_GROUP_NFTABLES)
        except OperatorError:
            self.close()
            raise

    def close(self) -> None:
        self._listener.close()

    async def wait(self) -> None:
        await self._listener.wait()

    def take(self, known_until: int | None = None) -> Heard:
        if known_until is not None:
            self._notices.forget_until(known_until)
        drained = self._listener.drain(self._notices.feed, _MOST_DATAGRAMS)
        return self._notices.take(lost=drained.lost, more=drained.more)


def _without(port: int) -> list[tuple[int, int, int, int]]:
    """A classic BPF program that drops what ``port`` caused, except the counts. It loads numbers as big-endian."""
    load_half, load_word, jump_equal, answer = 0x28, 0x20, 0x15, 0x06
    return [
        (load_word, 0, 0, 12),  # nlmsg_pid
        (jump_equal, 0, 2, _as_loaded(port, "I")),
        (load_half, 0, 0, 4),  # nlmsg_type
        (jump_equal, 0, 1, _as_loaded(message_type(NEW_GENERATION), "H")),
        (answer, 0, 0, 0xFFFFFFFF),
        (answer, 0, 0, 0),
    ]


def _as_loaded(number: int, size: str) -> int:
    return int.from_bytes(struct.pack(f"={size}", number), "big")


def _attach(listener: Listener, instructions: list[tuple[int, int, int, int]]) -> None:
    code = create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in instructions))
    program = struct.pack("@HP", len(instructions), addressof(code))
    listener.set_option(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
