"""GET /admin/v1/drops and /flows: refused packets, and allowed connections, with the names of this moment."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

from ringfence.api.exchange import Request, Response, put_json
from ringfence.control.flow_book import Kept
from ringfence.control.lookup import find_meant
from ringfence.control.plane import ControlPlane
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import PROTOCOL_NUMBER, Direction, HostName
from ringfence.wire.flows import FlowRecord

_PROTOCOLS = {number: protocol.value for protocol, number in PROTOCOL_NUMBER.items()}


@dataclass(frozen=True, slots=True)
class FlowsResource:
    """What hosts told of, oldest first, and the last number; as ``flows`` with allowed connections, too.

    ``?after=N&host=NAME``; ``of=NAME``: of an instance, or of a group's members; ``since=SECONDS`` since 1970;
    ``limit=N``: the newest of these.
    """

    plane: ControlPlane
    name: str
    allowed: bool

    def on_get(self, request: Request, response: Response) -> None:
        after, host = request.get_param_as_int("after", least=0) or 0, request.get_param("host")
        limit = request.get_param_as_int("limit", least=1)
        found = self.plane.evidence.flows(after or 0, HostName(host) if host else None, allowed=self.allowed)
        wanted = [*self._wanted(request, found)][-(limit or 0) :]
        snapshot = self.plane.snapshot
        last = found[-1].number if found else after
        put_json(response, {"last": last, self.name: [show_flow(kept, snapshot) for kept in wanted]})

    def _wanted(self, request: Request, found: list[Kept]) -> Iterator[Kept]:
        of, since = request.get_param("of"), request.get_param_as_int("since", least=0) or 0
        organisation = self.plane.owners.named(request.get_param("organisation")).id
        ids = {one.id for one in find_meant(self.plane.snapshot, of, organisation, field="?of")} if of else None
        for kept in found:
            if (ids is None or kept.record.instance_id in ids) and kept.record.at >= (since or 0):
                yield kept


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
