"""A connection that was upgraded to a feed: lines of views down, lines of reports up, and nothing in between.

Ten thousand of them lie open at once, so each is this object, a timer and its transport: no task, no HTTP parser.
Input: the control plane and what the upgrade was asked for. It decides nothing about who may follow.
"""

import asyncio
import logging
import socket
import time
from typing import TYPE_CHECKING, Final

from ringfence.control.plane import ControlPlane
from ringfence.policy.errors import Invalid
from ringfence.policy.lockout import parse_connection
from ringfence.policy.meter import Meter
from ringfence.policy.values import HostName
from ringfence.wire.feed import HEARTBEAT, Base, decode_report

if TYPE_CHECKING:
    from ringfence.control.feed import Follower

PROTOCOL: Final = "ringfence-feed"
HEARTBEAT_S: Final = 15.0  # a third of the time after which a silent host no longer counts as live

_SWITCHED: Final = f"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {PROTOCOL}\r\n\r\n".encode()
_WAITING_BYTES: Final = 128 * 1024  # lines that an agent does not read: this many here, twice as many in the kernel
_MAX_REPORT_BYTES: Final = 64 * 1024
_SILENT_BEATS: Final = 4  # agents report at every beat: after so many without a word the host is gone, or stopped
_WHOLE_BEATS: Final = 240  # a view that was built of deltas alone gets no older than this many beats

log: Final = logging.getLogger("ringfence.api")


class FeedConnection(asyncio.Protocol):
    """One agent that follows its host's feed; ``meter`` says how often the host may report over all that it has."""

    __slots__ = (
        "_beat_s",
        "_beats",
        "_follower",
        "_heard_s",
        "_host",
        "_is_full",
        "_late",
        "_meter",
        "_pause",
        "_plane",
        "_rest",
        "_timer",
        "_transport",
    )

    def __init__(self, plane: ControlPlane, host: HostName, beat_s: float, meter: Meter) -> None:
        self._plane = plane
        self._host = host
        self._beat_s = beat_s
        self._meter = meter
        self._beats = 0
        self._heard_s = time.monotonic()
        self._rest = b""
        self._late = b""  # the newest report that came too early
        self._pause: asyncio.TimerHandle | None = None  # until it is heard, nothing is read
        self._is_full = False
        self._follower: Follower | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, transport: asyncio.Transport, base: Base | None) -> None:
        """Takes over ``transport``, on which nothing was answered yet."""
        self._transport = transport
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=_WAITING_BYTES)
        opened = transport.get_extra_info("socket")
        if opened is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _WAITING_BYTES)
        transport.write(_SWITCHED)
        ends = (transport.get_extra_info(name) for name in ("peername", "sockname"))
        channel = parse_connection(f"the channel of the agent of {self._host}", *ends, agent=self._host)
        self._follower = self._plane.feed.follow(self._host, base, send=transport.write, end=self._end, channel=channel)
        if self._is_full:  # by a large first view
            self._follower.pause()
        self._wait()

    def data_received(self, data: bytes) -> None:
        self._heard_s = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._plane.seen(self._host)
        self._take(lines)

    def pause_writing(self) -> None:
        self._is_full = True
        if self._follower is not None:
            self._follower.pause()

    def resume_writing(self) -> None:
        self._is_full = False
        if self._follower is not None:
            self._follower.go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the reason changes nothing
        if self._timer is not None:
            self._timer.cancel()
        if self._follower is not None:
            self._plane.feed.forget(self._follower)

    def _take(self, lines: list[bytes]) -> None:
        try:
            self._hear_some(lines)
            _check_size(self._rest)
        except Invalid as error:
            log.warning("host %s sent what is no report: %s", self._host, error)
            self._transport.abort()

    def _hear_some(self, lines: list[bytes]) -> None:
        """Of reports that come faster than they may, the newest is heard, when it may be: it says what is so now."""
        for line in lines:
            if self._pause is None and (wait_s := self._meter.take(self._host, time.monotonic())):
                self._transport.pause_reading()
                self._pause = asyncio.get_running_loop().call_later(wait_s, self._hear_late)
            if self._pause is not None:
                self._late = lines[-1]
                return
            self._hear(line)

    def _hear_late(self) -> None:
        self._pause = None
        if not self._transport.is_closing():  # a removed host is heard no more
            self._transport.resume_reading()
            self._take([self._late])

    def _hear(self, line: bytes) -> None:
        report = decode_report(line)
        if self._follower is not None:
            self._follower.spoke(self._heard_s)
            self._plane.report(self._host, report, offered=self._follower.offered)

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._beat_s, self._beat)

    def _beat(self) -> None:
        """Shows that the connection lives; ends it when the agent does not show it, though nobody closed it."""
        if time.monotonic() - self._heard_s > _SILENT_BEATS * self._beat_s or self._follower is None:
            self._transport.abort()
            return
        self._beats += 1
        if self._beats % _WHOLE_BEATS == 0:
            self._follower.send_whole()
        elif not self._follower.is_paused:
            self._transport.write(HEARTBEAT)
        self._wait()

    def _end(self) -> None:
        if self._follower is not None and self._follower.is_paused:
            self._transport.abort()  # what it did not read so far would keep it open
        else:
            self._transport.close()


def _check_size(rest: bytes) -> None:
    if len(rest) > _MAX_REPORT_BYTES:
        raise Invalid(f"expected a line of at most {_MAX_REPORT_BYTES} bytes")
