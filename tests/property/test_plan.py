"""A plan holds exactly the packets whose verdict the change turns."""

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from generated import changed, snapshots, ways
from reaching import holds, is_asked
from ringfence.policy.insight.grants import Grants
from ringfence.policy.insight.plan import compare, compare_grants
from ringfence.policy.insight.population import Population
from ringfence.policy.view import resolve_view


@st.composite
def _pairs(draw):
    """Two snapshots, most of them near each other."""
    before = draw(snapshots())
    return before, draw(st.one_of(changed(before), changed(before), snapshots(revision=2)))


@given(_pairs(), st.integers(0, 2**32))
def test_a_packet_is_in_a_plan_exactly_when_the_change_turns_its_verdict(pair, seed):
    plan = compare(*pair)
    views = [resolve_view(one) for one in pair]
    for way in [*ways(views[0], seed), *ways(views[1], seed)]:
        if is_asked(way.packet) and not way.host and _is_honest(way) and way.source != way.destination:
            was, will = (way.under(view).judged(view).allowed for view in views)
            said = [holds(plan.population, parts, way.packet) for parts in (plan.opens, plan.closes)]
            assert said == [will and not was, was and not will], way


@given(_pairs())
def test_what_a_change_opens_its_opposite_closes(pair):
    before, after = pair
    population = Population(before, after)
    grants = Grants(population, 0), Grants(population, 1)
    there, back = compare_grants(*grants), compare_grants(*reversed(grants))
    assert (set(there.opens), set(there.closes)) == (set(back.closes), set(back.opens))


@given(snapshots(), st.integers(0, 2**32))
def test_a_policy_in_another_order_changes_nothing(snapshot, seed):
    rng = random.Random(seed)
    groups = {
        id_: replace(group, rules=tuple(rng.sample(group.rules, len(group.rules))))
        for id_, group in rng.sample([*snapshot.groups.items()], len(snapshot.groups))
    }
    assert not compare(snapshot, replace(snapshot, groups=groups))


@given(_pairs())
def test_parts_do_not_overlap(pair):
    plan = compare(*pair)
    parts = [*plan.opens, *plan.closes]
    for number, one in enumerate(parts):
        for other in parts[:number]:
            meets = one.sources & other.sources and one.destinations & other.destinations
            assert not (meets and one.services & other.services)


def _is_honest(way):
    """Whether the packet's addresses are those of its ends, and of nobody's where there is none."""
    return way.source is None or way.packet.source in way.source.addresses
