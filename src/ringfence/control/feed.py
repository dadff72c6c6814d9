"""The newest view that each host shall enforce, handed to whoever watches. It coalesces and never keeps history.

Lives in the event loop's thread. A slow watcher costs one reference: it gets the newest view when it comes back.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable

from ringfence.control.views import Views
from ringfence.policy.errors import NotFound
from ringfence.policy.values import HostName, Revision
from ringfence.policy.view import HostView


class Feed:
    """``publish`` for the one side, ``watch`` for the other."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._watchers: dict[HostName, set[asyncio.Event]] = defaultdict(set)
        self._offered: dict[HostName, Revision] = {}
        self._is_open = True

    def view(self, host: HostName) -> HostView:
        """The newest view wanted of ``host``."""
        try:
            return self._views[host]
        except KeyError:
            raise NotFound(f"there is no host {host}: add it with ringfence host add") from None

    def offered(self, host: HostName) -> Revision:
        """The newest revision that a watcher of ``host`` was handed; 0 when none was."""
        return self._offered.get(host, Revision(0))

    def publish(self, views: Views, touched: Iterable[HostName]) -> None:
        """Makes ``views`` the newest, wakes the watchers of the hosts they differ for, ends those of removed hosts."""
        self._views = views
        for host in (self._watchers.keys() | self._offered.keys()) - views.keys():
            self._offered.pop(host, None)
            for watcher in self._watchers.pop(host, ()):  # forgotten: it ends even if a host of that name is added
                watcher.set()
        for host in touched:
            for watcher in self._watchers.get(host, ()):
                watcher.set()

    async def watch(self, host: HostName) -> AsyncIterator[HostView]:
        """The present view, then the newest one each time there is a newer; ends with the feed or the host."""
        awake = asyncio.Event()
        shown: HostView | None = None
        self._watchers[host].add(awake)
        try:
            while self._is_open and awake in self._watchers.get(host, ()):
                awake.clear()
                view = self.view(host)
                if view is shown:
                    await awake.wait()
                    continue
                shown = view
                self._offered[host] = max(view.revision, self.offered(host))
                yield view
        finally:
            self._forget(host, awake)

    def close(self) -> None:
        """Ends every watch."""
        self._is_open = False
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.set()

    def _forget(self, host: HostName, awake: asyncio.Event) -> None:
        self._watchers[host].discard(awake)
        if not self._watchers[host]:
            del self._watchers[host]
