"""What the servers of one shared database tell each other of the hosts that are connected to them.

Lives in the event loop's thread. Reports go at once, that a host is alive every few seconds; both ride on commits.
"""

from dataclasses import replace
from typing import Final

from ringfence.policy.values import HostName, Revision
from ringfence.store import HostSeen

TOLD_EVERY_S: Final = 10.0  # well within the time after which a silent host no longer counts as live


class Telling:
    """What is still to be told; of each host only the newest."""

    def __init__(self) -> None:
        self._last: dict[HostName, HostSeen] = {}
        self._due: dict[HostName, HostSeen] = {}

    def alive(self, host: HostName, now_s: float) -> None:
        """A message of ``host`` came in."""
        last = self._last.get(host, HostSeen(host, 0.0, None, None, None, Revision(0)))
        if now_s - last.at >= TOLD_EVERY_S:
            self.reported(replace(last, at=now_s))

    def reported(self, seen: HostSeen) -> None:
        self._last[seen.host] = self._due[seen.host] = seen

    def take(self) -> tuple[HostSeen, ...]:
        """What is due; it is no more."""
        due = tuple(self._due.values())
        self._due.clear()
        return due

    def put_back(self, seen: tuple[HostSeen, ...]) -> None:
        """It could not be told; what came since is newer."""
        self._due = {one.host: one for one in seen} | self._due
