"""Which programs a host goes through when a port's packets begin, or cease, to be an instance's."""

from dataclasses import replace

import pytest

from policies import group, instance, snapshot
from ringfence.policy.program import names
from ringfence.policy.program.compile import LocalPorts, compile_program
from ringfence.policy.program.gates import find_stops
from ringfence.policy.values import Kind, Mac
from ringfence.policy.view import resolve_view

ROUTED, BRIDGED = LocalPorts(("veth*",)), LocalPorts(("veth*",), Kind.BRIDGED)
PARTS = {Kind.ROUTED: (names.OWN_SETS, (names.PORTS,)), Kind.BRIDGED: (names.FRAME_SETS, (names.INSTANCES4,))}


def compiled(ports, *instances):
    return compile_program(resolve_view(snapshot(group("web", "ingress tcp/80 from 0.0.0.0/0"), *instances)), ports)


def dweller(name, *addresses, kind=Kind.ROUTED, mac="02:00:00:00:00:01"):
    made = instance(name, *addresses, wears=["web"])
    (interface,) = made.interfaces
    return replace(made, interfaces=(replace(interface, mac=mac and Mac(mac), kind=kind),))


def elements(program, sets):
    return {(name, element) for name in sets for element in program.sets[name].elements}


def of_bridge(*addresses, **changes):
    return dweller("alpha", *addresses, kind=Kind.BRIDGED, **changes)


@pytest.mark.parametrize(
    ("ports", "one"),
    [(ROUTED, dweller("alpha", "10.77.0.1")), (BRIDGED, of_bridge("10.77.0.1"))],
    ids=["routed", "bridged"],
)
def test_gates_of_an_instance_that_goes_are_shut_while_the_rest_still_knows_it(ports, one):
    with_it, without = compiled(ports, one), compiled(ports)
    (stop,) = find_stops(with_it, without)
    gates, rest = PARTS[ports.kind]
    assert elements(stop, gates) == elements(without, gates) != elements(with_it, gates)
    assert elements(stop, rest) == elements(with_it, rest) != elements(without, rest)
    assert (stop.chains, stop.maps) == (with_it.chains, with_it.maps)


def test_gates_of_a_bridge_open_once_the_rest_knows_the_instance():
    without, with_it = compiled(BRIDGED), compiled(BRIDGED, of_bridge("10.77.0.1"))
    (stop,) = find_stops(without, with_it)
    assert elements(stop, names.FRAME_SETS) == elements(without, names.FRAME_SETS)
    assert elements(stop, [names.INSTANCES4]) == elements(with_it, [names.INSTANCES4])
    assert stop.maps == with_it.maps


def test_gates_where_a_port_is_judged_after_them_open_with_the_rest():
    assert not [*find_stops(compiled(ROUTED), compiled(ROUTED, dweller("alpha", "10.77.0.1")))]


def test_an_address_that_moves_to_another_port_is_nobodys_meanwhile():
    held, other = ("10.77.0.1", "10.77.0.3"), "10.77.0.2"
    bravo = {"kind": Kind.BRIDGED, "mac": "02:00:00:00:00:02"}
    before = compiled(BRIDGED, of_bridge(*held), dweller("bravo", other, **bravo))
    after = compiled(BRIDGED, of_bridge(held[0]), dweller("bravo", other, held[1], **bravo))
    first, last = find_stops(before, after)
    both = elements(before, names.FRAME_SETS) & elements(after, names.FRAME_SETS)
    assert both == elements(first, names.FRAME_SETS) == elements(last, names.FRAME_SETS)
    assert (first.maps, last.maps) == (before.maps, after.maps)


@pytest.mark.parametrize(
    "macs", [(None, "02:00:00:00:00:01"), ("02:00:00:00:00:01", None)], ids=["declared", "no more"]
)
def test_a_port_whose_mac_address_is_declared_loses_no_packet(macs):
    before, after = (compiled(ROUTED, dweller("alpha", "10.77.0.1", mac=mac)) for mac in macs)
    assert not [*find_stops(before, after)]


def test_rules_and_worn_groups_open_and_shut_no_gate():
    before, bare = compiled(BRIDGED, of_bridge("10.77.0.1")), replace(of_bridge("10.77.0.1"), groups=())
    assert not [*find_stops(before, compiled(BRIDGED, bare))]


def test_a_table_that_comes_or_goes_is_in_step_with_nothing():
    bridged, routed = compiled(BRIDGED, of_bridge("10.77.0.1")), compiled(ROUTED)
    assert not [*find_stops(routed, bridged)]
    assert not [*find_stops(bridged, routed)]
