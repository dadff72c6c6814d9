"""What the servers of one shared database tell each other of the hosts that are connected to them.

Lives in the event loop's thread. Reports go at once, that a host is alive every few seconds; both ride on commits.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from ringfence.policy.lockout import Connection, guards_itself
from ringfence.policy.model import Snapshot
from ringfence.policy.values import HostName
from ringfence.store import HostSaid, HostsSeen

TOLD_EVERY_S: Final = 10.0  # well within the time after which a silent host no longer counts as live


class Telling:
    """What is still to be told; of each host only the newest."""

    def __init__(self) -> None:
        self._last: dict[HostName, tuple[HostSaid, float]] = {}
        self._due: dict[HostName, tuple[HostSaid, float]] = {}

    def alive(self, host: HostName, now_s: float) -> None:
        """A message of ``host`` came in at that monotonic time."""
        said, told_s = self._last.get(host, (HostSaid(), -TOLD_EVERY_S))
        if now_s - told_s >= TOLD_EVERY_S:
            self.reported(host, said, now_s)

    def reported(self, host: HostName, said: HostSaid, now_s: float) -> None:
        self._last[host] = self._due[host] = said, now_s

    def take(self, now_s: float) -> tuple[HostsSeen, ...]:
        """What is due, with how long ago it was heard, because clocks of servers may differ; it is due no more.

        Hosts that said the same within a second are told of at once: after a change that is most of them.
        """
        alike: defaultdict[tuple[HostSaid, int], list[HostName]] = defaultdict(list)
        for host, (said, heard_s) in self._due.items():
            alike[said, int(heard_s)].append(host)
        due = tuple(
            HostsSeen(tuple(hosts), now_s - min(self._due[host][1] for host in hosts), said)
            for (said, _), hosts in alike.items()
        )
        self._due.clear()
        return due

    def put_back(self, seen: tuple[HostsSeen, ...], now_s: float) -> None:
        """It could not be told; what came since is newer."""
        self._due = {host: (one.said, now_s - one.ago_s) for one in seen for host in one.hosts} | self._due


class Elsewhere:
    """The channels of agents that are connected to other servers; each counts as long as that server tells of it."""

    def __init__(self, live_s: float) -> None:
        self._live_s = live_s
        self._channels: dict[HostName, tuple[Connection, float]] = {}

    def told(self, hosts: Iterable[HostName], channel: Connection | None, heard_s: float) -> None:
        """Another server says that it heard of ``hosts`` at that monotonic time, over ``channel``."""
        for host in hosts:
            self.came(host)
            if channel is not None:
                self._channels[host] = replace(channel, whose=f"{channel.whose} to another server"), heard_s

    def came(self, host: HostName) -> None:
        """The host is connected to this server, or is none any more."""
        self._channels.pop(host, None)

    def channels(self, snapshot: Snapshot, now_s: float) -> Iterator[Connection]:
        """Those that end at a host which is its own instance. From any thread."""
        for channel, heard_s in list(self._channels.values()):
            if now_s - heard_s < self._live_s and guards_itself(snapshot, channel.server):
                yield channel
