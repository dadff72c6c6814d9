"""A compiler that remembers gives what one that does not would give, and hands out again what did not change."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generated import PORTS, changed, snapshots
from policies import address, group, group_id, instance, snapshot
from ringfence.policy import evolving
from ringfence.policy.program import names
from ringfence.policy.program.compile import Compiler, LocalPorts, compile_program
from ringfence.policy.program.delta import diff_programs
from ringfence.policy.program.steps import AddElements
from ringfence.policy.view import PeerAddresses, resolve_view

pytestmark = pytest.mark.full


@st.composite
def histories(draw):
    """Snapshots one small change after another, now and then a leap."""
    history = [draw(snapshots())]
    for _ in range(draw(st.integers(1, 5))):
        history.append(draw(st.one_of(changed(history[-1]), changed(history[-1]), snapshots())))
    return history


@pytest.fixture(autouse=True, scope="module", params=[0, None], ids=["every set is a large one", "as it is"])
def _large(request):
    with pytest.MonkeyPatch.context() as patched:
        if request.param is not None:
            patched.setattr(evolving, "COPIED", request.param)
        yield


@given(histories(), st.lists(st.sampled_from([PORTS, LocalPorts(("veth*", "eth7"))]), min_size=6, max_size=6))
def test_what_was_compiled_before_never_shows(history, ports):
    compiler = Compiler()
    for number, each in enumerate(history):
        view = resolve_view(each)
        assert compiler.compile(view, ports[number]) == compile_program(view, ports[number])


@given(histories())
def test_the_delta_of_remembered_programs_is_that_of_fresh_ones(history):
    compiler = Compiler()
    views = [resolve_view(each) for each in history]
    remembered = [compiler.compile(view, PORTS) for view in views]
    for (before, after), (old, new) in zip(pairwise(views), pairwise(remembered), strict=True):
        fresh = diff_programs(compile_program(before, PORTS), compile_program(after, PORTS))
        delta = diff_programs(old, new)
        assert (unordered(delta.prepare), unordered(delta.flip)) == (unordered(fresh.prepare), unordered(fresh.flip))
        assert delta.narrows is fresh.narrows


def unordered(steps):
    """Steps of which elements and targets have no order, as they have none on the wire: a batch sorts their octets."""
    kinds = ("elements", "targets")
    given = [(step, [kind for kind in kinds if hasattr(step, kind)]) for step in steps]
    return [replace(step, **{kind: frozenset(getattr(step, kind)) for kind in found}) for step, found in given]


WORLD = snapshot(
    group("web", "ingress tcp/80 from group app"),
    group("app", "ingress tcp/8080 from 0.0.0.0/0"),
    instance("a", "10.0.0.1", wears=["web"]),
    instance("b", "10.0.0.2", wears=["app"]),
)


def _joined(view, *addresses):
    members = view.peers[group_id("app")].members | {address(text) for text in addresses}
    return replace(view, peers={group_id("app"): PeerAddresses(members)})


def test_one_more_member_is_one_element_and_nothing_else_is_made_anew():
    compiler, view = Compiler(), resolve_view(WORLD)
    before = compiler.compile(view, PORTS)
    after = compiler.compile(_joined(view, "10.0.0.9"), PORTS)
    assert after.chains is before.chains
    assert after.counters is before.counters
    delta = diff_programs(before, after)
    assert [type(step) for step in delta.flip] == [AddElements]
    assert (delta.flip[0].set, delta.prepare, delta.narrows) == (names.member_set(group_id("app"), 4), (), False)


def test_the_first_member_of_a_family_brings_the_lines_that_ask_for_it():
    compiler, view = Compiler(), resolve_view(WORLD)
    before = compiler.compile(view, PORTS)
    after = compiler.compile(_joined(view, "2001:db8::9"), PORTS)
    assert names.member_set(group_id("app"), 6) in after.sets.keys() - before.sets.keys()
    assert after == compile_program(_joined(view, "2001:db8::9"), PORTS)
