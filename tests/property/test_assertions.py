"""An assertion holds exactly when the verdict says so of every packet that it means."""

from hypothesis import given
from hypothesis import strategies as st

import nasty
from generated import snapshots, ways
from reaching import is_asked, service_of
from ringfence.policy.address_axis import position
from ringfence.policy.assertions import check, parse_assertion
from ringfence.policy.ends import parse_end
from ringfence.policy.reach import Reachability
from ringfence.policy.services import FLOWS
from ringfence.policy.view import resolve_view

_ENDS = st.sampled_from(["any", "internet", *(f"group:{name}" for name in nasty.GROUPS), *nasty.NETWORKS[:4]])
_SERVICES = st.sampled_from(["any", "tcp", "udp", "icmp", "tcp/22-80,udp/53", "gre,esp", "icmpv6/128", "icmp/3/4"])


@given(snapshots(), _ENDS, _ENDS, _SERVICES, st.sampled_from(["allow", "deny"]), st.integers(0, 2**32))
def test_a_failing_one_is_proved_by_the_verdict_and_a_holding_one_contradicted_by_no_packet(
    snapshot, source, destination, service, word, seed
):
    reachability, view = Reachability(snapshot), resolve_view(snapshot)
    assertion = parse_assertion(f"{source} -> {destination} {service} {word}", field="it")
    result = check(reachability, assertion)
    if result.witness is not None:
        assert result.witness.verdict.allowed is not assertion.allow
        assert _means(reachability, assertion, result.witness.packet)
        return
    for way in ways(view, seed):
        ends = (way.source, way.destination)
        is_honest = way.source is None or way.packet.source in way.source.addresses
        if is_asked(way.packet) and not way.host and is_honest and ends[0] != ends[1]:
            is_meant = _means(reachability, assertion, way.packet) and _is_spoken_of(assertion, way.packet)
            assert not is_meant or way.judged(view).allowed is assertion.allow, way


def _means(reachability, assertion, packet):
    ends = [parse_end(reachability.population, text, field="it") for text in (assertion.source, assertion.destination)]
    places = [position(address) for address in (packet.source, packet.destination)]
    inside = all(
        any(place in end.part_of(kind) for kind in reachability.population.chosen(end.bits))
        for end, place in zip(ends, places, strict=True)
    )
    return inside and service_of(packet) in assertion.services


def _is_spoken_of(assertion, packet):
    """Not the other family's ICMP; and with "allow" what opens no connection only if nothing else is named."""
    if (packet.protocol, packet.family) in ((1, 6), (58, 4)):
        return False
    flows = assertion.services & FLOWS[packet.family]
    return not assertion.allow or not flows or service_of(packet) in flows
