"""What an answer of reach says of single packets."""

from ringfence.policy.address_axis import UNICAST, position
from ringfence.policy.packet import Tracking, tracking_of
from ringfence.policy.services import service_span

_TYPED = (1, 58)
_PORTED = (6, 17)


def service_of(packet):
    """The place of a packet's service."""
    if packet.protocol in _TYPED:
        value = packet.icmp_type * 256 + packet.icmp_code
    else:
        value = packet.destination_port if packet.protocol in _PORTED else 0
    return service_span(packet.protocol, value, value)[0]


def is_asked(packet):
    """Whether reach speaks of it: no discovery, no mid-stream, no DHCP, no address that no flow has."""
    ends = position(packet.source) in UNICAST and position(packet.destination) in UNICAST
    return ends and tracking_of(packet) not in (Tracking.LINK, Tracking.STRAY)


def passes(reachability, reach, packet):
    """Whether a part of the answer holds the packet."""
    return holds(reachability.population, reach.parts, packet)


def holds(population, parts, packet):
    """Whether one of the parts holds the packet."""
    service = service_of(packet)
    return any(
        service in part.services
        and any(position(packet.source) in one.addresses for one in population.chosen(part.sources))
        and any(position(packet.destination) in one.addresses for one in population.chosen(part.destinations))
        for part in parts
    )
