"""Policies in short words for tests: "ingress tcp/5432 from group app" -> a snapshot with ids made of the names."""

import re
from uuid import NAMESPACE_DNS, uuid5

from ringfence.policy.model import Group, GroupPeer, Instance, Interface, Rule
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import (
    Direction,
    GroupId,
    HostName,
    Icmp,
    InstanceId,
    InterfaceName,
    Mac,
    OrganisationId,
    Protocol,
    Revision,
    RuleId,
    parse_address,
    parse_cidr,
)

ORGANISATION = OrganisationId(uuid5(NAMESPACE_DNS, "organisation"))
INTERNET = parse_cidr("0.0.0.0/0", field="test")
_RULE = re.compile(
    r"(?P<direction>ingress|egress) (?P<protocol>[a-z0-9]+)(?:/(?P<what>[0-9/-]+))? (?:from|to) (?P<peer>.+)"
)


def group_id(name):
    return GroupId(uuid5(NAMESPACE_DNS, f"group {name}"))


def instance_id(name):
    return InstanceId(uuid5(NAMESPACE_DNS, f"instance {name}"))


def rule(text, group="any"):
    """The rule that the words of ``explain.describe_rule`` stand for, e.g. "egress icmp/8/0 to 10.0.0.0/8"."""
    found = _RULE.fullmatch(text)
    assert found, f"not a rule: {text}"
    protocol, what = Protocol(found["protocol"]), found["what"]
    ports, icmp = (None, None), None
    if what and protocol.has_ports:
        numbers = [int(number) for number in what.split("-")]
        ports = (numbers[0], numbers[-1])
    elif what:
        type_, _, code = what.partition("/")
        icmp = Icmp(int(type_), int(code) if code else -1)
    peer = found["peer"]
    return Rule(
        RuleId(uuid5(NAMESPACE_DNS, f"rule {group} {text}")),
        Direction(found["direction"]),
        protocol,
        GroupPeer(group_id(peer.removeprefix("group "))) if peer.startswith("group ") else cidr(peer),
        *ports,
        icmp=icmp,
    )


def cidr(text):
    return parse_cidr(text, field="test")


def address(text):
    return parse_address(text, field="test")


def group(name, *lines):
    """A group of rules in words, and of "source NETWORK" for external sources."""
    sources = tuple(cidr(line.removeprefix("source ")) for line in lines if line.startswith("source "))
    rules = tuple(rule(line, name) for line in lines if not line.startswith("source "))
    return Group(group_id(name), ORGANISATION, name, rules=rules, sources=sources)


def mac_of(name):
    """A MAC address made of the name: locally administered, unicast."""
    return Mac("02:" + ":".join(f"{octet:02x}" for octet in uuid5(NAMESPACE_DNS, f"mac {name}").bytes[:5]))


def instance(name, *addresses, wears=(), host="h1", mac=True):
    """An instance behind ``veth-NAME`` with a MAC address made of its name, or with none declared."""
    interface = Interface(
        InterfaceName(f"veth-{name}"[:15]),
        tuple(address(text) for text in addresses),
        mac_of(name) if mac else None,
    )
    return Instance(
        instance_id(name),
        ORGANISATION,
        name,
        HostName(host),
        (interface,),
        tuple(group_id(worn) for worn in wears),
    )


def snapshot(*things, revision=1):
    """Groups and instances, as ``group`` and ``instance`` make them, in one snapshot."""
    return Snapshot(
        Revision(revision),
        groups={thing.id: thing for thing in things if isinstance(thing, Group)},
        instances={thing.id: thing for thing in things if isinstance(thing, Instance)},
    )
