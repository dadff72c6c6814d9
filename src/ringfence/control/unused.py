"""Rules that no host has seen a packet of: since when that was counted, where, and whether it says enough. Pure.

A rule is judged by the counts of every host that enforces it; what a host has not told of is not known, never unused.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ringfence.policy.index import index_of
from ringfence.policy.model import Group, Rule, Snapshot
from ringfence.policy.values import HostName, RuleId
from ringfence.wire.counters import RuleCount

Counts = Callable[[HostName], Mapping[RuleId, RuleCount]]


@dataclass(frozen=True, slots=True)
class Unused:
    """A rule without a hit. ``since``: from when on all ``hosts`` counted it; None when not one did.

    ``silent`` are hosts that enforce it and told no count of it. ``created_at`` is None when the history does not know.
    """

    group: Group
    rule: Rule
    created_at: int | None
    since: float | None
    hosts: tuple[HostName, ...]
    silent: tuple[HostName, ...]

    def is_safe(self, now_s: float, window_s: float) -> bool:
        """Whether every host that enforces it has counted for so long."""
        return self.since is not None and not self.silent and now_s - self.since >= window_s


def find_unused(snapshot: Snapshot, counts: Counts, births: Mapping[RuleId, int]) -> Iterator[Unused]:
    """The rules that some host enforces and none has seen a packet of. O(rules x hosts that enforce them)."""
    index = index_of(snapshot)
    for group in snapshot.groups.values():
        enforcing = sorted(index.hosts_of(group.id))
        for rule in group.rules if enforcing else ():
            told = {host: count for host in enforcing if (count := counts(host).get(rule.id)) is not None}
            if not any(_was_hit(count) for count in told.values()):
                since = max((count.since for count in told.values()), default=None)
                silent = tuple(host for host in enforcing if host not in told)
                yield Unused(group, rule, births.get(rule.id), since, tuple(told), silent)


def _was_hit(count: RuleCount) -> bool:
    return bool(count.judged or count.connections or count.last_hit is not None)
