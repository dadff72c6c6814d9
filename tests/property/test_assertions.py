"""An assertion holds exactly when the verdict says so of every packet that it means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nasty
from generated import changed, snapshots, ways
from policies import ORGANISATION
from reaching import is_asked
from ringfence.policy.insight import held_change
from ringfence.policy.insight.address_axis import position
from ringfence.policy.insight.assertions import check, find_worse, parse_assertion
from ringfence.policy.insight.ends import parse_end
from ringfence.policy.insight.held import decide
from ringfence.policy.insight.held_change import Change, find_worse_by
from ringfence.policy.insight.reach import Reachability
from ringfence.policy.insight.services import FLOWS, place_of
from ringfence.policy.snapshot import indexed
from ringfence.policy.verdict import find_endpoint, judge
from ringfence.policy.view import resolve_view

_ENDS = st.sampled_from(["any", "internet", *(f"group:{name}" for name in nasty.GROUPS), *nasty.NETWORKS[:4]])
_SERVICES = st.sampled_from(["any", "tcp", "udp", "icmp", "tcp/22-80,udp/53", "gre,esp", "icmpv6/128", "icmp/3/4"])
_ASSERTIONS = st.builds(
    lambda source, destination, service, word: parse_assertion(
        f"{source} -> {destination} {service} {word}", field="it"
    ),
    _ENDS,
    _ENDS,
    _SERVICES,
    st.sampled_from(["allow", "deny"]),
)


@given(snapshots(), _ASSERTIONS, st.integers(0, 2**32))
def test_a_failing_one_is_proved_by_the_verdict_and_a_holding_one_contradicted_by_no_packet(snapshot, assertion, seed):
    reachability, view = Reachability(snapshot), resolve_view(snapshot)
    result = check(reachability, assertion)
    if result.witness is not None:
        assert result.witness.verdict.allowed is not assertion.allow
        assert _means(reachability, assertion, result.witness.packet)
        return
    for way in ways(view, seed):
        if _is_asked(way) and _concerns(reachability, assertion, way.packet):
            assert way.judged(view).allowed is assertion.allow, way


def _is_asked(way):
    is_honest = way.source is None or way.packet.source in way.source.addresses
    return is_asked(way.packet) and not way.host and is_honest and way.source != way.destination


def _concerns(reachability, assertion, packet):
    return _means(reachability, assertion, packet) and _is_spoken_of(assertion, packet)


def _means(reachability, assertion, packet):
    ends = [parse_end(reachability.population, text, field="it") for text in (assertion.source, assertion.destination)]
    places = [position(address) for address in (packet.source, packet.destination)]
    inside = all(
        any(place in end.part_of(kind) for kind in reachability.population.chosen(end.bits))
        for end, place in zip(ends, places, strict=True)
    )
    return inside and place_of(packet) in assertion.services


def _is_spoken_of(assertion, packet):
    """Not the other family's ICMP; and with "allow" what opens no connection only if nothing else is named."""
    if (packet.protocol, packet.family) in ((1, 6), (58, 4)):
        return False
    flows = assertion.services & FLOWS[packet.family]
    return not assertion.allow or not flows or place_of(packet) in flows


@given(snapshots(), _ASSERTIONS)
def test_the_few_who_matter_decide_as_all_do(snapshot, assertion):
    decided, whole = decide(snapshot, assertion, ORGANISATION), check(Reachability(snapshot), assertion)
    assert (decided is None) == (whole.witness is None)
    assert decided is None or decided.verdict.allowed is not assertion.allow


@given(st.data(), snapshots(), _ASSERTIONS, st.integers(0, 2**32))
def test_a_change_makes_an_assertion_worse_exactly_by_packets_that_were_right_before(data, before, assertion, seed):
    after = data.draw(changed(before))
    worse = find_worse(before, after, assertion)
    if worse is not None:
        assert worse.verdict.allowed is not assertion.allow
        known = resolve_view(before)
        ends = [_same(known, end) for end in (worse.source, worse.destination)]
        was = judge(known, worse.packet, source=ends[0], destination=ends[1]).allowed
        meant = _means(Reachability(before), assertion, worse.packet)
        assert was is assertion.allow or not meant
        return
    known, reachability, old, new = Reachability(before), Reachability(after), resolve_view(before), resolve_view(after)
    for way in ways(new, seed):
        if _is_asked(way) and _concerns(reachability, assertion, way.packet):
            is_wrong = way.judged(new).allowed is not assertion.allow
            was_wrong = way.under(old).judged(old).allowed is not assertion.allow
            assert not is_wrong or (was_wrong and _concerns(known, assertion, way.packet)), way


def _same(view, end):
    return None if end is None else next(one for one in view.endpoints if one.interface == end.interface)


@pytest.mark.parametrize("few", [32, 0])
@given(data=st.data(), before=snapshots(), assertion=_ASSERTIONS)
def test_what_a_change_touches_decides_as_the_whole_does(few, data, before, assertion):
    before, after = indexed(before), indexed(data.draw(changed(before)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            held_change, "_FEW", few
        )  # 0: of those that are treated alike two are looked at, however few there are
        found = find_worse_by(Change(before, after), assertion, ORGANISATION)
    whole = find_worse(before, after, assertion, owner=ORGANISATION)
    assert (found is None) == (whole is None)
    if found is not None:
        was_right = _judged(resolve_view(before), found).allowed is assertion.allow
        assert _judged(resolve_view(after), found).allowed is not assertion.allow
        assert was_right or not _means(Reachability(before), assertion, found.packet)


def _judged(view, witness):
    """The verdict of the whole policy, with whoever has the addresses."""
    packet = witness.packet
    known = ((witness.source, packet.source), (witness.destination, packet.destination))
    source, destination = (_same(view, one) or find_endpoint(view, address) for one, address in known)
    return judge(view, packet, source=source, destination=destination)
