"""PURE: a host's records of refused packets and of allowed connections: one JSON object each.

They are the same in the host's own log and in reports to the server. Encodes and decodes them; ``Invalid`` names the
place of what is wrong. Sizes are bounded, because a host may be compromised.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Final
from uuid import UUID

import msgspec

from ringfence.policy.errors import Invalid
from ringfence.policy.packet import Packet
from ringfence.policy.values import Direction, GroupId, InstanceId
from ringfence.wire.formats import FORMAT, Lenient, decode_formatted

MOST_RECORDS: Final = 200  # in one message
ALLOWED: Final = "allow"
DEFAULT_INGRESS: Final = "default ingress"  # the reason where no rule matched: denied
DEFAULT_EGRESS: Final = "default egress"  # the same for egress: denied, or allowed if there are no egress rules
RATE_LIMIT: Final = "rate limit"  # the reason of a record that stands for packets that were only counted

_Octet = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_Word = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z _-]{0,31}\Z")]
_Interface = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,15}\Z")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Address = Annotated[str, msgspec.Meta(max_length=45)]


class FlowRecord(Lenient, frozen=True):
    """A packet and its ``verdict``: "drop", "would-drop", or "allow" for the first of a connection; ``reason``: why.

    ``at``: seconds since 1970. Addresses are the packet's own. ``rule``: the one that allows it. ``packets``: how
    many the record stands for; with reason ``RATE_LIMIT`` nothing else is known of them.
    ``peer_groups``: the groups that the other end is in, among those that the instance's rules name.
    """

    at: float
    interface: _Interface
    instance: UUID | None
    direction: Direction | None
    verdict: _Word
    reason: _Word
    protocol: _Octet | None = None
    source: _Address | None = None
    destination: _Address | None = None
    source_port: _Port | None = None
    destination_port: _Port | None = None
    icmp_type: _Octet | None = None
    icmp_code: _Octet | None = None
    peer_groups: Annotated[tuple[UUID, ...], msgspec.Meta(max_length=32)] = ()
    rule: UUID | None = None
    packets: _Count = 1

    @property
    def is_allowed(self) -> bool:
        return self.verdict == ALLOWED

    @property
    def instance_id(self) -> InstanceId | None:
        return None if self.instance is None else InstanceId(self.instance)

    @property
    def groups(self) -> tuple[GroupId, ...]:
        return tuple(GroupId(group) for group in self.peer_groups)

    @property
    def packet(self) -> Packet | None:
        """The packet; None if the record is only a number of packets."""
        if self.source is None or self.destination is None or self.protocol is None:
            return None
        return Packet(
            ip_address(self.source),
            ip_address(self.destination),
            self.protocol,
            source_port=self.source_port or 0,
            destination_port=self.destination_port or 0,
            icmp_type=self.icmp_type or 0,
            icmp_code=self.icmp_code or 0,
        )


def flow_of(record: FlowRecord) -> FlowRecord:
    """The record without what no rule can distinguish by; equal for records of the same flow."""
    return msgspec.structs.replace(record, at=0.0, interface="-", source_port=None, peer_groups=(), packets=1)


@dataclass(frozen=True, slots=True)
class FlowReport:
    """``untold``: how many further records were dropped, because the queue was full."""

    records: tuple[FlowRecord, ...]
    untold: int = 0


class _ReportShape(Lenient, frozen=True):
    format: int
    records: Annotated[tuple[FlowRecord, ...], msgspec.Meta(max_length=MOST_RECORDS)]
    untold: _Count


class _RecordsShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    records: tuple[FlowRecord, ...]


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(FlowRecord)


def encode_record(record: FlowRecord) -> bytes:
    """One line of the host's own log, newline included."""
    return _encoder.encode(record) + b"\n"


def encode_flow_report(report: FlowReport) -> bytes:
    """The body of ``POST /agent/v1/flows``."""
    return _encoder.encode(_ReportShape(FORMAT, report.records, report.untold))


def decode_flow_report(body: bytes) -> FlowReport:
    shape = decode_formatted(body, _ReportShape, writer="agent")
    for number, record in enumerate(shape.records):
        _check_addresses(record, f"$.records[{number}]")
    return FlowReport(shape.records, shape.untold)


def decode_records(body: bytes) -> tuple[FlowRecord, ...]:
    """``{records: [...]}``, each as in a host's own log."""
    try:
        records = msgspec.json.decode(body, type=_RecordsShape).records
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"expected records of a flow log: {error}") from error
    for number, record in enumerate(records):
        _check_addresses(record, f"$.records[{number}]")
    return records


def decode_log(lines: Iterable[bytes], name: str) -> Iterator[FlowRecord]:
    """The records of a host's own log, the file ``name``.

    Raises:
        Invalid: a line is none; the message begins with file and line.
    """
    for number, line in enumerate(lines, start=1):
        try:
            record = _decoder.decode(line)
            _check_addresses(record, "$")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Invalid) as error:
            raise Invalid(f"{name}, line {number}: no line of a flow log: {error}") from error
        yield record


def _check_addresses(record: FlowRecord, at: str) -> None:
    _check_address(record.source, f"{at}.source")
    _check_address(record.destination, f"{at}.destination")


def _check_address(text: str | None, field: str) -> None:
    """Accepts any address, even one that no instance may have: that may be why the packet was refused."""
    try:
        if text is not None:
            ip_address(text)
    except ValueError as error:
        raise Invalid("expected one IPv4 or IPv6 address", field=field) from error
