"""PURE: an Exoscale account's answers -> a policy document (openapi.json: list-security-groups, list-instances)."""

from collections import Counter
from collections.abc import Mapping

import msgspec

from ringfence.policy.commands import GroupReference, RuleDraft
from ringfence.policy.desired import DesiredGroup, DesiredInstance, Document
from ringfence.policy.errors import Invalid
from ringfence.policy.values import Cidr, Direction, Icmp, Protocol, Visibility, parse_address, parse_cidr
from ringfence.wire.decode import convert, parse_choice


class _Shape(msgspec.Struct, frozen=True, rename="kebab"):
    """A part of an answer; fields that do not affect who may talk to whom are ignored."""


class _Reference(_Shape, frozen=True):
    id: str | None = None
    name: str | None = None
    visibility: str | None = None


class _Icmp(_Shape, frozen=True):
    type: int | None = None
    code: int | None = None


class _Rule(_Shape, frozen=True):
    flow_direction: str
    protocol: str
    network: str | None = None
    security_group: _Reference | None = None
    start_port: int | None = None
    end_port: int | None = None
    icmp: _Icmp | None = None
    description: str | None = None


class _Group(_Shape, frozen=True):
    name: str
    id: str | None = None
    description: str | None = None
    external_sources: tuple[str, ...] = ()
    rules: tuple[_Rule, ...] = ()


class _Groups(_Shape, frozen=True):
    security_groups: tuple[_Group, ...] = ()


class _Instance(_Shape, frozen=True):
    id: str
    name: str
    security_groups: tuple[_Reference, ...] = ()
    public_ip: str | None = None
    ipv6_address: str | None = None


class _Instances(_Shape, frozen=True):
    instances: tuple[_Instance, ...] = ()


def read_exoscale(private: object, public: object, instances: object) -> Document:
    """The account: its groups, the public groups that its rules name, and its instances with their public addresses.

    Raises:
        Invalid: an answer is not one of that API; the field is its path.
    """
    groups = convert(private, _Groups).security_groups
    names = {group.id: group.name for group in groups if group.id is not None}
    own = [_group(group, Visibility.PRIVATE, names) for group in groups]
    named = {
        rule.peer.name
        for group in own
        for rule in group.rules
        if isinstance(rule.peer, GroupReference) and rule.peer.visibility is Visibility.PUBLIC
    }
    others = [one for one in convert(public, _Groups).security_groups if one.name in named]
    listed = convert(instances, _Instances).instances
    count = Counter(one.name for one in listed)
    return Document(
        (*own, *(_group(one, Visibility.PUBLIC, names) for one in others)),
        tuple(_instance(one, names, is_unique=count[one.name] == 1) for one in listed),
    )


def _group(group: _Group, visibility: Visibility, names: Mapping[str, str]) -> DesiredGroup:
    at = f"$.{group.name}"
    return DesiredGroup(
        group.name,
        group.description or None,
        visibility,
        tuple(parse_cidr(text, field=f"{at}.external-sources[{n}]") for n, text in enumerate(group.external_sources)),
        tuple(_rule(rule, names, f"{at}.rules[{n}]") for n, rule in enumerate(group.rules)),
    )


def _rule(rule: _Rule, names: Mapping[str, str], at: str) -> RuleDraft:
    return RuleDraft(
        parse_choice(rule.flow_direction, Direction, field=f"{at}.flow-direction"),
        parse_choice(rule.protocol, Protocol, field=f"{at}.protocol"),
        _peer(rule, names, at),
        rule.start_port,
        rule.end_port,
        None if rule.icmp is None else Icmp(rule.icmp.type, rule.icmp.code),
        rule.description or None,
    )


def _peer(rule: _Rule, names: Mapping[str, str], at: str) -> Cidr | GroupReference:
    if rule.network is not None:
        return parse_cidr(rule.network, field=f"{at}.network")
    peer = rule.security_group
    if peer is not None and peer.id is not None and peer.id in names:
        return GroupReference(None, names[peer.id])
    if peer is not None and peer.name:
        return GroupReference(None, peer.name, Visibility.PUBLIC)
    raise Invalid("expected a network, or a group that is listed", field=at)


def _instance(one: _Instance, names: Mapping[str, str], *, is_unique: bool) -> DesiredInstance:
    addresses = [text for text in (one.public_ip, one.ipv6_address) if text]
    worn = [names[group.id] for group in one.security_groups if group.id is not None and group.id in names]
    return DesiredInstance(
        one.name if is_unique else one.id,
        tuple(sorted(worn)),
        tuple(parse_address(text, field=f"$.{one.name}") for text in addresses),
    )
