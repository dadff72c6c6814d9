"""Who the peers of suggested rules are, and how few rules there are."""

from dataclasses import replace
from ipaddress import ip_address
from types import MappingProxyType

import pytest

from policies import ORGANISATION, group, group_id, instance, snapshot
from ringfence.policy.commands import GroupReference
from ringfence.policy.insight.suggest import FEW, MANY, Seen, suggest
from ringfence.policy.model import Organisation
from ringfence.policy.packet import Packet
from ringfence.policy.values import Direction

WEB = instance("web", "192.0.2.10", wears=("default",))


def _seen(*sources, port=443, protocol=6):
    return [
        Seen(Direction.INGRESS, Packet(ip_address(one), WEB.addresses[0], protocol, 40000, port)) for one in sources
    ]


def _suggested(*things, seen):
    found = snapshot(group("default"), WEB, *things)
    owner = Organisation(ORGANISATION, "o", group_id("default"))
    return suggest(replace(found, organisations=MappingProxyType({ORGANISATION: owner})), WEB, seen)


def _said(suggestion):
    return [
        (one.peer.name if isinstance(one.peer, GroupReference) else one.peer.text, one.start_port, one.end_port)
        for one in suggestion.rules
    ]


def _members(name, count):
    return [instance(f"{name}{n}", f"10.1.0.{n}", wears=(name,)) for n in range(1, count + 1)]


@pytest.mark.parametrize(("asking", "peers"), [(2, ["app"]), (1, ["10.1.0.1/32"])])
def test_a_group_is_named_when_half_of_it_was_seen(asking, peers):
    sources = [f"10.1.0.{n}" for n in range(1, asking + 1)]
    found = _suggested(group("app"), *_members("app", 4), seen=_seen(*sources))
    assert [peer for peer, _, _ in _said(found)] == peers


def test_the_group_that_says_least_besides_is_named():
    both = [instance(f"x{n}", f"10.1.0.{n}", wears=("app", "wide")) for n in (1, 2)]
    third = instance("y", "10.2.0.1", wears=("wide",))
    found = _suggested(group("app"), group("wide"), *both, third, seen=_seen("10.1.0.1", "10.1.0.2"))
    assert _said(found) == [("app", 443, 443)]


def test_default_is_never_named():
    found = _suggested(instance("other", "10.9.0.1", wears=("default",)), seen=_seen("10.9.0.1"))
    assert _said(found) == [("10.9.0.1/32", 443, 443)]


def test_a_groups_source_stands_for_what_came_from_there():
    found = _suggested(group("office", "source 198.51.100.0/24"), seen=_seen("198.51.100.7", "198.51.100.8"))
    assert _said(found) == [("office", 443, 443)]


@pytest.mark.parametrize(
    ("sources", "peers"),
    [
        ([f"9.9.9.{n}" for n in range(MANY)], [f"9.9.9.{n}/32" for n in range(MANY)]),
        ([*(f"9.9.9.{n}" for n in range(MANY + 1)), "10.0.0.1"], ["0.0.0.0/0"]),
        ([f"2a00::{n:x}" for n in range(1, MANY + 2)], ["::/0"]),
        ([f"10.0.0.{n}" for n in range(FEW)], [f"10.0.0.{n}/32" for n in range(FEW)]),
        ([f"10.0.0.{n}" for n in range(FEW + 1)], ["10.0.0.0/24"]),
        ([f"fd00::{n:x}" for n in range(1, FEW + 2)], ["fd00::/64"]),
    ],
)
def test_many_addresses_are_a_network(sources, peers):
    assert [peer for peer, _, _ in _said(_suggested(seen=_seen(*sources)))] == peers


def test_ports_side_by_side_are_one_rule_and_packets_are_counted():
    seen = [*_seen("9.9.9.9", port=80), *_seen("9.9.9.9", port=82), *_seen("9.9.9.9", "9.9.9.9", port=81)]
    found = _suggested(seen=[*seen, *_seen("9.9.9.9", port=90)])
    assert _said(found) == [("9.9.9.9/32", 80, 82), ("9.9.9.9/32", 90, 90)]
    assert [one.description for one in found.rules] == ["seen 4 times", "seen once"]


def test_what_no_rule_can_name_is_said():
    found = _suggested(seen=_seen("9.9.9.9", protocol=132, port=0))
    assert found.rules == ()
    assert found.unsayable == (("protocol 132 over IPv4", 1),)
