"""Views of a host: hypothesis strategies for any that the model allows, and short ways to write one down."""

import string
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import MappingProxyType
from uuid import UUID

from hypothesis import strategies as st

from ringfence.policy.model import GroupPeer, Rule
from ringfence.policy.values import (
    V4_MAPPED,
    Direction,
    GroupId,
    Icmp,
    InstanceId,
    InterfaceName,
    Kind,
    Mac,
    Protocol,
    Revision,
    RuleId,
    parse_cidr,
)
from ringfence.policy.view import Endpoint, HostView, PeerAddresses

GROUPS = tuple(GroupId(UUID(int=n)) for n in range(1, 5))
PORTS = ("veth-a", "veth-b", "veth-c")


def _is_host(address):
    mapped = isinstance(address, IPv6Address) and address in V4_MAPPED
    return not (mapped or address.is_unspecified or address.is_multicast or address.is_loopback)


addresses = (st.ip_addresses(v=4) | st.ip_addresses(v=6)).filter(_is_host)
_cidrs = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
).map(lambda pair: f"{pair[0]}/{pair[1]}")


def _parsed(text):
    try:
        return parse_cidr(text, field="x")
    except ValueError:
        return None


def _not_mapped(text):
    address, _, length = text.partition("/")
    return not (ip_address(address).version == 6 and int(length) >= 96 and ip_address(address) in V4_MAPPED)


cidrs = _cidrs.filter(_not_mapped).map(_parsed)
_macs = st.binary(min_size=6, max_size=6).map(lambda raw: Mac(bytes([raw[0] & 0xFE, *raw[1:]]).hex(":")))
_texts = st.none() | st.text(max_size=20)
_ports = st.none() | st.integers(0, 65535)
rules = st.builds(
    Rule,
    id=st.uuids().map(RuleId),
    direction=st.sampled_from(Direction),
    protocol=st.sampled_from(Protocol),
    peer=cidrs | st.sampled_from(GROUPS).map(GroupPeer),
    start_port=_ports,
    end_port=_ports,
    icmp=st.none() | st.builds(Icmp, st.none() | st.integers(-1, 255), st.none() | st.integers(-1, 255)),
    description=_texts,
)


def _acceptable(rule):
    """The nearest rule that the API accepts: ports and ICMP only where they belong, ranges in order."""
    low, high = sorted((rule.start_port or 0, rule.end_port or 0))
    icmp = rule.icmp
    if icmp is not None and icmp.any_type:
        icmp = Icmp(icmp.type, None)
    return replace(
        rule,
        start_port=low if rule.protocol.has_ports and rule.start_port is not None else None,
        end_port=high if rule.protocol.has_ports and rule.end_port is not None else None,
        icmp=icmp if rule.protocol.has_types else None,
    )


peers = st.builds(
    PeerAddresses,
    members=st.frozensets(addresses, max_size=4),
    sources=st.frozensets(cidrs.map(lambda cidr: cidr.network), max_size=4),
)
_interfaces = st.text(string.ascii_letters + string.digits + "_.@-", min_size=1, max_size=15).map(InterfaceName)
_names = st.text(min_size=1, max_size=20)
_revisions = st.integers(0, 2**63 - 1)


def endpoints(interfaces=_interfaces, names=_names):
    return st.builds(
        Endpoint,
        instance=st.uuids().map(InstanceId),
        name=names,
        interface=interfaces,
        addresses=st.lists(addresses, max_size=3, unique=True).map(tuple),
        mac=st.none() | _macs,
        groups=st.lists(st.sampled_from(GROUPS), max_size=3, unique=True).map(lambda worn: tuple(sorted(worn))),
        kind=st.sampled_from(Kind),
        observe=st.booleans(),
    )


def _place(endpoint):
    return (endpoint.interface, endpoint.instance)


def _in_order(found):
    return tuple(sorted(found, key=_place))


def views(revision=_revisions, *, local=False):
    rule = rules.map(_acceptable) if local else rules
    return st.builds(
        HostView,
        revision=revision.map(Revision),
        endpoints=st.just(()) if local else st.lists(endpoints(), max_size=3, unique_by=_place).map(_in_order),
        rules=st.dictionaries(
            st.sampled_from(GROUPS), st.lists(rule, max_size=4, unique_by=lambda rule: rule.id).map(tuple)
        ).map(MappingProxyType),
        peers=st.fixed_dictionaries(dict.fromkeys(GROUPS, peers)).map(MappingProxyType),
    )


def local_views():
    """Views whose instances a, b, c sit on the ports that ``PORTS`` names, each at most once."""
    each = [endpoints(st.just(InterfaceName(port)), st.just(port.removeprefix("veth-"))) | st.none() for port in PORTS]
    return st.tuples(*each, views(st.just(0), local=True)).map(
        lambda drawn: HostView(
            drawn[3].revision, tuple(end for end in drawn[:3] if end), drawn[3].rules, drawn[3].peers
        )
    )


def instance(name):
    return InstanceId(UUID(int=sum(name.encode()) << 64))


def endpoint(name, *groups, addresses=None):
    """Instance ``name`` on ``veth-NAME`` with one address of each family made of its first letter."""
    number = ord(name[0])
    own = (IPv4Address(f"10.77.0.{number}"), IPv6Address(f"fd77::{number:x}"))
    return Endpoint(instance(name), name, InterfaceName(f"veth-{name}"), addresses or own, None, tuple(sorted(groups)))


def ingress(port, peer="0.0.0.0/0", number=1):
    """A TCP rule; ``peer`` is a network or a group's id."""
    named = parse_cidr(peer, field="peer") if isinstance(peer, str) else GroupPeer(peer)
    return Rule(RuleId(UUID(int=number)), Direction.INGRESS, Protocol.TCP, named, start_port=port)


def view(revision, *endpoints, rules=None, peers=None):
    return HostView(
        Revision(revision),
        tuple(sorted(endpoints, key=lambda end: end.interface)),
        MappingProxyType(rules or {}),
        MappingProxyType(peers or {}),
    )
