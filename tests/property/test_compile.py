"""The compiled program, simulated, gives the verdict: for first packets, for replies, and across a change."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generated import PORTS, changed, difference, differences, mac_at, snapshots, ways
from ringfence.policy.program.compile import compile_program
from ringfence.policy.program.delta import diff_programs
from ringfence.policy.verdict import Default
from ringfence.policy.view import resolve_view
from simulator import again, answered, simulate

pytestmark = pytest.mark.full
SEEDS = st.integers(0, 1 << 32)


@given(snapshots(), SEEDS)
def test_the_program_gives_the_verdict_and_counts_its_reason(snapshot, seed):
    assert differences(snapshot, seed) == []


@given(snapshots(), SEEDS)
def test_the_order_of_rules_never_matters(snapshot, seed):
    turned = {id_: replace(group, rules=group.rules[::-1]) for id_, group in snapshot.groups.items()}
    view, other = resolve_view(snapshot), resolve_view(replace(snapshot, groups=turned))
    program = compile_program(other, PORTS)
    for way in ways(view, seed, count=40):
        assert way.judged(view).allowed == way.under(other).judged(other).allowed
        assert difference(other, program, way) is None


@given(snapshots(), SEEDS)
def test_replies_of_allowed_flows_pass(snapshot, seed):
    view = resolve_view(snapshot)
    program = compile_program(view, PORTS)
    for way, opened in _flows(view, program, seed):
        assert simulate(program, again(opened), 1).passed
        assert simulate(program, _reply(way, opened), 1).passed, way


@given(snapshots(), st.data(), SEEDS)
def test_after_a_change_every_flow_is_cut_or_lives_in_both_directions_as_the_verdict_says(before, data, seed):
    after = data.draw(st.one_of(changed(before), snapshots(revision=2)))
    _check_flows(resolve_view(before), resolve_view(after), seed)


def _check_flows(view, next_view, seed):
    program, next_program = compile_program(view, PORTS), compile_program(next_view, PORTS)
    delta = diff_programs(program, next_program)
    generation = 2 if delta.narrows else 1
    for way, opened in _flows(view, program, seed):
        verdict = way.under(next_view).judged(next_view)
        if any(side and side.reason is Default.MID_STREAM for side in (verdict.egress, verdict.ingress)):
            continue  # taken up in mid-stream while observed, it is a known flow by now, and no first packet
        lives = verdict.allowed
        assert delta.narrows or lives, f"lost its permission, and no generation moves: {way}"
        # What is refused before any group is asked, an instance could send only while it was observed. No packet of
        # its own passes then; answers are asked what they always are, the groups.
        is_forged = bool(verdict.egress) and verdict.egress.reason in {Default.SPOOFED, Default.ROGUE} and not lives
        for later in (again(opened),) if is_forged else (again(opened), _reply(way, opened)):
            # Each on a flow of its own: a packet that passes stamps the flow for the next one.
            alone = replace(later, flow=replace(later.flow))
            assert simulate(next_program, alone, generation).passed is lives, (way, later.way)


def _flows(view, program, seed):
    """The flows among the packets of the seed that both sides allow by groups, opened in the program."""
    for way in ways(view, seed):
        verdict, crossing = way.judged(view), way.crossing()
        by_link = any(side and side.reason is Default.LINK for side in (verdict.egress, verdict.ingress))
        if verdict.allowed and crossing.flow and not by_link:
            assert simulate(program, crossing, 1).passed
            yield way, crossing


def _reply(way, opened):
    return answered(opened, mac=mac_at(way.destination))
