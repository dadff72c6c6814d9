"""The counters of rules that hosts reported: the newest of each host and rule, in memory only.

A host is believed only about rules that it enforces. A restart of the server forgets the counts, and each host sends
all of them again when it connects.
"""

from collections.abc import Iterable

from ringfence.policy.values import HostName, RuleId
from ringfence.wire.counters import RuleCount


class CountBook:
    """Lives in the event loop's thread."""

    def __init__(self) -> None:
        self._counts: dict[HostName, dict[RuleId, RuleCount]] = {}

    def add(self, host: HostName, counts: Iterable[RuleCount], rules: frozenset[RuleId]) -> None:
        """Adds the newest counts; only those of ``rules``, which the host enforces, are kept."""
        known = {rule: count for rule, count in self._counts.get(host, {}).items() if rule in rules}
        self._counts[host] = known | {count.rule: count for count in counts if count.rule in rules}

    def forget(self, host: HostName) -> None:
        """Drops the counts of a removed host."""
        self._counts.pop(host, None)

    def of(self, host: HostName) -> dict[RuleId, RuleCount]:
        return self._counts.get(host, {})
