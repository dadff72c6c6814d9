"""What an answer of reach says of single packets."""

from ringfence.policy.insight.address_axis import UNICAST, position
from ringfence.policy.insight.services import place_of
from ringfence.policy.packet import Tracking, tracking_of


def is_asked(packet):
    """Whether reach speaks of it: no discovery, no mid-stream, no DHCP, no address that no flow has."""
    ends = position(packet.source) in UNICAST and position(packet.destination) in UNICAST
    return ends and tracking_of(packet) not in (Tracking.LINK, Tracking.STRAY)


def passes(reachability, reach, packet):
    """Whether a part of the answer holds the packet."""
    return holds(reachability.population, reach.parts, packet)


def holds(population, parts, packet):
    """Whether one of the parts holds the packet."""
    service = place_of(packet)
    return any(
        service in part.services
        and any(position(packet.source) in one.addresses for one in population.chosen(part.sources))
        and any(position(packet.destination) in one.addresses for one in population.chosen(part.destinations))
        for part in parts
    )
