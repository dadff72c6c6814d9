"""What one host needs to enforce: its endpoints, the rules of the groups they wear, the addresses those rules name.

Pure resolution of a snapshot. ``resolve_view`` without a host is the view of a host that carries every instance: the
whole model, which ``verdict`` and ``explain`` judge by.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ringfence.policy.model import GroupPeer, Instance, Rule, Snapshot
from ringfence.policy.values import Address, GroupId, HostName, InstanceId, InterfaceName, Kind, Mac, Network, Revision


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One managed interface of one instance, with what may be sent from it and the groups it wears (sorted by id)."""

    instance: InstanceId
    name: str
    interface: InterfaceName
    addresses: tuple[Address, ...]
    mac: Mac | None
    groups: tuple[GroupId, ...]
    kind: Kind = Kind.ROUTED
    observe: bool = False  # nothing is dropped, and what would have been is told


@dataclass(frozen=True, slots=True)
class PeerAddresses:
    """What a group means as a peer: its members' addresses and its external sources. Empty means nobody."""

    members: frozenset[Address] = frozenset()
    sources: frozenset[Network] = frozenset()

    def __contains__(self, address: Address) -> bool:
        return address in self.members or any(address in source for source in self.sources)


@dataclass(frozen=True, slots=True)
class HostView:
    """``rules`` holds every group worn by an endpoint, ``peers`` every group that one of those rules names."""

    revision: Revision
    endpoints: tuple[Endpoint, ...] = ()
    rules: Mapping[GroupId, tuple[Rule, ...]] = field(default_factory=lambda: MappingProxyType({}))
    peers: Mapping[GroupId, PeerAddresses] = field(default_factory=lambda: MappingProxyType({}))

    def same_policy(self, other: "HostView") -> bool:
        """Whether a host would enforce the same by both; the revision alone does not count."""
        return replace(self, revision=other.revision) == other


def resolve_view(snapshot: Snapshot, host: HostName | None = None) -> HostView:
    """The view of ``host`` at the snapshot's revision, or of everything when ``host`` is None. O(instances + rules)."""
    worn_here = [instance for instance in snapshot.instances.values() if host is None or instance.host == host]
    endpoints = sorted(
        (endpoint for instance in worn_here for endpoint in _endpoints(instance)),
        key=lambda endpoint: (endpoint.interface, endpoint.instance),
    )
    worn = sorted({group for endpoint in endpoints for group in endpoint.groups})
    rules = {group: snapshot.groups[group].rules for group in worn if group in snapshot.groups}
    named = {rule.peer.group for group in rules.values() for rule in group if isinstance(rule.peer, GroupPeer)}
    members = resolve_members(snapshot, frozenset(named))
    return HostView(snapshot.revision, tuple(endpoints), MappingProxyType(rules), MappingProxyType(members))


def resolve_members(snapshot: Snapshot, groups: frozenset[GroupId]) -> dict[GroupId, PeerAddresses]:
    """The addresses of each of ``groups``; one that does not exist, or has none, is empty and so opens nothing."""
    members: dict[GroupId, set[Address]] = {group: set() for group in sorted(groups)}
    for instance in snapshot.instances.values():
        for group in instance.groups:
            if group in members:
                members[group].update(instance.addresses)
    sources = {
        group: frozenset(source.network for source in snapshot.groups[group].sources)
        for group in members
        if group in snapshot.groups
    }
    return {group: PeerAddresses(frozenset(found), sources.get(group, frozenset())) for group, found in members.items()}


def _endpoints(instance: Instance) -> list[Endpoint]:
    groups = tuple(sorted(instance.groups))
    return [
        Endpoint(
            instance.id,
            instance.name,
            interface.name,
            interface.addresses,
            interface.mac,
            groups,
            interface.kind,
            instance.observe,
        )
        for interface in instance.interfaces
        if interface.managed
    ]
