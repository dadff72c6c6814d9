"""All doors of one agent."""

from dataclasses import dataclass
from pathlib import Path

from ringfence.agent.doors.bridging import BridgingDoor
from ringfence.agent.doors.clock import Clock
from ringfence.agent.doors.connections import ConnectionsDoor
from ringfence.agent.doors.conntrack import ConntrackDoor
from ringfence.agent.doors.files import FilesDoor
from ringfence.agent.doors.links import LinksDoor
from ringfence.agent.doors.machine import MachineDoor
from ringfence.agent.doors.names import NamesDoor
from ringfence.agent.doors.nftables import NftablesDoor
from ringfence.agent.doors.notices import NoticesDoor
from ringfence.agent.doors.packets import PacketsDoor


@dataclass(frozen=True, slots=True)
class Doors:
    nftables: NftablesDoor
    notices: NoticesDoor
    conntrack: ConntrackDoor
    links: LinksDoor
    files: FilesDoor
    names: NamesDoor
    clock: Clock
    bridging: BridgingDoor
    packets: PacketsDoor | None = None  # without it no refused packet is logged
    connections: ConnectionsDoor | None = None  # without it no allowed connection is logged
    flow_file: Path | None = None  # the operator's own, instead of the one in the agent's folder
    machine: MachineDoor | None = None  # without it nobody looks how full conntrack is
