"""A refused packet, or an allowed connection, as an operator is shown it: with the names of this moment."""

from datetime import UTC, datetime
from ipaddress import ip_address

from ringfence.control.flow_book import Kept
from ringfence.policy.model import Snapshot
from ringfence.policy.values import PROTOCOL_NUMBER, Direction
from ringfence.wire.flows import FlowRecord

_PROTOCOLS = {number: protocol.value for protocol, number in PROTOCOL_NUMBER.items()}


def show_flow(kept: Kept, snapshot: Snapshot) -> dict[str, object]:
    """One JSON object; ``instance`` and ``peer`` are names where they are known, beside ids and addresses."""
    record = kept.record
    instance = snapshot.instances.get(record.instance_id) if record.instance_id else None
    return {
        "time": datetime.fromtimestamp(min(max(record.at, 0.0), 2**37), UTC).isoformat(timespec="milliseconds"),
        "host": kept.host,
        "interface": record.interface,
        "instance": instance.name if instance else None,
        "instance-id": str(record.instance) if record.instance else None,
        "direction": record.direction.value if record.direction else None,
        "verdict": record.verdict,
        "reason": record.reason,
        "rule": str(record.rule) if record.rule else None,
        "packets": record.packets,
        "protocol": None if record.protocol is None else _PROTOCOLS.get(record.protocol, str(record.protocol)),
        "source": _end(record.source, record.source_port),
        "destination": _end(record.destination, record.destination_port),
        "icmp-type": record.icmp_type,
        "icmp-code": record.icmp_code,
        "peer": _peer(record, snapshot),
        "peer-groups": [snapshot.groups[group].name for group in record.groups if group in snapshot.groups],
        "untold-before": kept.untold,
    }


def _end(address: str | None, port: int | None) -> str | None:
    if address is None or port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _peer(record: FlowRecord, snapshot: Snapshot) -> str | None:
    """The name of the instance that the other end is, if any is there."""
    own_is_source = record.direction is Direction.EGRESS
    text = record.destination if own_is_source else record.source
    address = None if text is None else ip_address(text)
    return next((one.name for one in snapshot.instances.values() if address in one.addresses), None)
