"""A narrowed program: what is not declared is closed, what is newly declared too, and the rest stays as it was."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.policy.program.compile import LocalPorts, compile_program
from ringfence.policy.program.model import Program
from ringfence.policy.program.narrow import narrow_program
from views import GROUPS, endpoint, ingress, local_views, view

PORTS = LocalPorts(("veth*",))
WEB, APP = endpoint("web", GROUPS[0]), endpoint("app", GROUPS[1])
HELD = compile_program(view(1, WEB, APP, rules={GROUPS[0]: (ingress(80),), GROUPS[1]: ()}), PORTS)


def test_what_is_still_declared_stays_as_it_was():
    assert narrow_program(HELD, (WEB, APP), PORTS) == HELD


def test_a_port_that_is_declared_no_more_is_closed():
    found = narrow_program(HELD, (WEB,), LocalPorts(("veth*", "veth-app")))
    assert set(found.maps["egress"].targets) == set(found.maps["ingress"].targets) == {"veth-web"}
    assert {element[0] for element in found.sets["any_mac_ipv4"].elements} == {"veth-web"}
    assert found.sets["ports"] == HELD.sets["ports"]


def test_an_instance_that_is_observed_stays_so_and_no_other_becomes_so():
    rules = {GROUPS[0]: (ingress(80),), GROUPS[1]: ()}
    held = compile_program(view(1, replace(WEB, observe=True), APP, rules=rules), PORTS)
    assert narrow_program(held, (WEB, APP), PORTS) == held
    assert not narrow_program(held, (APP,), PORTS).sets["observed"].elements


def test_a_newly_declared_port_or_prefix_is_closed_and_an_old_prefix_stays_closed():
    found = narrow_program(HELD, (WEB, APP, endpoint("db")), LocalPorts(("tap*", "veth-db")))
    both = compile_program(view(0), LocalPorts(("tap*", "veth*")))
    assert found.sets["ports"].elements - HELD.sets["ports"].elements == {("veth-db",)}
    assert found.maps == HELD.maps
    assert {name: found.chains[name] for name in both.chains} == both.chains


@pytest.mark.parametrize(
    "change", [{"addresses": (WEB.addresses[0], ip_address("10.0.0.9"))}, {"mac": "02:00:00:00:00:01"}]
)
def test_of_what_may_be_sent_only_what_was_and_is_declared_stays(change):
    found = narrow_program(HELD, (replace(WEB, **change), APP), PORTS)
    sent = {name: set_.elements for name, set_ in found.sets.items() if name != "ports"}
    assert all(elements <= HELD.sets[name].elements for name, elements in sent.items())
    assert ("veth-web", WEB.addresses[1]) not in frozenset().union(*sent.values())


@given(local_views(), local_views(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_narrowing_opens_nothing_and_a_second_time_changes_nothing(held, other, is_made):
    program = compile_program(held, PORTS) if is_made else Program()
    found = narrow_program(program, other.endpoints, PORTS)
    assert narrow_program(found, other.endpoints, PORTS) == found
    for name in set(found.sets) - {"ports"}:
        assert not is_made or found.sets[name].elements <= program.sets[name].elements
    for name, map_ in found.maps.items():
        assert not is_made or map_.targets.items() <= program.maps[name].targets.items()
