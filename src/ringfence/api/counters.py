"""A host's rules and their counts, as the operator sees them."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from ringfence.policy.rule_words import describe_rule
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import HostName, RuleId
from ringfence.policy.view import HostView
from ringfence.wire.counters import RuleCount


def show_counts(
    host: HostName, view: HostView, counts: Mapping[RuleId, RuleCount], snapshot: Snapshot
) -> Iterator[dict[str, object]]:
    """One JSON object for each rule that the host enforces, without a count if the host has not reported one yet."""
    for group, rules in view.rules.items():
        name = snapshot.groups[group].name if group in snapshot.groups else str(group)
        for rule in rules:
            count = counts.get(rule.id)
            yield {
                "host": host,
                "group": name,
                "group-id": str(group),
                "rule": str(rule.id),
                "direction": rule.direction.value,
                "description": describe_rule(snapshot, rule),
                "judged": count.judged if count else None,
                "connections": count.connections if count else None,
                "packets": count.packets if count else None,
                "bytes": count.octets if count else None,
                "last-hit": _time(count.last_hit) if count else None,
                "since": _time(count.since) if count else None,
            }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
