"""On a host that is its own instance the compiled program gives the verdict's answer, by any policy, for any packet."""

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

import nasty
from generated import snapshots
from policies import ORGANISATION, instance_id
from ringfence.policy.local import LocalPorts
from ringfence.policy.model import Instance, Interface
from ringfence.policy.packet import ICMPV6
from ringfence.policy.program.compile import compile_program
from ringfence.policy.values import HostName, InterfaceName, Kind
from ringfence.policy.verdict import judge
from ringfence.policy.view import resolve_view
from ringfence.policy.well_known import LINK_TYPES
from self_lab import LIFELINES
from simulator import open_crossing, simulate

PORTS = LocalPorts(("eth0", "tap*"), Kind.SELF, lifelines=LIFELINES)
PLACES = ("", "docker0")  # the host itself, or a container of it


def _host(snapshot, wears):
    own = nasty.ROUTER
    interfaces = (Interface(InterfaceName("eth0"), own, kind=Kind.SELF),)
    host = Instance(instance_id("host"), ORGANISATION, "host", HostName("h1"), interfaces, tuple(wears))
    return replace(snapshot, instances={**snapshot.instances, host.id: host})


def _packets(seed, count=60):
    """Packets between the world and the host: half of what nasty sends, half at the host's own lines."""
    rng = random.Random(seed)
    for number in range(count):
        packet = nasty.random_packet(rng, number)[2]
        own = next(address for address in nasty.ROUTER if address.version == packet.family)
        enters = rng.random() < 0.5
        packet = replace(packet, **{"destination" if enters else "source": own})
        if rng.random() < 0.3:
            port = rng.choice((22, 51820, 8443, 67, 68, 546, 547))
            packet = replace(packet, **{rng.choice(("source_port", "destination_port")): port})
        if packet.protocol == ICMPV6 and packet.icmp_type in LINK_TYPES:
            packet = replace(packet, hop_limit=rng.choice((1, 64, 255)))
        yield packet, enters, rng.choice(PLACES)


@given(snapshots(), st.lists(st.sampled_from(nasty.GROUPS), max_size=3, unique=True), st.integers(0, 2**32))
def test_program_and_verdict_agree_at_a_self_host(snapshot, worn, seed):
    groups = [group.id for group in snapshot.groups.values() if group.name in worn]
    view = resolve_view(_host(snapshot, groups))
    host = next(endpoint for endpoint in view.endpoints if endpoint.interface == "eth0")
    view = replace(view, endpoints=(host,))
    program = compile_program(view, PORTS)
    for packet, enters, place in _packets(seed):
        is_link = packet.protocol == ICMPV6 and packet.icmp_type in LINK_TYPES
        if is_link and place:
            continue  # what is forwarded has another hop limit at each of its interfaces
        ends = {"destination": host, "source": None} if enters else {"source": host, "destination": None}
        verdict = judge(view, packet, **ends, from_host=not enters and not place, lifelines=LIFELINES)
        way = {"came_by": "eth0", "goes_by": place} if enters else {"came_by": place, "goes_by": "eth0"}
        crossing = replace(open_crossing(packet, **way), hop_limit=packet.hop_limit)
        assert simulate(program, crossing, 1).passed == verdict.allowed, (packet, way, verdict)
