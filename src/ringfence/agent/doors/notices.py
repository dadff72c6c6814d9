"""What the kernel tells of changes to nf_tables, as it tells it: a socket in its multicast group.

Output: ``Heard``. Our own transactions are left out by the kernel, by a filter on the port they were sent from, but for
their count; so they wake nobody and fill no buffer.
"""

import errno
import socket
import struct
from contextlib import suppress
from ctypes import addressof, create_string_buffer
from typing import Final, Protocol

from ringfence.agent.doors.netlink import NetlinkSocket, explain_refusal, open_netlink, wait_readable
from ringfence.nft import Heard, Notices
from ringfence.policy.errors import OperatorError

_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_GROUP_NFTABLES: Final = 7
_SO_ATTACH_FILTER: Final = 26
_NEW_GENERATION: Final = 10 << 8 | 15
_RECEIVE_SIZE_BYTES: Final = 64 << 20  # a notice of every line of a large table; used only while it is not read
_READ_SIZE_BYTES: Final = 1 << 16
_MOST_DATAGRAMS: Final = 64  # in one ``take``: some milliseconds at most


class NoticesDoor(Protocol):
    async def wait(self) -> None:
        """Until there may be something to take. One waits at a time."""
        ...

    def take(self, known_until: int | None = None) -> Heard:
        """What was told since the last call, without waiting: the next of it, where there is ``more``.

        Transactions up to the count ``known_until`` are left out.
        """
        ...


class KernelNotices:
    """Notices of the network namespace in which it is made; ``own`` is the socket whose transactions are ours."""

    def __init__(self, own: NetlinkSocket) -> None:
        self._socket = open_netlink(_RECEIVE_SIZE_BYTES)
        self._notices = Notices()
        try:
            _attach(self._socket, _without(own.port))
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _GROUP_NFTABLES)
        except OSError as error:
            self._socket.close()
            raise OperatorError("listen to the kernel's changes of rules", explain_refusal(error.errno)) from error
        self._socket.setblocking(False)  # noqa: FBT003  the standard library's own signature

    def close(self) -> None:
        self._socket.close()

    async def wait(self) -> None:
        await wait_readable(self._socket)

    def take(self, known_until: int | None = None) -> Heard:
        if known_until is not None:
            self._notices.forget_until(known_until)
        lost = False
        with suppress(BlockingIOError):
            for _ in range(_MOST_DATAGRAMS):
                try:
                    self._notices.feed(self._socket.recv(_READ_SIZE_BYTES))
                except (ValueError, KeyError) as error:
                    raise OperatorError(
                        "listen to the kernel's changes of rules", f"not understood: {error}"
                    ) from error
                except BlockingIOError:
                    raise
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        reason = explain_refusal(error.errno)
                        raise OperatorError("listen to the kernel's changes of rules", reason) from error
                    lost = True
            return self._notices.take(lost=lost, more=True)
        return self._notices.take(lost=lost)


def _without(port: int) -> list[tuple[int, int, int, int]]:
    """A classic filter: nothing that ``port`` caused, but for the counts. Octets are loaded as big-endian numbers."""
    load_half, load_word, jump_equal, answer = 0x28, 0x20, 0x15, 0x06
    return [
        (load_word, 0, 0, 12),  # nlmsg_pid
        (jump_equal, 0, 2, _as_loaded(port, "I")),
        (load_half, 0, 0, 4),  # nlmsg_type
        (jump_equal, 0, 1, _as_loaded(_NEW_GENERATION, "H")),
        (answer, 0, 0, 0xFFFFFFFF),
        (answer, 0, 0, 0),
    ]


def _as_loaded(number: int, size: str) -> int:
    return int.from_bytes(struct.pack(f"={size}", number), "big")


def _attach(channel: socket.socket, instructions: list[tuple[int, int, int, int]]) -> None:
    code = create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in instructions))
    program = struct.pack("@HP", len(instructions), addressof(code))
    channel.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
