"""The lock-out guard: whether a change would cut the caller's own connection, or the channels of agents.

It knows the channels to this server, and to other servers as far as they reported them. Safe from the writer's thread.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ringfence.control.feed import Feed
from ringfence.control.hosts import Presence
from ringfence.control.replicas import Elsewhere
from ringfence.policy.errors import Conflict
from ringfence.policy.lockout import Connection, Cut, find_cuts
from ringfence.policy.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Guard:
    """``now_s`` returns monotonic seconds."""

    feed: Feed
    presence: Presence
    elsewhere: Elsewhere
    now_s: Callable[[], float]

    def cuts(self, before: Snapshot, after: Snapshot, own: Connection | None) -> Iterator[Cut]:
        """What a change would cut; ``own`` is the caller's connection."""
        if before is after:
            return
        owns = () if own is None else (own,)
        connections = (*owns, *self.feed.channels(after), *self.elsewhere.channels(after, self.now_s()))
        yield from find_cuts(before, after, connections, self.presence.failsafe)

    def require_uncut(self, before: Snapshot, after: Snapshot, own: Connection | None) -> None:
        """Raises ``Conflict`` for a change that would cut a connection."""
        for cut in self.cuts(before, after, own):
            raise Conflict(f"{cut.text}; nothing was changed. If that is meant, say --force")
