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


def _programs(snapshots_, ports=PORTS):
    return [compile_program(resolve_view(one), ports) for one in snapshots_]


def _carry_out(actual, way):
    table = Table.holding(actual)
    for leg in way:
        table.carry_out(leg.delta.prepare)
        table.carry_out(leg.delta.flip)
        assert table.program == leg.program


@given(pairs(), SEEDS)
def test_whoever_is_under_way_is_judged_as_by_the_old_program_or_the_new(pair, seed):
    actual, desired = _programs(pair)
    way = hasten(actual, desired)
    packets = ways(resolve_view(pair[1]), seed, count=PACKETS)
    assert not list(strays([actual, *(leg.program for leg in way)], packets))


@given(pairs(), SEEDS)
def test_each_step_judges_and_counts_as_the_last(pair, seed):
    actual, desired = _programs(pair)
    way = hasten(actual, desired)
    _carry_out(actual, way)
    view = resolve_view(pair[1])
    for packet in ways(view, seed, count=PACKETS):
        for leg in way:
            outcome = simulate(leg.program, packet.crossing(), 1)
            assert outcome.passed == packet.judged(view).allowed, packet
            assert len(outcome.counters) == len(expected_counters(view, packet)), packet


@given(pairs(), st.data(), SEEDS)
def test_from_wherever_a_crash_leaves_it_each_packet_is_judged_as_by_what_was_or_what_shall_be(pair, data, seed):
    actual, desired = _programs(pair)
    way = hasten(actual, desired)
    held = data.draw(st.sampled_from([leg.program for leg in way[:-1]] or [actual]))
    after = data.draw(st.one_of(st.just(pair[1]), grown(pair[1]), st.just(pair[0])))
    (wanted,) = _programs([after])
    onward = hasten(held, wanted) or find_way(held, wanted)
    _carry_out(held, onward)
    assert onward[-1].program == wanted
    packets = ways(resolve_view(after), seed, count=PACKETS)
    assert not list(strays([held, *(leg.program for leg in onward)], packets))


@given(pairs())
@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_no_kind_of_ports_needs_a_line_for_a_rule_to_be_in_force(kind, pair):
    actual, desired = _programs(pair, replace(PORTS, kind=kind))
    way = hasten(actual, desired)
    first = [step for leg in way[:1] for step in (*leg.delta.prepare, *leg.delta.flip)]
    assert not any(isinstance(step, AddLine | AddTargets) for step in first)
    assert not any(leg.delta.narrows for leg in way)
    _carry_out(actual, way)
    assert all(leg.program == desired for leg in way[2:])
