"""What hosts told of their rules' counters: the newest of each host and rule, in memory only.

Input: hosts' reports, believed of rules that they enforce. Output: counts by host. A restart of the server forgets
them, and each host tells all of them again when it connects.
"""

from collections.abc import Iterable

from ringfence.policy.values import HostName, RuleId
from ringfence.wire.counters import RuleCount


class CountBook:
    """Lives in the event loop's thread."""

    def __init__(self) -> None:
        self._counts: dict[HostName, dict[RuleId, RuleCount]] = {}

    def add(self, host: HostName, counts: Iterable[RuleCount], rules: frozenset[RuleId]) -> None:
        """Take note of counts of ``rules``, which are those that the host enforces; of others nothing is kept."""
        known = {rule: count for rule, count in self._counts.get(host, {}).items() if rule in rules}
        self._counts[host] = known | {count.rule: count for count in counts if count.rule in rules}

    def forget(self, host: HostName) -> None:
        """The host was removed."""
        self._counts.pop(host, None)

    def of(self, host: HostName) -> dict[RuleId, RuleCount]:
        return self._counts.get(host, {})
