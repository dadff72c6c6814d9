"""Rules that come as elements first: at each step of the way every packet is judged, and counted, as by their lines."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counts import count
from generated import PORTS, expected_counters, rules, snapshots, ways
from kernel import Table
from mixtures import strays
from ringfence.policy.program.compile import compile_program
from ringfence.policy.program.hasten import hasten
from ringfence.policy.program.steps import AddLine, AddTargets
from ringfence.policy.program.waypoints import find_way
from ringfence.policy.values import Kind, Revision
from ringfence.policy.view import resolve_view
from simulator import simulate

pytestmark = pytest.mark.full
SEEDS = st.integers(0, 1 << 32)
PACKETS = count(reduced=12, stated=40)
with_ports = rules().filter(lambda rule: rule.protocol.has_ports)


@st.composite
def grown(draw, snapshot):
    """The snapshot with one to three rules for tcp or udp more, in groups that somebody wears if any are."""
    groups = dict(snapshot.groups)
    worn = sorted({worn for instance in snapshot.instances.values() for worn in instance.groups})
    for id_ in draw(st.lists(st.sampled_from(worn or [*groups]), min_size=1, max_size=3)):
        group = groups[id_]
        groups[group.id] = replace(group, rules=(*group.rules, draw(with_ports)))
    return replace(snapshot, revision=Revision(snapshot.revision + 1), groups=groups)


@st.composite
def pairs(draw):
    before = draw(snapshots())
    return before, draw(grown(before))


def _way(actual, view, ports=PORTS):
    """From ``actual`` to the view's program, in haste if possible."""
    desired = compile_program(view, ports)
    return hasten(actual, desired, view.endpoints) or find_way(actual, desired)


def _carry_out(actual, way):
    table = Table.holding(actual)
    for leg in way:
        table.carry_out(leg.delta.prepare)
        table.carry_out(leg.delta.flip)
        assert table.program == leg.program


@given(pairs(), SEEDS)
def test_whoever_is_under_way_is_judged_as_by_the_old_program_or_the_new(pair, seed):
    before, after = map(resolve_view, pair)
    actual = compile_program(before, PORTS)
    packets = ways(after, seed, count=PACKETS)
    assert not list(strays([actual, *(leg.program for leg in _way(actual, after))], packets))


@given(pairs(), SEEDS)
def test_each_step_judges_and_counts_as_the_last(pair, seed):
    before, after = map(resolve_view, pair)
    actual, desired = (compile_program(view, PORTS) for view in (before, after))
    way = hasten(actual, desired, after.endpoints)
    _carry_out(actual, way)
    for packet in ways(after, seed, count=PACKETS):
        for leg in way:
            outcome = simulate(leg.program, packet.crossing(), 1)
            assert outcome.passed == packet.judged(after).allowed, packet
            assert len(outcome.counters) == len(expected_counters(after, packet)), packet


@given(pairs(), st.data(), SEEDS)
def test_from_wherever_a_crash_leaves_it_each_packet_is_judged_as_by_what_was_or_what_shall_be(pair, data, seed):
    before, after = map(resolve_view, pair)
    actual = compile_program(before, PORTS)
    held = data.draw(st.sampled_from([actual, *(leg.program for leg in _way(actual, after))]))
    wanted = resolve_view(data.draw(st.one_of(*map(st.just, pair), *map(grown, pair))))
    onward = _way(held, wanted)
    _carry_out(held, onward)
    assert onward[-1].program == compile_program(wanted, PORTS)
    packets = ways(wanted, seed, count=PACKETS)
    assert not list(strays([held, *(leg.program for leg in onward)], packets))


@given(pairs())
@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_no_kind_of_ports_needs_a_line_for_a_rule_to_be_in_force(kind, pair):
    ports = replace(PORTS, kind=kind)
    before, after = map(resolve_view, pair)
    actual, desired = (compile_program(view, ports) for view in (before, after))
    way = hasten(actual, desired, after.endpoints)
    first = [step for leg in way[:1] for step in (*leg.delta.prepare, *leg.delta.flip)]
    assert not any(isinstance(step, AddLine | AddTargets) for step in first)
    assert not any(leg.delta.narrows for leg in way)
    _carry_out(actual, way)
    assert all(leg.program == desired for leg in way[2:])
