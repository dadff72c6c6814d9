"""Rules and instances: which ports a rule means, when two rules are the same, what an instance contributes."""

from dataclasses import replace
from uuid import UUID

import pytest

from policies import address, instance, rule
from ringfence.policy.model import Interface
from ringfence.policy.values import ALL_PORTS, InterfaceName, Ports, RuleId


@pytest.mark.parametrize(
    ("start", "end", "ports"),
    [
        (None, None, ALL_PORTS),
        (22, None, Ports(22, 22)),
        (None, 22, Ports(22, 22)),
        (22, 80, Ports(22, 80)),
        (0, 0, Ports(0, 0)),
        (0, None, Ports(0, 0)),
    ],
)
def test_one_port_given_is_that_port_and_none_is_all(start, end, ports):
    assert replace(rule("ingress tcp from 0.0.0.0/0"), start_port=start, end_port=end).ports == ports


def test_two_rules_are_the_same_when_only_their_ids_differ():
    one = rule("ingress tcp/80 from 10.0.0.0/8")
    assert one.same_as(replace(one, id=RuleId(UUID(int=1))))


@pytest.mark.parametrize(
    "other",
    [
        "egress tcp/80 to 10.0.0.0/8",
        "ingress udp/80 from 10.0.0.0/8",
        "ingress tcp/81 from 10.0.0.0/8",
        "ingress tcp/80-81 from 10.0.0.0/8",
        "ingress tcp from 10.0.0.0/8",
        "ingress tcp/80 from 10.0.0.1/8",
        "ingress tcp/80 from group web",
    ],
)
def test_rules_that_differ_in_any_field_are_two(other):
    assert not rule("ingress tcp/80 from 10.0.0.0/8").same_as(rule(other))


def test_another_description_makes_another_rule():
    one = rule("ingress tcp/80 from 10.0.0.0/8")
    assert not one.same_as(replace(one, description="again"))


def test_only_managed_interfaces_contribute_addresses():
    web = instance("web", "10.0.0.1", "2001:db8::1")
    private = Interface(InterfaceName("eth1"), (address("192.168.0.1"),), managed=False)
    assert replace(web, interfaces=(*web.interfaces, private)).addresses == web.addresses
