"""What the servers of one shared database tell each other of the hosts that are connected to them.

Lives in the event loop's thread. Reports go at once, that a host is alive every few seconds; both ride on commits.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ringfence.policy.lockout import Connection, guards_itself
from ringfence.policy.model import Snapshot
from ringfence.policy.values import HostName, Revision
from ringfence.store import HostSeen

TOLD_EVERY_S: Final = 10.0  # well within the time after which a silent host no longer counts as live


class Telling:
    """What is still to be told; of each host only the newest."""

    def __init__(self) -> None:
        self._last: dict[HostName, tuple[HostSeen, float]] = {}
        self._due: dict[HostName, tuple[HostSeen, float]] = {}

    def alive(self, host: HostName, now_s: float) -> None:
        """A message of ``host`` came in at that monotonic time."""
        last, told_s = self._last.get(host, (HostSeen(host, 0.0, None, None, None, Revision(0)), -TOLD_EVERY_S))
        if now_s - told_s >= TOLD_EVERY_S:
            self.reported(last, now_s)

    def reported(self, seen: HostSeen, now_s: float) -> None:
        self._last[seen.host] = self._due[seen.host] = seen, now_s

    def take(self, now_s: float) -> tuple[HostSeen, ...]:
        """What is due, with how long ago it was heard, because clocks of servers may differ; it is due no more."""
        due = tuple(seen.aged(now_s - heard_s) for seen, heard_s in self._due.values())
        self._due.clear()
        return due

    def put_back(self, seen: tuple[HostSeen, ...], now_s: float) -> None:
        """It could not be told; what came since is newer."""
        self._due = {one.host: (one, now_s - one.ago_s) for one in seen} | self._due


class Elsewhere:
    """The channels of agents that are connected to other servers; each counts as long as that server tells of it."""

    def __init__(self, live_s: float) -> None:
        self._live_s = live_s
        self._channels: dict[HostName, tuple[Connection, float]] = {}

    def told(self, seen: HostSeen, heard_s: float) -> None:
        """Another server says what it heard of a host at that monotonic time."""
        self.came(seen.host)
        if seen.channel is not None:
            whose = f"{seen.channel.whose} to another server"
            self._channels[seen.host] = replace(seen.channel, whose=whose), heard_s

    def came(self, host: HostName) -> None:
        """The host is connected to this server, or is none any more."""
        self._channels.pop(host, None)

    def channels(self, snapshot: Snapshot, now_s: float) -> Iterator[Connection]:
        """Those that end at a host which is its own instance. From any thread."""
        for channel, heard_s in list(self._channels.values()):
            if now_s - heard_s < self._live_s and guards_itself(snapshot, channel.server):
                yield channel
