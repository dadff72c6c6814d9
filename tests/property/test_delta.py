"""Laws of the delta: it reaches what is desired from anywhere, in steps that the kernel takes."""

from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from generated import PORTS, changed, snapshots
from kernel import Table
from policies import group, instance
from policies import snapshot as snapshot_of
from ringfence.policy.program.base_chains import STAMP
from ringfence.policy.program.compile import LocalPorts, compile_program
from ringfence.policy.program.delta import diff_programs, hold_stamps
from ringfence.policy.program.model import (
    Chain,
    Element,
    ElementType,
    Foreign,
    Hook,
    HookName,
    InState,
    Line,
    NamedSet,
    Program,
    Stamp,
    State,
    VerdictMap,
)
from ringfence.policy.program.names import TableFamily, place_of
from ringfence.policy.program.steps import (
    AddLine,
    AddSet,
    DeleteCounter,
    DeleteLine,
    DeleteTable,
    FlushChain,
    SetGeneration,
)
from ringfence.policy.values import HostName, Kind
from ringfence.policy.view import resolve_view

pytestmark = pytest.mark.full
EMPTY = Program()


def _program(snapshot, ports=PORTS):
    return compile_program(resolve_view(snapshot), ports)


programs = snapshots().map(_program)


@st.composite
def pairs(draw):
    """Two programs: mostly a small change apart, sometimes anything, sometimes from nothing."""
    before = draw(snapshots())
    after = draw(st.one_of(changed(before), changed(before), snapshots()))
    return draw(st.sampled_from([EMPTY, _program(before), _program(before)])), _program(after)


def _carry_out(table, delta):
    """Both transactions of a delta, as the agent runs them; interval sets born in the flip that uses them."""
    assert not table.carry_out(delta.prepare)
    return table.carry_out(delta.flip)


@given(pairs())
def test_applying_the_delta_gives_what_is_desired_and_leaves_nothing_to_do(pair):
    actual, desired = pair
    table = Table.holding(actual)
    born = _carry_out(table, diff_programs(actual, desired))
    assert table.program == desired
    assert not born, "it would match nothing for a moment"
    assert not diff_programs(table.program, desired)


@given(snapshots(), snapshots())
def test_a_host_goes_from_one_kind_of_ports_to_another_and_back(before, after):
    routed, bridged = _program(before), _program(after, replace(PORTS, kind=Kind.BRIDGED))
    assert {place_of(name)[0] for name in bridged.chains} == set(TableFamily)
    for actual, desired in ((routed, bridged), (bridged, routed), (EMPTY, bridged), (bridged, bridged)):
        table = Table.holding(actual)
        _carry_out(table, diff_programs(actual, desired))
        assert table.program == desired
        assert not diff_programs(table.program, desired)
    assert DeleteTable(TableFamily.BRIDGE) in diff_programs(bridged, routed).flip


@given(programs)
def test_there_is_nothing_to_do_when_nothing_changed(program):
    delta = diff_programs(program, program)
    assert not delta
    assert not delta.narrows


@given(pairs())
def test_the_first_transaction_leaves_alone_what_is_there_and_makes_nothing_that_a_packet_meets(pair):
    actual, desired = pair
    table = Table.holding(actual)
    table.carry_out(diff_programs(actual, desired).prepare)
    after = table.program
    for there, then in ((actual.sets, after.sets), (actual.maps, after.maps), (actual.chains, after.chains)):
        assert all(then[name] == thing for name, thing in there.items())
    assert actual.counters <= after.counters
    made = [chain for name, chain in after.chains.items() if name not in actual.chains]
    assert not any(chain.hook for chain in made)
    assert not any(map_.targets for name, map_ in after.maps.items() if name not in actual.maps)


@given(pairs())
def test_when_the_generation_moves_all_that_holds_it_is_written_anew(pair):
    delta = diff_programs(*pair)
    written = {step.chain for step in delta.flip if isinstance(step, AddLine)}
    stamping = {name for name, chain in pair[1].chains.items() if _stamps(chain)}
    assert stamping
    assert not delta.narrows or (stamping <= written and SetGeneration() in delta.flip)


def _stamps(chain):
    return any(isinstance(part, Stamp) for line in chain.lines for part in line.parts)


def test_a_rule_that_goes_is_a_line_less_and_one_that_comes_last_a_line_more():
    """Nothing else is written: for a line with a verdict the kernel walks every way through the table."""
    less, more = (
        _program(snapshot_of(instance("a", "10.0.0.1", wears=["web"]), group("web", *(f"ingress {r}" for r in rules))))
        for rules in (["tcp/80 from 0.0.0.0/0"], ["tcp/80 from 0.0.0.0/0", "udp/53 from 0.0.0.0/0"])
    )
    (rule,) = more.counters - less.counters
    (chain,) = [name for name in less.chains if less.chains[name] != more.chains[name]]
    line = more.chains[chain].lines[-1]
    assert [step for step in diff_programs(less, more).flip if isinstance(step, AddLine)] == [AddLine(chain, line)]
    flip, _ = hold_stamps(diff_programs(more, less).flip)
    assert flip == (DeleteLine(chain, line), FlushChain(STAMP), DeleteCounter(rule), SetGeneration())


def test_the_generation_moves_without_a_line_that_holds_a_verdict():
    """For one that does the kernel walks every way through the table."""
    web = group("web", "ingress tcp/80 from group peers")
    less, more = (
        _program(snapshot_of(instance("a", "10.0.0.1", wears=["web"]), web, group("peers", *sources)))
        for sources in (["source 192.0.2.0/24"], ["source 192.0.2.0/24", "source 198.51.100.0/24"])
    )
    delta = diff_programs(more, less)
    flip, stamping = hold_stamps(delta.flip)
    assert delta.narrows
    assert not any(isinstance(step, AddLine) for step in flip)
    assert [step.line.parts for step in stamping if isinstance(step, AddLine)] == [
        (InState(frozenset({State.NEW, State.ESTABLISHED})), Stamp())
    ]


@given(pairs(), programs)
def test_a_delta_that_was_cut_short_after_its_first_transaction_is_swept_by_the_next(pair, third):
    actual, abandoned = pair
    table = Table.holding(actual)
    table.carry_out(diff_programs(actual, abandoned).prepare)
    _carry_out(table, diff_programs(table.program, third))
    assert table.program == third


@given(st.lists(programs, min_size=2, max_size=4))
def test_any_way_from_program_to_program_ends_in_the_same_table(way):
    table = Table()
    for desired in way:
        _carry_out(table, diff_programs(table.program, desired))
    assert table.program == way[-1]


@given(snapshots())
def test_other_patterns_and_fewer_instances_are_reached_too(snapshot):
    table = Table.holding(_program(snapshot))
    fewer = replace(snapshot, instances=dict(list(snapshot.instances.items())[:1]))
    for desired in (_program(fewer), _program(snapshot, LocalPorts(("eth7", "tap*"))), _program(snapshot)):
        delta = diff_programs(table.program, desired)
        assert delta.narrows, "ports came or went"
        _carry_out(table, delta)
        assert table.program == desired


def _with(mapping, name, value):
    return MappingProxyType({**mapping, name: value})


TAMPERINGS = ("line", "no line", "hook", "chain", "set", "element", "no element", "target", "counter")
_FOREIGN_LINE = Line((Foreign("somebody's"),))
_FOREIGN_ELEMENT: Element = ("intruder",)


@st.composite
def tampered(draw, program):  # noqa: PLR0911  one way out per kind of tampering
    """The program after somebody else changed one thing in our table, in a way that the kernel would have let them."""
    chain = draw(st.sampled_from(sorted(program.chains)))
    lines, hook = program.chains[chain].lines, program.chains[chain].hook
    match draw(st.sampled_from(TAMPERINGS)):
        case "line":
            at = draw(st.integers(0, len(lines)))
            return _chains(program, chain, Chain((*lines[:at], _FOREIGN_LINE, *lines[at:]), hook))
        case "no line":
            return _chains(program, chain, Chain(lines[1:], hook))
        case "hook":  # only of a base chain: nothing may refer to one
            chain = draw(st.sampled_from([name for name, chain in program.chains.items() if chain.hook]))
            return _chains(program, chain, Chain(program.chains[chain].lines, Hook(HookName.PREROUTING, -5)))
        case "chain":
            return _chains(program, "theirs", Chain((_FOREIGN_LINE,), Hook(HookName.POSTROUTING, 3)))
        case "set":
            other = NamedSet((ElementType.ETHER,), frozenset({("02:00:00:00:00:01",)}))
            name = draw(st.sampled_from(["theirs", *sorted(program.sets)]))
            return replace(program, sets=_with(program.sets, name, other))
        case "element":
            ports = NamedSet((ElementType.INTERFACE,), frozenset({_FOREIGN_ELEMENT}))
            return replace(program, sets=_with(program.sets, "ports", ports))
        case "no element":
            name = draw(st.sampled_from(sorted(program.sets)))
            return replace(program, sets=_with(program.sets, name, replace(program.sets[name], elements=frozenset())))
        case "target":
            return replace(program, maps=_with(program.maps, "egress", VerdictMap()))
        case _:
            return replace(program, counters=program.counters | {"theirs"})


def _chains(program, name, chain):
    return replace(program, chains=_with(program.chains, name, chain))


@given(programs, st.data())
def test_tampering_is_healed_and_re_judged(program, data):
    actual = data.draw(tampered(program))
    assume(actual != program)
    delta = diff_programs(actual, program)
    table = Table.holding(actual)
    _carry_out(table, delta)
    assert delta
    assert table.program == program


def test_a_set_of_another_shape_is_made_anew_with_every_line_that_refers_to_it():
    web = group("web", "ingress tcp/80 from group web", "source 192.0.2.0/24")
    things = [instance("a", "10.0.0.1", wears=["web"]), web]
    whole = _program(snapshot_of(*things))
    for name in whole.sets:
        other = NamedSet((ElementType.ETHER,), frozenset({("02:00:00:00:00:01",)}))
        actual = replace(whole, sets=_with(whole.sets, name, other))
        table = Table.holding(actual)
        _carry_out(table, diff_programs(actual, whole))
        assert table.program == whole


@given(snapshots())
def test_everything_is_swept_when_nothing_is_desired_but_the_base(snapshot):
    base = compile_program(resolve_view(snapshot, HostName("another")), PORTS)
    table = Table.holding(_program(snapshot))
    _carry_out(table, diff_programs(table.program, base))
    assert table.program == base


def test_a_source_set_is_filled_before_the_flip_that_refers_to_it():
    things = [instance("a", "10.0.0.1", wears=["web"]), group("web", "ingress tcp/80 from group peers")]
    without = _program(snapshot_of(*things, group("peers")))
    with_source = _program(snapshot_of(*things, group("peers", "source 192.0.2.0/24")))
    delta = diff_programs(without, with_source)
    assert [step.shape.interval for step in delta.prepare if isinstance(step, AddSet)] == [True]
    assert not delta.narrows
