"""Rules for which no host has seen a packet: since when, on which hosts, and whether that is conclusive. Pure.

A rule is judged by the counts of every host that enforces it; a host that has not reported a count does not count as
one without hits.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ringfence.policy.model import Group, Rule
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import HostName, RuleId
from ringfence.wire.counters import RuleCount

Counts = Callable[[HostName], Mapping[RuleId, RuleCount]]


@dataclass(frozen=True, slots=True)
class Unused:
    """A rule without a hit. ``since``: from when on all ``hosts`` have counted; None if none has.

    ``silent`` hosts enforce it and reported no count. ``created_at`` is None when the history does not know it.
    """

    group: Group
    rule: Rule
    created_at: int | None
    since: float | None
    hosts: tuple[HostName, ...]
    silent: tuple[HostName, ...]

    def is_safe(self, now_s: float, window_s: float) -> bool:
        """Whether every host that enforces it has counted for at least ``window_s``."""
        return self.since is not None and not self.silent and now_s - self.since >= window_s


def find_unused(snapshot: Snapshot, counts: Counts, births: Mapping[RuleId, int]) -> Iterator[Unused]:
    """The rules that some host enforces and none has seen a packet for. O(rules * hosts that enforce them)."""
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
