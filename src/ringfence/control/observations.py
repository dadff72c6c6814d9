"""What was refused of some instances, or would have been while they were observed, as flows for a person to judge.

Input: a snapshot, instances, sums of hosts' records. Output: values for JSON.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import ip_address

from ringfence.control.flow_book import Tally
from ringfence.policy.model import Instance
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import PROTOCOL_NUMBER, Direction, Protocol
from ringfence.wire.flows import FlowRecord

_PROTOCOLS = {number: protocol for protocol, number in PROTOCOL_NUMBER.items()}
_LATEST = 2.0**37  # a host's word: no year beyond what a date can be
_Key = tuple[str | None, ...]


def report_refused(
    snapshot: Snapshot, instances: Iterable[Instance], tallies: Iterable[Tally]
) -> list[dict[str, object]]:
    """A row for each instance, verdict, peer and service, those with the most packets first.

    A peer is the instance with the address, else the address itself; ``groups`` are those that it wears, or that have
    the address as an external source.
    """
    known = {instance.id: instance for instance in instances}
    rows: dict[_Key, Tally] = {}
    for tally in tallies:
        instance = known.get(tally.record.instance_id) if tally.record.instance_id else None
        if instance is not None and not tally.record.is_allowed:
            key = _key(snapshot, instance, tally.record)
            rows[key] = _together(rows[key], tally) if key in rows else tally
    ordered = sorted(rows.items(), key=lambda row: (-row[1].packets, [part or "" for part in row[0]]))
    return [_show(snapshot, key, tally) for key, tally in ordered]


def _key(snapshot: Snapshot, instance: Instance, record: FlowRecord) -> _Key:
    peer = _peer_instance(snapshot, record)
    direction = record.direction.value if record.direction else None
    who = peer.name if peer else _peer_address(record)
    return instance.name, record.verdict, record.reason, direction, who, _service(record)


def _together(one: Tally, other: Tally) -> Tally:
    newest = max(one, other, key=lambda tally: tally.last)
    return Tally(newest.record, one.packets + other.packets, min(one.first, other.first), newest.last)


def _show(snapshot: Snapshot, key: _Key, tally: Tally) -> dict[str, object]:
    instance, verdict, reason, direction, peer, service = key
    return {
        "instance": instance,
        "verdict": verdict,
        "reason": reason,
        "direction": direction,
        "peer": peer,
        "groups": _peer_groups(snapshot, tally.record),
        "service": service,
        "packets": tally.packets,
        "first": _time(tally.first),
        "last": _time(tally.last),
    }


def _peer_groups(snapshot: Snapshot, record: FlowRecord) -> list[str]:
    peer, address = _peer_instance(snapshot, record), _peer_address(record)
    if peer is not None:
        return sorted(snapshot.groups[id_].name for id_ in peer.groups if id_ in snapshot.groups)
    if address is None:
        return []
    place = ip_address(address)
    return sorted(
        group.name for group in snapshot.groups.values() if any(place in one.network for one in group.sources)
    )


def _peer_instance(snapshot: Snapshot, record: FlowRecord) -> Instance | None:
    """The instance with the peer's address; None if none or several have it (in different realms)."""
    text = _peer_address(record)
    holding = [] if text is None else index_of(snapshot).holding(ip_address(text))
    return holding[0] if len(holding) == 1 else None


def _peer_address(record: FlowRecord) -> str | None:
    return record.destination if record.direction is Direction.EGRESS else record.source


def _service(record: FlowRecord) -> str | None:
    """The service in the form that ``explain`` takes; None for a record that only counts."""
    if record.protocol is None:
        return None
    protocol: Protocol | None = _PROTOCOLS.get(record.protocol)
    name = protocol.value if protocol else f"protocol {record.protocol}"
    if record.icmp_type is not None:
        return f"{name}/{record.icmp_type}/{record.icmp_code or 0}"
    return name if record.destination_port is None else f"{name}/{record.destination_port}"


def _time(at: float) -> str:
    return datetime.fromtimestamp(min(max(at, 0.0), _LATEST), UTC).isoformat(timespec="seconds")
