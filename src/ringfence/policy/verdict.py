"""One packet -> allow or deny, and why: which rule of which group, or which default, on which side.

The smallest statement of what ringfence means. The kernel must give the same answer for every packet; the differential
tests send tens of thousands over the wire to hold the two together. Knows nothing of programs, chains or sets.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from ringfence.policy.local import Lifelines
from ringfence.policy.model import GroupPeer, Rule
from ringfence.policy.packet import ICMPV6, TCP, UDP, Packet, Tracking, tracking_of
from ringfence.policy.values import PROTOCOL_NUMBER, Address, Direction, GroupId, Kind, Protocol
from ringfence.policy.view import Endpoint, HostView
from ringfence.policy.well_known import (
    ADVERTISEMENT,
    ALL_DHCP_SERVERS,
    BROADCAST,
    DISCOVERY_TYPES,
    LOOPBACKS,
    ROGUE_ICMP_TYPE,
    ROGUE_TYPES,
    UNSPECIFIED_TYPES,
)

_NO_LIFELINES = Lifelines()
_DHCP_REQUESTS = frozenset({(68, 67), (546, 547)})
_DHCP_REPLIES = frozenset({(67, 68), (547, 546)})


class Default(Enum):
    """Why a side decided without a rule; the value completes the sentence "because …"."""

    NO_INGRESS_RULE = "no rule of its groups allows it in, and what no rule allows in is denied"
    NO_EGRESS_RULE = "its groups have egress rules, and none of them allows it out"
    EGRESS_OPEN = "none of its groups has an egress rule, so everything may leave"
    UNTRACKABLE = "conntrack can place it in no flow, and only an icmp, icmpv6 or ah rule lets such a packet pass"
    MID_STREAM = "it is a TCP packet in mid-stream of no known connection"
    SPOOFED = "it claims an address that is not the sender's own"
    ROGUE = "instances may not act as router or DHCP server"
    LINK = "neighbour discovery and DHCP on the own link always pass"
    MARTIAN = "it comes from outside and names the host's own address as its source, or one of loopback"
    FAILSAFE = "it is of a failsafe port, which no group closes to that network"
    CHANNEL = "it is of the agent's channel to its server, which no group cuts"
    FOREIGN_LINK = "neighbour discovery stays on its link and is no matter of groups"  # this was forwarded


@dataclass(frozen=True, slots=True)
class Allowance:
    """The rule that lets a packet pass, and the group it belongs to."""

    group: GroupId
    rule: Rule

    def __hash__(self) -> int:
        """As a rule's: each belongs to one group."""
        return hash(self.rule.id.int)


Reason = Allowance | Default
_Said = tuple[bool, Reason]


@dataclass(frozen=True, slots=True)
class SideVerdict:
    """The verdict of one endpoint's side on a packet that leaves (EGRESS) or enters (INGRESS) it."""

    endpoint: Endpoint
    direction: Direction
    allowed: bool
    reason: Reason
    as_frame: bool = False  # what a bridged port refuses as a frame, before it is known whose it is

    @property
    def passes(self) -> bool:
        """Whether the packet goes on: an observed instance's packets are only logged, except refused frames."""
        return self.allowed or (self.endpoint.observe and not self.as_frame)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Allowed when every managed side agrees or is observed; a side is None when that end is unmanaged."""

    egress: SideVerdict | None
    ingress: SideVerdict | None

    @property
    def allowed(self) -> bool:
        return all(side is None or side.passes for side in (self.egress, self.ingress))

    @property
    def refusing(self) -> SideVerdict | None:
        """The side that drops the packet: the sender's when both would, because it gets no further."""
        return next((side for side in (self.egress, self.ingress) if side and not side.passes), None)


def judge(
    view: HostView,
    packet: Packet,
    *,
    source: Endpoint | None,
    destination: Endpoint | None,
    from_host: bool = False,
    lifelines: Lifelines = _NO_LIFELINES,
) -> Verdict:
    """The verdict on the first packet of a would-be flow from one endpoint to another; None is an unmanaged end.

    ``from_host``: the packet stays on an instance's own link, from or to the enforcing host or a port of the same
    bridge. At a self host ``source`` means that the packet leaves by an uplink, whoever made it, ``destination`` that
    it came in by one, and ``from_host`` that the host itself sends it; ``lifelines`` are what it always lets pass.
    O(rules of the endpoints' groups + external sources).
    """
    egress = None if source is None else _judge_egress(view, packet, source, lifelines, from_host=from_host)
    if egress is not None and destination is None and not from_host:
        egress = _on_its_link(egress, packet)
    ingress = None if destination is None else _judge_ingress(view, packet, destination, lifelines, on_link=from_host)
    return Verdict(egress, ingress)


def find_endpoint(view: HostView, address: Address) -> Endpoint | None:
    """The endpoint that has an address, or None for an unmanaged one."""
    return next((endpoint for endpoint in view.endpoints if address in endpoint.addresses), None)


def allowing_rules(view: HostView, endpoint: Endpoint, packet: Packet, direction: Direction) -> Iterator[Allowance]:
    """Every rule of the endpoint's groups that allows the packet, in the order in which the kernel evaluates them."""
    peer = packet.source if direction is Direction.INGRESS else packet.destination
    for group in endpoint.groups:
        for rule in view.rules.get(group, ()):
            if rule.direction is direction and _rule_matches(view, rule, packet, peer):
                yield Allowance(group, rule)


def has_egress_rules(view: HostView, endpoint: Endpoint) -> bool:
    """Whether the endpoint's egress is restricted at all (design, semantics row 1)."""
    return any(rule.direction is Direction.EGRESS for group in endpoint.groups for rule in view.rules.get(group, ()))


def _judge_egress(
    view: HostView, packet: Packet, endpoint: Endpoint, lifelines: Lifelines, *, from_host: bool
) -> SideVerdict:
    if endpoint.kind is Kind.SELF:
        certain = _before_groups_exiting(packet, lifelines, from_host=from_host)
    else:
        certain = _before_groups_leaving(packet, endpoint)
    if certain is None and tracking_of(packet) is Tracking.FLOW and not has_egress_rules(view, endpoint):
        certain = True, Default.EGRESS_OPEN
    return _side(packet, endpoint, Direction.EGRESS, certain or _by_rules(view, packet, endpoint, Direction.EGRESS))


def _judge_ingress(
    view: HostView, packet: Packet, endpoint: Endpoint, lifelines: Lifelines, *, on_link: bool
) -> SideVerdict:
    if endpoint.kind is Kind.SELF:
        certain = _before_groups_entering(view, packet, endpoint, lifelines)
    else:
        certain = _before_groups_arriving(packet, on_link=on_link)
    return _side(packet, endpoint, Direction.INGRESS, certain or _by_rules(view, packet, endpoint, Direction.INGRESS))


def _side(packet: Packet, endpoint: Endpoint, direction: Direction, said: _Said) -> SideVerdict:
    allowed, reason = said
    is_frames = reason is Default.SPOOFED or (reason is Default.ROGUE and _is_link_type(packet))
    return SideVerdict(endpoint, direction, allowed, reason, as_frame=endpoint.kind is Kind.BRIDGED and is_frames)


def _on_its_link(side: SideVerdict, packet: Packet) -> SideVerdict:
    """Discovery that is forwarded to whom nobody judges is refused to its sender; any instance refuses it itself."""
    stays = packet.destination.is_multicast or packet.destination.is_link_local or not _is_link_type(packet)
    if stays or side.reason is not Default.LINK or side.endpoint.kind is Kind.SELF:
        return side
    return replace(side, allowed=False, reason=Default.FOREIGN_LINK)


def _before_groups_leaving(packet: Packet, endpoint: Endpoint) -> _Said | None:
    """The verdict on a packet from an instance that no group can change; None when its groups decide."""
    if not _is_own(packet, endpoint):
        return False, Default.SPOOFED
    if _is_rogue(packet):
        return False, Default.ROGUE
    return (True, Default.LINK) if _is_link_type(packet) or _asks_dhcp(packet) else None


def _before_groups_arriving(packet: Packet, *, on_link: bool) -> _Said | None:
    if on_link and (_is_link_type(packet) or _udp_ports(packet) in _DHCP_REPLIES):
        return True, Default.LINK
    return (False, Default.FOREIGN_LINK) if _is_link_type(packet) else None


def _before_groups_entering(view: HostView, packet: Packet, host: Endpoint, lifelines: Lifelines) -> _Said | None:
    """The same for a packet that comes in by an uplink of a self host."""
    own = {address for end in view.endpoints if end.instance == host.instance for address in end.own_addresses}
    ends = (packet.source, packet.destination)
    if any(end in loopback for end in ends for loopback in LOOPBACKS):
        return False, Default.MARTIAN
    if packet.source in own and not _tells_of_a_duplicate(packet):
        return False, Default.MARTIAN
    if _is_failsafe(lifelines, packet, packet.destination_port, packet.source):
        return True, Default.FAILSAFE
    if packet.protocol == TCP and not packet.opening and (packet.source, packet.source_port) in lifelines.channel:
        return True, Default.CHANNEL
    if _is_link_type(packet):
        return _stays_on_link(packet)
    return (True, Default.LINK) if _answers_dhcp(packet, own) else None


def _before_groups_exiting(packet: Packet, lifelines: Lifelines, *, from_host: bool) -> _Said | None:
    """The same for a packet that goes out by an uplink of a self host."""
    is_answer = from_host and not (packet.protocol == TCP and packet.opening)
    if is_answer and _is_failsafe(lifelines, packet, packet.source_port, packet.destination):
        return True, Default.FAILSAFE
    to_server = (packet.destination, packet.destination_port) in lifelines.channel
    if from_host and packet.protocol == TCP and to_server:
        return True, Default.CHANNEL
    if _is_link_type(packet):
        return _stays_on_link(packet)
    return (True, Default.LINK) if _asks_dhcp(packet) else None


def _tells_of_a_duplicate(packet: Packet) -> bool:
    """A neighbour's advertisement, from an address that the host believes to be its own (RFC 4862)."""
    is_advertisement = _is_link_type(packet) and packet.icmp_type == ADVERTISEMENT
    return is_advertisement and packet.hop_limit == 255  # noqa: PLR2004  RFC 4861


def _is_failsafe(lifelines: Lifelines, packet: Packet, port: int, peer: Address) -> bool:
    return any(
        (packet.protocol, port) == (PROTOCOL_NUMBER[one.protocol], one.port)
        and any(peer in source for source in one.sources)
        for one in lifelines.failsafe
    )


def _stays_on_link(packet: Packet) -> _Said:
    """Whether a message of the link was not forwarded: no router can have lowered the hop limit 255, or passed on 1."""
    if packet.icmp_type in DISCOVERY_TYPES:
        stays = packet.hop_limit == 255  # noqa: PLR2004  RFC 4861
    else:
        source = packet.source
        stays = packet.hop_limit == 1 and (source.is_link_local or source.is_unspecified)
    return (True, Default.LINK) if stays else (False, Default.FOREIGN_LINK)


def _answers_dhcp(packet: Packet, own: Collection[Address]) -> bool:
    if packet.family == 4:  # noqa: PLR2004  the family's number
        return _udp_ports(packet) == (67, 68) and (packet.destination in BROADCAST or packet.destination in own)
    on_link = packet.source.is_link_local and packet.destination.is_link_local
    return _udp_ports(packet) == (547, 546) and on_link


def _by_rules(view: HostView, packet: Packet, endpoint: Endpoint, direction: Direction) -> tuple[bool, Reason]:
    tracking = tracking_of(packet)
    if tracking is Tracking.STRAY:
        return False, Default.MID_STREAM
    allowances = allowing_rules(view, endpoint, packet, direction)
    if tracking is Tracking.NONE:
        by_name = (Protocol.ICMP, Protocol.ICMPV6, Protocol.AH)
        allowances = (allowance for allowance in allowances if allowance.rule.protocol in by_name)
    if (first := next(allowances, None)) is not None:
        return True, first
    if tracking is Tracking.NONE:
        return False, Default.UNTRACKABLE
    return False, Default.NO_INGRESS_RULE if direction is Direction.INGRESS else Default.NO_EGRESS_RULE


def _rule_matches(view: HostView, rule: Rule, packet: Packet, peer: Address) -> bool:
    return protocol_matches(rule, packet) and _peer_matches(view, rule, peer)


def _peer_matches(view: HostView, rule: Rule, peer: Address) -> bool:
    if isinstance(rule.peer, GroupPeer):
        addresses = view.peers.get(rule.peer.group)
        return addresses is not None and peer in addresses
    return peer in rule.peer.network


def protocol_matches(rule: Rule, packet: Packet) -> bool:
    """Whether the rule means this protocol, port, or ICMP type and code, whoever the peer is."""
    if rule.protocol is Protocol.ALL:
        return True
    if packet.protocol != PROTOCOL_NUMBER[rule.protocol]:
        return False
    if rule.protocol.has_ports:
        return packet.destination_port in rule.ports
    if rule.protocol.has_types:
        right_family = (rule.protocol is Protocol.ICMP) == (packet.family == 4)  # noqa: PLR2004  the family's number
        return right_family and (rule.icmp is None or rule.icmp.matches(packet.icmp_type, packet.icmp_code))
    return True


def _is_own(packet: Packet, endpoint: Endpoint) -> bool:
    if packet.source in endpoint.own_addresses:
        return True
    if packet.source.version == 6 and packet.source.is_link_local:  # noqa: PLR2004  the family's number
        return endpoint.has_open_link_local
    if not packet.source.is_unspecified:
        return False
    if packet.family == 4:  # noqa: PLR2004  the family's number
        return _udp_ports(packet) == (68, 67) and packet.destination in BROADCAST
    return packet.protocol == ICMPV6 and packet.icmp_type in UNSPECIFIED_TYPES


def _is_rogue(packet: Packet) -> bool:
    match (packet.protocol, packet.family):
        case (1, 4):
            return packet.icmp_type == ROGUE_ICMP_TYPE
        case (58, 6):
            return packet.icmp_type in ROGUE_TYPES
    return _udp_ports(packet) in _DHCP_REPLIES


def _is_link_type(packet: Packet) -> bool:
    return tracking_of(packet) is Tracking.LINK


def _asks_dhcp(packet: Packet) -> bool:
    destination = BROADCAST if packet.family == 4 else ALL_DHCP_SERVERS  # noqa: PLR2004  the family's number
    return _udp_ports(packet) in _DHCP_REQUESTS and packet.destination in destination


def _udp_ports(packet: Packet) -> tuple[int, int] | None:
    return (packet.source_port, packet.destination_port) if packet.protocol == UDP else None
