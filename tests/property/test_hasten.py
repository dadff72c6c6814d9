"""Laws of rules in force as elements: the same verdicts as of their lines, at each step of any way, without a walk."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generated import PORTS, changed, expected_counters, mac_at, rules, snapshots, ways
from kernel import Table
from nasty import GROUPS
from policies import group_id
from ringfence.policy.program.compile import Compiler, compile_program
from ringfence.policy.program.delta import diff_programs
from ringfence.policy.program.hasten import drop_late, hasten, linger
from ringfence.policy.program.model import Program
from ringfence.policy.program.names import LATE
from ringfence.policy.values import Kind, Revision
from ringfence.policy.verdict import Default
from ringfence.policy.view import resolve_view
from simulator import again, answered, simulate

pytestmark = pytest.mark.full
SEEDS = st.integers(0, 1 << 32)
with_ports = rules().filter(lambda rule: rule.protocol.has_ports)


@st.composite
def grown(draw, snapshot):
    """The snapshot with one to three rules for tcp or udp more, and seldom with something else changed as well."""
    groups = dict(snapshot.groups)
    for name in draw(st.lists(st.sampled_from(GROUPS), min_size=1, max_size=3)):
        group = groups[group_id(name)]
        groups[group.id] = replace(group, rules=(*group.rules, draw(with_ports)))
    more = replace(snapshot, revision=Revision(snapshot.revision + 1), groups=groups)
    return draw(st.one_of(st.just(more), st.just(more), st.just(more), changed(more)))


class Host:
    """What the applier does, step by step: the kernel's table under each view that came, in haste."""

    def __init__(self, ports=PORTS):
        self.ports = ports
        self.compiler = Compiler()
        self.table = Table()
        self.held = Program()
        self.hastened = 0

    def follow(self, snapshot):
        """Whether the generation moved."""
        self.view = resolve_view(snapshot)
        self.desired = self.compiler.compile(self.view, self.ports)
        hastened = hasten(self.held, self.desired, self.view.endpoints)
        self.hastened += hastened is not None
        return self._go(hastened) if hastened else self.settle()

    def settle(self):
        lingering = linger(self.held, self.desired, self.view.endpoints)
        moved = self._go(lingering)
        if lingering is not self.desired:
            delta = drop_late(lingering, self.desired)
            assert delta
            assert not delta.narrows
            self._carry_out(delta, self.desired)
        return moved

    def _go(self, program):
        delta = diff_programs(self.held, program)
        if program.chains != self.desired.chains:  # in haste
            assert not delta.walks
        self._check_seam(program)
        self._carry_out(delta, program)
        return delta.narrows

    def _check_seam(self, program):
        """A packet under way through the lines of before looks elements up as they are now, new ones a moment later."""
        kept = {
            name: replace(program.sets[name], elements=set_.elements & program.sets[name].elements)
            for name, set_ in self.held.sets.items()
            if set_.counted and name in program.sets
        }
        lines_of_before = replace(self.held, sets={**self.held.sets, **kept})
        without_new = replace(program, sets={**program.sets, **kept})
        for way in ways(self.view, 0, count=20):
            if simulate(self.held, way.crossing(), 1).passed and simulate(program, way.crossing(), 1).passed:
                assert simulate(lines_of_before, way.crossing(), 1).passed, way
                assert simulate(without_new, way.crossing(), 1).passed, way

    def _carry_out(self, delta, program):
        self.table.carry_out(delta.prepare)
        self.table.carry_out(delta.flip)
        assert self.table.program == program
        self.held = program

    def check(self, seed):
        """Every verdict is the view's, and counted by one rule where a line would be."""
        for way in ways(self.view, seed, count=40):
            outcome = simulate(self.held, way.crossing(), 1)
            assert outcome.passed == way.judged(self.view).allowed, way
            assert len(outcome.counters) == len(expected_counters(self.view, way)), way


@given(snapshots(), st.data(), SEEDS)
def test_rules_in_force_as_elements_give_the_verdict_and_so_does_every_step_to_their_lines(before, data, seed):
    host = Host()
    host.follow(before)
    for _ in range(3):
        before = data.draw(st.one_of(grown(before), grown(before), changed(before)))
        host.follow(before)
        host.check(seed)
        if data.draw(st.sampled_from([True, False, False])):
            host.settle()
            assert host.held == compile_program(host.view, PORTS)
            host.check(seed)


@given(snapshots(), st.data())
def test_whoever_reads_the_table_back_in_between_goes_on_from_there(before, data):
    host = Host()
    host.follow(before)
    after = data.draw(grown(before))
    host.follow(after)
    again_started = Host()
    again_started.table, again_started.held = host.table, host.table.program
    again_started.follow(after)
    assert again_started.held == host.held
    again_started.settle()
    assert again_started.held == compile_program(again_started.view, PORTS)


@given(snapshots(), st.data(), SEEDS)
def test_a_flow_keeps_its_permission_over_settling_and_loses_it_with_its_rule(before, data, seed):
    host = Host()
    host.follow(before)
    host.follow(data.draw(grown(before)))
    opened = [(way, way.crossing()) for way in ways(host.view, seed) if way.judged(host.view).allowed]
    opened = [(way, crossing) for way, crossing in opened if crossing.flow and simulate(host.held, crossing, 1).passed]
    assert not host.settle()
    for way, crossing in opened:
        assert simulate(host.held, again(crossing), 1).passed
        assert simulate(host.held, answered(crossing, mac=mac_at(way.destination)), 1).passed, way
    generation = 2 if host.follow(before) else 1
    for way, crossing in opened:
        verdict = way.under(host.view).judged(host.view)
        if not any(side and side.reason is Default.MID_STREAM for side in (verdict.egress, verdict.ingress)):
            assert simulate(host.held, again(crossing), generation).passed == verdict.allowed, way


@given(snapshots(), st.data())
@pytest.mark.parametrize("kind", [Kind.BRIDGED, Kind.SELF], ids=lambda kind: kind.value)
def test_other_kinds_of_ports_too_take_rules_as_elements_without_a_walk(kind, before, data):
    host = Host(replace(PORTS, kind=kind))
    host.follow(before)
    host.follow(data.draw(grown(before)))
    host.settle()
    assert host.held == compile_program(host.view, host.ports)
    assert not any(host.held.sets[name].elements for name in LATE.values())
