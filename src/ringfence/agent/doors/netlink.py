"""One netlink socket: send a request or a batch, collect what the kernel answers.

Input: packed netlink messages. Output: the answers, or an ``OperatorError`` with the kernel's message. It knows no
payload: ``nft`` packs and parses that for nftables, ``conntrack`` for its own few messages.
"""

import errno
import os
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, TypeVar

from ringfence.nft.netlink import NLMSG_DONE, NLMSG_ERROR, Message, Refusal, parse_messages, parse_refusal, scan_dump
from ringfence.policy.errors import OperatorError

NETFILTER: Final = 12
SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10  # an error does not repeat the message it is about
_NETLINK_EXT_ACK: Final = 11  # an error carries a sentence where the kernel has one
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_RECEIVE_SIZE_BYTES: Final = 8 << 20
READ_SIZE_BYTES: Final = 1 << 16  # the kernel puts at most 32 KiB of a dump into one (af_netlink.c)
_OVERHEAD_BYTES: Final = 32  # the kernel takes a message of at most the send buffer less this (af_netlink.c)
_DUMP_TRIES: Final = 4


_T = TypeVar("_T")


class _Interrupted(Exception):
    """The rules, anybody's, changed while they were read."""


class NotUnderstood(OperatorError):
    """The kernel holds what ringfence never makes."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What came back for one send: messages with payload, refusals, and the sequence numbers acknowledged."""

    messages: tuple[Message, ...]
    refusals: tuple[Refusal, ...]
    acknowledged: frozenset[int]


class NetlinkSocket:
    """A netlink socket to netfilter, in the network namespace of the thread that makes it; for one thread at a time.

    The kernel carries out a request within ``send``, and has queued every answer when that returns, so answers are read
    without waiting; only a dump continues while it is read.
    """

    def __init__(self, protocol: int = NETFILTER) -> None:
        self._socket = open_netlink(_RECEIVE_SIZE_BYTES, protocol)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)

    @property
    def port(self) -> int:
        """The netlink port of this socket, by which notices name the sender of a transaction."""
        port: int = self._socket.getsockname()[0]
        return port

    def close(self) -> None:
        self._socket.close()

    def request(self, data: bytes) -> Answers:
        """The answers to a request, or to a batch of them, that does not dump.

        Raises:
            OperatorError: the request was too large to send (nothing was done), or answers were lost (ENOBUFS): the
                outcome is then unknown and must be read back.
        """
        self._forget_old_answers()
        self._send(data)
        return _sorted_out(message for part in self._queued() for message in parse_messages(part))

    def dump(self, request: bytes) -> bytes:
        """The whole answer to a dump: one that is interrupted is repeated, and taken as it is when each one is.

        Others change their own tables then, which leaves ours what it is; of a list of all tables' objects something
        may be missing. A dump of something that does not exist is empty.
        """
        return self._dumped(request, lambda check: b"".join(self._until_done(check)))

    def dump_fresh(self, request: bytes, known: frozenset[bytes]) -> tuple[list[bytes], frozenset[bytes]]:
        """The parts of a dump (each of whole messages) that are not ``known``, and the next value of ``known``.

        ``known`` are the digests of the parts of the last dump; a known part is not parsed. The last part of a dump
        never counts as known.
        """
        return self._dumped(request, lambda check: self._unknown(known, check))

    def _dumped(self, request: bytes, receive: Callable[["_Check"], _T]) -> _T:
        for left in reversed(range(_DUMP_TRIES)):
            self._forget_old_answers()
            self._send(request)
            with suppress(_Interrupted):
                return receive(_ends_dump if left else _ends_at_last)
        raise OperatorError(
            "read the kernel's rules",
            f"the kernel broke off each of {_DUMP_TRIES} readings: another program rewrites its own without pause",
        )

    def converse(self, conversation: Generator[bytes, bytes, _T]) -> _T:
        """The result of a conversation of dumps, such as ``nft.read_table``.

        Raises:
            NotUnderstood: there is something in the answer that no table of ours has.
            OperatorError: the kernel refuses.
        """
        try:
            request = next(conversation)
            while True:
                request = conversation.send(self.dump(request))
        except StopIteration as end:
            result: _T = end.value
            return result
        except TimeoutError as error:
            raise OperatorError("read the kernel's rules", str(error)) from error
        except (ValueError, LookupError) as error:
            raise NotUnderstood("read the kernel's rules", f"not understood: {error!r}") from error

    def _until_done(self, check: "_Check") -> Iterator[bytes]:
        is_over = False
        while not is_over:
            part = self._receive()
            is_over = check(part)
            yield part

    def _unknown(self, known: frozenset[bytes], check: "_Check") -> tuple[list[bytes], frozenset[bytes]]:
        fresh, digests = list[bytes](), set[bytes]()
        while True:
            part = self._receive()
            digest = blake2b(part, digest_size=16).digest()
            if digest not in known:
                fresh.append(part)
                if check(part):
                    return fresh, frozenset(digests)
            digests.add(digest)

    def _send(self, data: bytes) -> None:
        limit = self._send_limit(len(data))
        if len(data) > limit:
            raise OperatorError(
                "send to the kernel",
                f"the change is one transaction of {len(data)} bytes and this process may send {limit} at once; "
                f"nothing was changed. Raise the limit: sysctl -w net.core.wmem_max={2 * len(data)}",
            )
        try:
            self._socket.sendto(data, (0, 0))
        except OSError as error:
            raise OperatorError("send to the kernel", explain_refusal(error.errno)) from error

    def _send_limit(self, size: int) -> int:
        if self._present_limit() < size:
            _grow(self._socket, _SO_SNDBUFFORCE, socket.SO_SNDBUF, size + _OVERHEAD_BYTES)
        return self._present_limit()

    def _present_limit(self) -> int:
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - _OVERHEAD_BYTES

    def _forget_old_answers(self) -> None:
        """Drops answers that an earlier, failed exchange left, so that they are not taken for answers to the next."""
        with suppress(OperatorError):  # lost answers are as good as read ones
            for _ in self._queued():
                pass

    def _queued(self) -> Iterator[bytes]:
        with suppress(BlockingIOError):
            while True:
                yield self._receive(socket.MSG_DONTWAIT)

    def _receive(self, flags: int = 0) -> bytes:
        try:
            answer, _, received, _ = self._socket.recvmsg(READ_SIZE_BYTES, 0, flags)
        except BlockingIOError:
            raise
        except OSError as error:
            raise OperatorError("read the kernel's answer", explain_refusal(error.errno)) from error
        if received & socket.MSG_TRUNC:
            raise OperatorError("read the kernel's answer", f"one message is larger than {READ_SIZE_BYTES} bytes")
        return answer


def open_netlink(receive_bytes: int, protocol: int = NETFILTER) -> socket.socket:
    """A bound netlink socket with a receive buffer of ``receive_bytes``, or what the system allows."""
    try:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        opened.bind((0, 0))
    except OSError as error:
        raise OperatorError("open a netlink socket to netfilter", explain_refusal(error.errno)) from error
    _grow(opened, _SO_RCVBUFFORCE, socket.SO_RCVBUF, receive_bytes)
    return opened


def explain_refusal(code: int | None, text: str = "") -> str:
    """An errno as text: its message and name, the kernel's own sentence if any, and what to do where known."""
    words = "unknown error" if code is None else f"{os.strerror(code)} ({errno.errorcode.get(code, str(code))})"
    hint = _HINTS.get(code or 0)
    return ": ".join(part for part in (words, text, hint) if part)


_HINTS: Final = {
    errno.EPERM: "needs root or CAP_NET_ADMIN in this network namespace",
    errno.EACCES: "needs root or CAP_NET_ADMIN in this network namespace",
    errno.EPROTONOSUPPORT: "this kernel has no netfilter netlink (modprobe nfnetlink)",
    errno.EAFNOSUPPORT: "this kernel has no netlink",
    errno.ENOBUFS: "more answers came than the receive buffer holds; raise net.core.rmem_max",
}


def _sorted_out(messages: Iterator[Message]) -> Answers:
    payloads: list[Message] = []
    refusals: list[Refusal] = []
    acknowledged: set[int] = set()
    for message in messages:
        if message.type not in (NLMSG_ERROR, NLMSG_DONE):
            payloads.append(message)
        elif (refusal := parse_refusal(message)) is not None:
            refusals.append(refusal)
        else:
            acknowledged.add(message.sequence)
    return Answers(tuple(payloads), tuple(refusals), frozenset(acknowledged))


_Check = Callable[[bytes], bool]  # whether a dump ends with this part


def _ends_dump(part: bytes) -> bool:
    is_interrupted, last = scan_dump(part)
    if is_interrupted:
        raise _Interrupted
    return _is_end(last)


def _ends_at_last(part: bytes) -> bool:
    return _is_end(scan_dump(part)[1])


def _is_end(last: Message | None) -> bool:
    if last is not None:
        _check_end(parse_refusal(last))
    return last is not None


def _check_end(refusal: Refusal | None) -> None:
    if refusal is None or refusal.errno == errno.ENOENT:
        return
    if refusal.errno == errno.EINTR:
        raise _Interrupted
    raise OperatorError("read the kernel's rules", explain_refusal(refusal.errno, refusal.text))


def _grow(channel: socket.socket, force: int, ask: int, size_bytes: int) -> None:
    """Enlarges a buffer: beyond the system's limit if allowed (CAP_NET_ADMIN of the machine), else up to it."""
    try:
        channel.setsockopt(socket.SOL_SOCKET, force, size_bytes)
    except OSError:
        channel.setsockopt(socket.SOL_SOCKET, ask, size_bytes)
