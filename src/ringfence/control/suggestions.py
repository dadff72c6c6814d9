"""The refused packets of an instance, as hosts reported them -> a policy file with rules that would allow them.

Input: a snapshot, an instance, flow records. Output: values for JSON, to review; nothing is changed.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec

from ringfence.policy.desired import DesiredGroup, DesiredInstance, Document
from ringfence.policy.export import worn_by
from ringfence.policy.insight.suggest import Seen, suggest
from ringfence.policy.model import Instance
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import Direction, Visibility
from ringfence.wire.flows import DEFAULT_EGRESS, DEFAULT_INGRESS, FlowRecord, flow_of
from ringfence.wire.policy_file import write_policy

_SUFFIX = "-seen"  # of the suggested group's name


def suggest_rules(
    snapshot: Snapshot, instance: Instance, records: Iterable[FlowRecord], *, egress: bool
) -> dict[str, object]:
    """The rules that allow what ``records`` show; with ``egress`` also what the instance sends by the open default.

    ``policy`` is a file with a new group that the instance wears; ``left-out`` counts what no rule can allow.
    """
    seen, left_out = [], Counter[str]()
    for record in merge_records(records):
        if record.instance_id != instance.id:
            continue
        if (one := _seen(record, egress=egress)) is not None:
            seen.append(one)
        elif not record.is_allowed:
            left_out[record.reason] += record.packets
    found = suggest(snapshot, instance, seen)
    group = DesiredGroup(f"{instance.name}{_SUFFIX}", f"what was seen of {instance.name}", rules=found.rules)
    worn = worn_by(snapshot, instance)
    private = tuple(dict.fromkeys((*worn[Visibility.PRIVATE], group.name)))
    wears = DesiredInstance(instance.name, private, public_groups=worn[Visibility.PUBLIC])
    left_out.update(dict(found.unsayable))
    return {
        "instance": instance.name,
        "packets": sum(one.packets for one in seen),
        "policy": write_policy(Document((group,), (wears,))) if found.rules else "",
        "left-out": [{"reason": reason, "packets": packets} for reason, packets in sorted(left_out.items())],
    }


def merge_records(records: Iterable[FlowRecord]) -> list[FlowRecord]:
    """Merges records that no rule could tell apart, adding up their packets."""
    found: dict[FlowRecord, int] = {}
    for record in records:
        alike = flow_of(record)
        found[alike] = found.get(alike, 0) + record.packets
    return [msgspec.structs.replace(record, packets=packets) for record, packets in found.items()]


def _seen(record: FlowRecord, *, egress: bool) -> Seen | None:
    """The first packet of a record, if a rule could have allowed it; None otherwise."""
    if record.reason not in (DEFAULT_INGRESS, DEFAULT_EGRESS) or (record.is_allowed and not egress):
        return None
    if (packet := record.packet) is None:
        return None
    direction = Direction.INGRESS if record.reason == DEFAULT_INGRESS else Direction.EGRESS
    return Seen(direction, packet, record.packets)
