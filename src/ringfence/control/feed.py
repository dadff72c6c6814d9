"""The newest view that each host shall enforce, told to whoever follows it: changes as deltas, else the whole view.

Lives in the event loop's thread. It keeps no history and queues nothing: a follower that cannot take a line now gets
the newest whole view when it can, so that a stopped agent costs the same whatever happens meanwhile.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator

from ringfence.control.views import Change, Views, Wanted, wanted_view
from ringfence.policy.errors import NotFound
from ringfence.policy.lockout import Connection, guards_itself
from ringfence.policy.model import Snapshot
from ringfence.policy.values import Address, HostName, Revision
from ringfence.policy.view import HostView
from ringfence.wire.feed import Base, WholeEncoder, encode_changes, encode_delta

_MOST_OF_A_HOST = 4  # a connection that broke may not be known to be broken yet; more are a host that runs twice


class Feed:
    """``publish`` for the one side, ``follow`` for the other."""

    def __init__(self, epoch: str, snapshot: Snapshot, views: Views) -> None:
        self.epoch = epoch
        self._snapshot = snapshot
        self._views = views
        self._followers: dict[HostName, list[Follower]] = defaultdict(list)
        self._encoder = WholeEncoder(epoch)
        self.count = 0  # of followers
        self._channels: dict[Address, dict[Follower, Connection]] = defaultdict(dict)

    def wanted(self, host: HostName) -> Wanted:
        """What is wanted of ``host``, in short."""
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
        """Makes the views of ``change`` the newest, and tells those who follow a host that it touches.

        What is new is encoded once for all hosts for which the same is.
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
                self.end(host)  # also if a host of that name is added

    def end(self, host: HostName) -> None:
        """Ends whoever follows ``host``: who began to may do so no more."""
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
        """A follower of ``host``, which is sent what is new since ``base``, or the whole view, before this returns.

        ``send`` takes a line; ``end`` is called when there will be no more. ``channel`` is the connection that it uses.
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
        """The agents' channels that end at a host which is its own instance. From any thread."""
        for address, channels in list(self._channels.items()):
            if guards_itself(snapshot, address):
                yield from list(channels.values())

    def channel(self, host: HostName) -> Connection | None:
        """How the agent of ``host`` is connected, if that ends at a host which is its own instance."""
        channel = next((one.channel for one in reversed(self._followers.get(host, ()))), None)
        return channel if channel is not None and guards_itself(self._snapshot, channel.server) else None

    def close(self) -> None:
        """Ends every follower."""
        for followers in tuple(self._followers.values()):
            for follower in tuple(followers):
                follower.end()

    def forget(self, follower: "Follower") -> None:
        """It is told nothing from here on."""
        followers = self._followers.get(follower.host, [])
        if follower in followers:
            followers.remove(follower)
            self.count -= 1
        if not followers:
            self._followers.pop(follower.host, None)
        if follower.channel is not None:
            self._channels[follower.channel.server].pop(follower, None)


class Follower:
    """Who follows one host's feed over one connection."""

    __slots__ = ("_end", "_feed", "_is_behind", "_is_paused", "_send", "channel", "host", "offered")

    def __init__(self, feed: Feed, host: HostName, send: Callable[[bytes], None], end: Callable[[], None]) -> None:
        self._feed = feed
        self._send = send
        self._end = end
        self._is_paused = False
        self._is_behind = False
        self.host = host
        self.channel: Connection | None = None
        self.offered = Revision(0)  # the newest revision that it was sent

    def begin(self, base: Base | None) -> None:
        """Sends what makes the newest view of the one that the agent says it holds."""
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

    def offer(self, wanted: Wanted, changes: bytes) -> None:
        """``changes`` are new; one that is paused gets the newest view when it goes on."""
        if self._is_paused or self._is_behind:
            self._is_behind = True
            return
        self._send(encode_delta(self._feed.epoch, self.offered, wanted.revision, wanted.digest, changes))
        self.offered = wanted.revision

    def send_whole(self) -> None:
        """The newest view, whole; later if it is paused."""
        if self._is_paused:
            self._is_behind = True
            return
        self._is_behind = False
        self.offered = self._feed.wanted(self.host).revision
        self._send(self._feed.whole(self.host))

    def pause(self) -> None:
        """It can take nothing now."""
        self._is_paused = True

    def go_on(self) -> None:
        """It can take lines again: the newest view, if any was missed."""
        self._is_paused = False
        if self._is_behind:
            self.send_whole()

    @property
    def is_paused(self) -> bool:
        return self._is_paused

    def end(self) -> None:
        self._feed.forget(self)
        self._end()
