"""What the servers of one shared database tell each other about the hosts that are connected to them.

Lives in the event loop's thread. Reports are passed on at once, signs of life every few seconds, both with commits.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from ringfence.policy.lockout import Connection, guards_itself
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import HostName
from ringfence.store import HostSaid, HostsSeen

TOLD_EVERY_S: Final = 10.0  # well within the time after which a silent host no longer counts as live


class Telling:
    """What is still to be passed on; only the newest of each host."""

    def __init__(self) -> None:
        self._last: dict[HostName, tuple[HostSaid, float]] = {}
        self._due: dict[HostName, tuple[HostSaid, float]] = {}

    def alive(self, host: HostName, now_s: float) -> None:
        """Takes note that a message of ``host`` came in at that monotonic time."""
        said, told_s = self._last.get(host, (HostSaid(), -TOLD_EVERY_S))
        if now_s - told_s >= TOLD_EVERY_S:
            self.reported(host, said, now_s)

    def reported(self, host: HostName, said: HostSaid, now_s: float) -> None:
        self._last[host] = self._due[host] = said, now_s

    def take(self, now_s: float) -> tuple[HostsSeen, ...]:
        """Takes out what is due, with how long ago it was heard, because the servers' clocks may differ.

        Hosts that reported the same within a second come together: after a change those are most of them.
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
        """Puts back what could not be passed on, except where something newer has come since."""
        self._due = {host: (one.said, now_s - one.ago_s) for one in seen for host in one.hosts} | self._due


class Elsewhere:
    """The channels of agents that are connected to other servers, as long as those servers report them."""

    def __init__(self, live_s: float) -> None:
        self._live_s = live_s
        self._channels: dict[HostName, tuple[Connection, float]] = {}

    def told(self, hosts: Iterable[HostName], channel: Connection | None, heard_s: float) -> None:
        """Takes note that another server heard from ``hosts`` at that monotonic time, over ``channel``."""
        for host in hosts:
            self.came(host)
            if channel is not None:
                self._channels[host] = replace(channel, whose=f"{channel.whose} to another server"), heard_s

    def came(self, host: HostName) -> None:
        """Forgets a host that is connected to this server, or was removed."""
        self._channels.pop(host, None)

    def channels(self, snapshot: Snapshot, now_s: float) -> Iterator[Connection]:
        """The channels that end at a self host. Safe from any thread."""
        for channel, heard_s in list(self._channels.values()):
            if now_s - heard_s < self._live_s and guards_itself(snapshot, channel.server):
                yield channel
