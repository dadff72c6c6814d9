"""An organisation's policy -> the document of a policy file.

Everything is by name and sorted, so that equal policies give equal files, whatever their history.
"""

from collections import Counter
from typing import Final

from ringfence.policy.commands import GroupReference, RuleDraft
from ringfence.policy.desired import DesiredGroup, DesiredInstance, Document
from ringfence.policy.model import Group, GroupPeer, Instance, Rule
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import Cidr, Direction, Icmp, Kind, OrganisationId, Protocol, Visibility

_PROTOCOLS: Final = {protocol: number for number, protocol in enumerate(Protocol)}
_DIRECTIONS: Final = {direction: number for number, direction in enumerate(Direction)}
_ANY: Final = -1


def document_of(snapshot: Snapshot, organisation: OrganisationId) -> Document:
    """All groups and instances of the organisation, and the public groups of others that its rules name.

    Rules that differ only in spelling, and sources of the same network, appear once. Rules with an expiry are left
    out, because a file cannot say it, and so are rules whose peer group does not exist: they match nobody.
    """
    groups = [group for group in snapshot.groups.values() if group.organisation == organisation]
    named = {rule.peer.group for group in groups for rule in group.rules if isinstance(rule.peer, GroupPeer)}
    foreign = [snapshot.groups[id_] for id_ in named if id_ in snapshot.groups]
    groups += [group for group in foreign if group.organisation != organisation]
    instances = [one for one in snapshot.instances.values() if one.organisation == organisation]
    names = Counter(one.name for one in instances)
    shown_instances = (_instance(snapshot, one, is_unique=names[one.name] == 1) for one in instances)
    return Document(
        tuple(desired_group(snapshot, group) for group in sorted(groups, key=_order)),
        tuple(sorted(shown_instances, key=lambda one: one.name)),
    )


def draft_of(snapshot: Snapshot, rule: Rule) -> RuleDraft:
    """A rule by names, in canonical spelling, except that a network keeps the spelling it was written in."""
    ports = rule.ports
    is_narrow = rule.start_port is not None or rule.end_port is not None
    return RuleDraft(
        direction=rule.direction,
        protocol=rule.protocol,
        peer=_peer(snapshot, rule),
        start_port=ports.first if is_narrow else None,
        end_port=ports.last if is_narrow else None,
        icmp=plain_icmp(rule.icmp),
        description=rule.description or None,
    )


def plain_icmp(icmp: Icmp | None) -> Icmp | None:
    """The canonical spelling: None for any type, and a code only where it narrows."""
    if icmp is None or icmp.any_type:
        return None
    return Icmp(icmp.type, None if icmp.any_code else icmp.code)


def _peer_text(draft: RuleDraft) -> str:
    """The sort key by which one of several spellings of a network is kept: the first."""
    return draft.peer.text if isinstance(draft.peer, Cidr) else draft.peer.name or ""


def _is_said(snapshot: Snapshot, rule: Rule) -> bool:
    return rule.expires_at is None and (not isinstance(rule.peer, GroupPeer) or rule.peer.group in snapshot.groups)


def _peer(snapshot: Snapshot, rule: Rule) -> Cidr | GroupReference:
    if isinstance(rule.peer, Cidr):
        return rule.peer
    group = snapshot.groups[rule.peer.group]
    return GroupReference(None, group.name, group.visibility)


def _order(group: Group) -> tuple[bool, str]:
    """Private groups before public ones, each by name."""
    return group.visibility is Visibility.PUBLIC, group.name


def desired_group(snapshot: Snapshot, group: Group) -> DesiredGroup:
    """A group with its rules and sources in canonical spelling and order."""
    rules = (draft_of(snapshot, rule) for rule in group.rules if _is_said(snapshot, rule))
    drafts = {meaning_of(draft): draft for draft in sorted(rules, key=_peer_text, reverse=True)}
    sources = {source.network: source for source in sorted(group.sources, key=lambda one: one.text, reverse=True)}
    return DesiredGroup(
        group.name,
        group.description or None,
        group.visibility,
        tuple(sources[network] for network in sorted(sources, key=lambda one: (one.version, one))),
        tuple(drafts[meaning] for meaning in sorted(drafts)),
    )


def meaning_of(draft: RuleDraft) -> tuple[int | str, ...]:
    """A key that is equal for rules of equal meaning, and sorts rules as files do. Its last part is the description."""
    icmp = plain_icmp(draft.icmp) or Icmp(None, None)
    first = draft.start_port if draft.start_port is not None else draft.end_port
    last = draft.end_port if draft.end_port is not None else first
    return (
        _DIRECTIONS[draft.direction],
        _PROTOCOLS[draft.protocol],
        *(_ANY if number is None else number for number in (first, last, icmp.type, icmp.code)),
        *_peer_words(draft.peer),
        draft.description or "",
    )


def _peer_words(peer: Cidr | GroupReference) -> tuple[int | str, ...]:
    """Networks before groups."""
    if isinstance(peer, Cidr):
        network = peer.network
        return 0, network.version, f"{int(network.network_address):032x}/{network.prefixlen:03}"
    return 1, int(peer.visibility is Visibility.PUBLIC), peer.name or ""


def _instance(snapshot: Snapshot, one: Instance, *, is_unique: bool) -> DesiredInstance:
    """Named by its id where its name is not unique: names are unique on one host only."""
    worn = worn_by(snapshot, one)
    kinds = {interface.kind for interface in one.interfaces if interface.managed}
    is_host = Kind.SELF in kinds
    return DesiredInstance(
        one.name if is_unique else str(one.id),
        worn[Visibility.PRIVATE],
        one.addresses,
        one.host,
        one.observe if one.observe or is_host else None,
        Kind.SELF if is_host else Kind.ROUTED,
        worn[Visibility.PUBLIC],
    )


def worn_by(snapshot: Snapshot, one: Instance) -> dict[Visibility, tuple[str, ...]]:
    """The names of the private and of the public groups that it wears, in order."""
    worn = [snapshot.groups[id_] for id_ in one.groups if id_ in snapshot.groups]
    return {kind: tuple(sorted(group.name for group in worn if group.visibility is kind)) for kind in Visibility}
