"""The content of a policy file: groups with rules and sources, and the instances that wear them, all by name.

``snapshot_of`` turns it into a snapshot, so that questions can be asked of a file without a server.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from uuid import UUID, uuid5

from ringfence.policy.commands import GroupReference, RuleDraft
from ringfence.policy.errors import Invalid, NotFound
from ringfence.policy.model import Group, GroupPeer, Instance, Interface, Organisation, Rule
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import (
    Address,
    Cidr,
    Direction,
    GroupId,
    HostName,
    InstanceId,
    InterfaceName,
    Kind,
    OrganisationId,
    Revision,
    RuleId,
    Visibility,
)
from ringfence.policy.wording import shown, suggestion

DEFAULT: Final = "default"
GROUPS: Final = {Visibility.PRIVATE: "groups", Visibility.PUBLIC: "public-groups"}  # the keys of a file
PEER_WAY: Final = {Direction.INGRESS: "from", Direction.EGRESS: "to"}  # the key of a rule's peer in a file
GroupKey = tuple[Visibility, str]  # visibility and name: names are unique among the groups of one visibility
DEFAULT_KEY: Final[GroupKey] = (Visibility.PRIVATE, DEFAULT)
_NAMES: Final = UUID("5f6c0f0e-6f38-5c1c-9d3b-3d4c2b1a9e77")  # namespace of the ids that are made of a file's names


@dataclass(frozen=True, slots=True)
class DesiredGroup:
    """A group of a file; a rule's peer group is referred to by name alone."""

    name: str
    description: str | None = None
    visibility: Visibility = Visibility.PRIVATE
    sources: tuple[Cidr, ...] = ()
    rules: tuple[RuleDraft, ...] = ()

    @property
    def key(self) -> GroupKey:
        return self.visibility, self.name

    @property
    def field(self) -> str:
        """Its path in a file."""
        return f"$.{GROUPS[self.visibility]}.{self.name}"


@dataclass(frozen=True, slots=True)
class DesiredInstance:
    """An instance of a file, which wears ``groups`` and ``public_groups``.

    ``groups`` None: the file leaves what the instance wears as it is; ``observe`` None likewise. A server learns
    addresses, host and kind from the hosts; they stand here for questions asked of the file alone.
    """

    name: str
    groups: tuple[str, ...] | None = None
    addresses: tuple[Address, ...] = ()
    host: HostName | None = None
    observe: bool | None = None
    kind: Kind = Kind.ROUTED
    public_groups: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        """Its path in a file."""
        return f"$.instances.{self.name}"

    @property
    def worn(self) -> dict[str, GroupKey]:
        """The key of each group that it wears, by the path in the file that names it."""
        lists = {Visibility.PRIVATE: self.groups or (), Visibility.PUBLIC: self.public_groups}
        return {
            f"{self.field}.{GROUPS[visibility]}[{n}]": (visibility, name)
            for visibility, names in lists.items()
            for n, name in enumerate(names)
        }


@dataclass(frozen=True, slots=True)
class Document:
    """A whole policy file; ``assertions`` as they are written."""

    groups: tuple[DesiredGroup, ...] = ()
    instances: tuple[DesiredInstance, ...] = ()
    assertions: tuple[str, ...] = ()


def rule_field(group: DesiredGroup, index: int) -> str:
    """The path in a file of a group's rule, which the file lists among the rules of its direction."""
    rule = group.rules[index]
    number = sum(one.direction is rule.direction for one in group.rules[:index])
    return f"{group.field}.{rule.direction.value}[{number}]"


def peer_field(group: DesiredGroup, index: int) -> str:
    """The path in a file of the peer of a group's rule."""
    return f"{rule_field(group, index)}.{PEER_WAY[group.rules[index].direction]}"


def snapshot_of(document: Document) -> Snapshot:
    """The policy that a file describes, as if nothing else existed. Ids follow from names: equal files, equal ids.

    Raises:
        NotFound: a rule or an instance names a group that the file has not; the text suggests the nearest.
        Invalid: two instances have one address.
    """
    organisation = OrganisationId(uuid5(_NAMES, "organisation"))
    named = document.groups
    if all(group.key != DEFAULT_KEY for group in named):
        named = (DesiredGroup(DEFAULT), *named)
    ids = {group.key: GroupId(uuid5(_NAMES, f"{group.visibility.value} {group.name}")) for group in named}
    groups = {ids[group.key]: _group(group, organisation, ids) for group in named}
    _require_free_addresses(document)
    instances = [_instance(one, organisation, ids) for one in document.instances]
    default = Organisation(organisation, "file", ids[DEFAULT_KEY])
    return Snapshot(
        revision=Revision(1),
        organisations=MappingProxyType({organisation: default}),
        groups=MappingProxyType(groups),
        instances=MappingProxyType({one.id: one for one in instances}),
    )


_Ids = dict[GroupKey, GroupId]


def _group(group: DesiredGroup, organisation: OrganisationId, ids: _Ids) -> Group:
    rules = tuple(_rule(group, index, ids) for index in range(len(group.rules)))
    return Group(
        ids[group.key],
        organisation,
        group.name,
        group.description,
        group.visibility,
        rules,
        group.sources,
    )


def _rule(group: DesiredGroup, index: int, ids: _Ids) -> Rule:
    draft = group.rules[index]
    if isinstance(draft.peer, GroupReference):
        key = (draft.peer.visibility, draft.peer.name or "")
        peer: Cidr | GroupPeer = GroupPeer(find_id(ids, key, peer_field(group, index)))
    else:
        peer = draft.peer
    return Rule(
        RuleId(uuid5(_NAMES, f"rule {index} of {group.visibility.value} {group.name}")),
        draft.direction,
        draft.protocol,
        peer,
        draft.start_port,
        draft.end_port,
        draft.icmp,
        draft.description,
    )


def _instance(one: DesiredInstance, organisation: OrganisationId, ids: _Ids) -> Instance:
    groups = tuple(find_id(ids, key, field) for field, key in one.worn.items())
    if one.groups is None:
        groups = (ids[DEFAULT_KEY],)
    interface = Interface(InterfaceName("eth0"), one.addresses, kind=one.kind)
    return Instance(
        id=InstanceId(uuid5(_NAMES, f"instance {one.name}")),
        organisation=organisation,
        name=one.name,
        host=one.host,
        interfaces=(interface,),
        groups=groups,
        observe=one.kind is Kind.SELF if one.observe is None else one.observe,  # as it is born
    )


def _require_free_addresses(document: Document) -> None:
    holders: dict[Address, str] = {}
    for one in document.instances:
        for index, address in enumerate(one.addresses):
            if address in holders:
                raise Invalid(
                    f"{address} is instance {shown(holders[address])}'s already",
                    field=f"{one.field}.addresses[{index}]",
                )
            holders[address] = one.name


def find_id(ids: Mapping[GroupKey, GroupId], key: GroupKey, field: str) -> GroupId:
    """The id of the group; raises ``NotFound``, which suggests the nearest name, when there is none."""
    if key in ids:
        return ids[key]
    visibility, name = key
    kind = "public group" if visibility is Visibility.PUBLIC else "group"
    known = (other for kept, other in ids if kept is visibility)
    raise NotFound(f"there is no {kind} {shown(name)}{suggestion(name, known)}", field=field)
