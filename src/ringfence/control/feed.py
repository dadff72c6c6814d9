"""The feed: sends each host's newest view to the agents that follow it, changes as deltas, else the whole view.

Lives in the event loop's thread. It keeps no history and no queue: a follower that cannot take a line now gets the
newest whole view when it can, so that a stopped agent costs the same however much changes meanwhile.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Final

from ringfence.control.views import Change, Views, Wanted, wanted_view
from ringfence.policy.errors import NotFound
from ringfence.policy.lockout import Connection, guards_itself
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import Address, HostName, Revision
from ringfence.policy.view import HostView
from ringfence.wire.feed import Base, WholeEncoder, encode_changes, encode_delta

_BESIDE_S = 10.0  # agents report every 15 s; what a broken connection still delivers comes at once, and then its end
_MOST_OF_A_HOST = 4  # followers of one host: some connections may be dead without being known to be

_log: Final = logging.getLogger("ringfence.control")


class Feed:
    """Views come in by ``publish``, agents by ``follow``."""

    def __init__(self, epoch: str, snapshot: Snapshot, views: Views) -> None:
        self.epoch = epoch
        self._snapshot = snapshot
        self._views = views
        self._followers: dict[HostName, list[Follower]] = defaultdict(list)
        self._encoder = WholeEncoder(epoch)
        self.count = 0  # of followers
        self._channels: dict[Address, dict[Follower, Connection]] = defaultdict(dict)

    def wanted(self, host: HostName) -> Wanted:
        """The revision and digest of the view wanted of ``host``; raises ``NotFound`` for an unknown host."""
        if host not in self._views:
            raise NotFound(f"there is no host {host}: add it with ringfence host add")
        return self._views[host]

    def view(self, host: HostName) -> HostView:
        """The newest view wanted of ``host``. O(the host's instances and rules)."""
        self.wanted(host)
        return wanted_view(self._snapshot, self._views, host)

    def whole(self, host: HostName) -> bytes:
        """The newest view of ``host`` as a line."""
        return self._encoder.encode(self.view(host), self.wanted(host).digest)

    def publish(self, change: Change) -> None:
        """Makes the views of ``change`` the newest, and sends the changes to the followers of the hosts it touches.

        Equal changes are encoded once for all hosts.
        """
        before, self._snapshot, self._views = self._views, change.snapshot, change.views
        encoded: dict[int, bytes] = {}
        for host, changes in change.touched.items():
            if host not in self._followers:
                continue
            if id(changes) not in encoded:
                encoded[id(changes)] = encode_changes(changes)
            wanted = change.views[host]
            for follower in tuple(self._followers[host]):
                follower.offer(wanted, encoded[id(changes)])
        for host in change.removed:
            if host in before:
                self.end(host)  # even if a host of that name was added again

    def end(self, host: HostName) -> None:
        """Ends all followers of ``host``, which may not follow any more."""
        for follower in tuple(self._followers.get(host, ())):
            follower.end()

    def follow(
        self,
        host: HostName,
        base: Base | None,
        *,
        send: Callable[[bytes], None],
        end: Callable[[], None],
        channel: Connection | None = None,
    ) -> "Follower":
        """A new follower of ``host``; before this returns it is sent what is new since ``base``, or the whole view.

        ``send`` takes a line; ``end`` is called when there will be no more. ``channel`` is the agent's connection.
        """
        self.wanted(host)
        follower = Follower(self, host, send, end)
        if channel is not None:
            follower.channel = channel
            self._channels[channel.server][follower] = channel
        others = self._followers[host]
        others.append(follower)
        self.count += 1
        if len(others) > _MOST_OF_A_HOST:
            others[0].end()
        follower.begin(base)
        return follower

    def channels(self, snapshot: Snapshot) -> Iterator[Connection]:
        """The agents' channels that end at a self host. Safe from any thread."""
        for address, channels in list(self._channels.items()):
            if guards_itself(snapshot, address):
                yield from list(channels.values())

    def channel(self, host: HostName) -> Connection | None:
        """The channel of the agent of ``host``, if it ends at a self host."""
        channel = next((one.channel for one in reversed(self._followers.get(host, ()))), None)
        return channel if channel is not None and guards_itself(self._snapshot, channel.server) else None

    def find_twins(self, host: HostName) -> str | None:
        """What is to say if several agents follow as ``host``, which is one machine's name. O(its followers)."""
        followers = self._followers.get(host, ())
        if len(followers) < 2 or not any(one.is_twin for one in followers):  # noqa: PLR2004  the usual one
            return None
        ends = [f"{one.channel.client}:{one.channel.client_port}" for one in followers if one.channel is not None]
        return (
            f"several agents have this host's key{', at ' if ends else ''}{' and '.join(ends)}: was the machine copied?"
            " Stop the agent of the copy, and have it join under a name of its own with an empty folder"
        )

    def is_newest(self, follower: "Follower") -> bool:
        """Whether no other one of the same host began after it."""
        return self._followers.get(follower.host, [])[-1:] == [follower]

    def close(self) -> None:
        """Ends every follower."""
        for followers in tuple(self._followers.values()):
            for follower in tuple(followers):
                follower.end()

    def forget(self, follower: "Follower") -> None:
        """Removes a follower."""
        followers = self._followers.get(follower.host, [])
        if follower in followers:
            followers.remove(follower)
            self.count -= 1
        if not followers:
            self._followers.pop(follower.host, None)
        if follower.channel is not None:
            self._channels[follower.channel.server].pop(follower, None)


class Follower:
    """One agent that follows one host's feed over one connection."""

    __slots__ = (
        "_beside_s",
        "_end",
        "_feed",
        "_is_behind",
        "_is_paused",
        "_send",
        "channel",
        "host",
        "is_twin",
        "offered",
    )

    def __init__(self, feed: Feed, host: HostName, send: Callable[[bytes], None], end: Callable[[], None]) -> None:
        self._feed = feed
        self._send = send
        self._end = end
        self._is_paused = False
        self._is_behind = False
        self._beside_s: float | None = None  # when its agent was first heard beside a newer one
        self.is_twin = False
        self.host = host
        self.channel: Connection | None = None
        self.offered = Revision(0)  # the newest revision that it was sent

    def begin(self, base: Base | None) -> None:
        """Sends what leads from the view that the agent says it has to the newest one."""
        wanted, epoch = self._feed.wanted(self.host), self._feed.epoch
        if (
            base is not None
            and (base.epoch, base.digest) == (epoch, wanted.digest)
            and base.revision <= wanted.revision
        ):
            self._send(encode_delta(epoch, base.revision, wanted.revision, wanted.digest, encode_changes(())))
            self.offered = wanted.revision
        else:
            self.send_whole()

    def spoke(self, now_s: float) -> None:
        """Takes note that its agent was heard. An agent has one connection: who stays beside a newer one is a twin."""
        if self._feed.is_newest(self):
            self._beside_s, self.is_twin = None, False
        elif self._beside_s is None:
            self._beside_s = now_s
        elif not self.is_twin and now_s - self._beside_s >= _BESIDE_S:
            self.is_twin = True
            _log.warning("host %s: %s", self.host, self._feed.find_twins(self.host))

    def offer(self, wanted: Wanted, changes: bytes) -> None:
        """Sends ``changes``, unless it is paused: then it gets the newest view when it goes on."""
        if self._is_paused or self._is_behind:
            self._is_behind = True
            return
        self._send(encode_delta(self._feed.epoch, self.offered, wanted.revision, wanted.digest, changes))
        self.offered = wanted.revision

    def send_whole(self) -> None:
        """Sends the newest view whole, or later if it is paused."""
        if self._is_paused:
            self._is_behind = True
            return
        self._is_behind = False
        self.offered = self._feed.wanted(self.host).revision
        self._send(self._feed.whole(self.host))

    def pause(self) -> None:
        """Stops sending: the connection cannot take more now."""
        self._is_paused = True

    def go_on(self) -> None:
        """Resumes sending, with the newest view if anything was missed."""
        self._is_paused = False
        if self._is_behind:
            self.send_whole()

    @property
    def is_paused(self) -> bool:
        return self._is_paused

    def end(self) -> None:
        self._feed.forget(self)
        self._end()
