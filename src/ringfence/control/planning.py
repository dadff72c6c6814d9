"""The effects of a change that is not made yet: what it opens, closes, cuts and drops, on which hosts, what then fails.

Input: the snapshots before and after it, and the flows that hosts reported. Output: values for JSON. Pure.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from ringfence.control.flow_book import Tally
from ringfence.control.observations import report_refused
from ringfence.control.questions import Answer, show_finding, show_result, show_row
from ringfence.control.views import find_touched
from ringfence.policy.insight.address_axis import position
from ringfence.policy.insight.assertions import Result, check_version, parse_assertions
from ringfence.policy.insight.lint import Finding
from ringfence.policy.insight.lint_change import new_findings
from ringfence.policy.insight.plan import Plan, compare
from ringfence.policy.insight.portray import portray_plan
from ringfence.policy.insight.services import place_of
from ringfence.policy.packet import Packet
from ringfence.policy.program.refusal import Fate
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import HostName, InstanceId, OrganisationId
from ringfence.wire.flows import DEFAULT_EGRESS, DEFAULT_INGRESS, FlowRecord

Logs = Mapping[HostName, Sequence[FlowRecord]]
_PARTS: Final = ("opens", "closes", "hosts", "connections", "drops", "fails", "findings")
NOTHING: Final[Answer] = {part: [] for part in _PARTS}


@dataclass(frozen=True, slots=True)
class Seen:
    """What hosts reported: connections that began, by host, and what was refused or would have been."""

    connections: Logs
    refused: Sequence[Tally] = ()


@dataclass(frozen=True, slots=True)
class Outlook:
    """The effects of a change: ``hosts`` have to enforce something else, ``failing`` assertions fail after it.

    ``findings`` are the new ones of ``lint``.
    """

    plan: Plan
    hosts: tuple[HostName, ...]
    failing: tuple[Result, ...]
    findings: tuple[Finding, ...]


def look_ahead(
    before: Snapshot, after: Snapshot, assertions: Iterable[str] = (), *, owner: OrganisationId | None = None
) -> Outlook:
    """The effects of a change; ``assertions`` use the names of ``owner``.

    O(n log n) of everything: some seconds for a large fleet.

    Raises:
        NotFound, Invalid: a text is no assertion, or names something unknown; by its place in ``$.assertions``.
    """
    asked = parse_assertions(assertions)
    plan = compare(before, after)
    results = [check_version(plan.after, one, owner=owner) for one in asked]
    failing = tuple(one for one in results if one.witness is not None)
    return Outlook(plan, tuple(find_touched(before, after)), failing, tuple(new_findings(plan.before, plan.after)))


def show_outlook(outlook: Outlook, seen: Seen | None = None, owner: OrganisationId | None = None) -> Answer:
    """The outlook for JSON.

    ``connections``: how many of the connections that each host reported would be cut; ``cut`` is null if it reported
    none. ``drops``: what passes only because its instance is observed, and would not any more. Without ``seen`` both
    are empty.
    """
    opens, closes = portray_plan(outlook.plan)
    after = outlook.plan.population.snapshots[1]
    return {
        "opens": [*map(show_row, opens)],
        "closes": [*map(show_row, closes)],
        "hosts": [*outlook.hosts],
        "connections": [*_show_cuts(outlook, seen.connections)] if seen else [],
        "drops": _show_drops(outlook, seen.refused) if seen else [],
        "fails": [show_result(after, result, owner) for result in outlook.failing],
        "findings": [show_finding(after, finding) for finding in outlook.findings],
    }


def _show_cuts(outlook: Outlook, logs: Logs) -> Iterator[Answer]:
    """For each host, how many logged connections would be cut; the log does not tell whether they are still open."""
    is_closed = _closing(outlook.plan)
    for host in outlook.hosts if outlook.plan.closes else ():
        told = logs.get(host, ())
        cut = {packet for record in told if (packet := record.packet) is not None and is_closed(packet)}
        since = datetime.fromtimestamp(told[0].at, UTC).isoformat(timespec="seconds") if told else None
        yield {"host": host, "cut": len(cut) if told else None, "since": since}


def _show_drops(outlook: Outlook, refused: Iterable[Tally]) -> list[Answer]:
    """What would be dropped of instances that are no longer observed, unless a rule allows it by now."""
    before, after = outlook.plan.population.snapshots
    enforced = [one for one in after.instances.values() if not one.observe and _is_observed(before, one.id)]
    is_closed = _closing(outlook.plan)

    def would_be_dropped(record: FlowRecord) -> bool:
        packet = record.packet if record.reason in (DEFAULT_INGRESS, DEFAULT_EGRESS) else None
        return record.verdict == Fate.WOULD_DROP.value and (packet is None or is_closed(packet))

    return report_refused(after, enforced, (one for one in refused if would_be_dropped(one.record))) if enforced else []


def _is_observed(snapshot: Snapshot, id_: InstanceId) -> bool:
    known = snapshot.instances.get(id_)
    return known is not None and known.observe


def _closing(plan: Plan) -> Callable[[Packet], bool]:
    """A function that tells whether the change closes the flow of a first packet."""
    population = plan.population
    closed = [
        (population.addresses(part.sources), population.addresses(part.destinations), part.services)
        for part in plan.closes
    ]

    def is_closed(packet: Packet) -> bool:
        places = position(packet.source), position(packet.destination), place_of(packet)
        return any(all(place in side for place, side in zip(places, sides, strict=True)) for sides in closed)

    return is_closed
