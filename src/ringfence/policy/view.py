"""What one host needs to enforce: its endpoints, the rules of the groups they wear, the addresses of the rules' peers.

``resolve_view`` without a host gives the view of a host that would run every instance; ``verdict`` and ``explain``
judge by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from types import MappingProxyType

from ringfence.policy.model import GroupPeer, Instance, PeerAddresses, Rule
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import (
    Address,
    GroupId,
    HostName,
    InstanceId,
    InterfaceName,
    Kind,
    Mac,
    Revision,
    link_local,
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One managed interface of one instance, with its addresses and the groups it wears (sorted by id)."""

    instance: InstanceId
    name: str
    interface: InterfaceName
    addresses: tuple[Address, ...]
    mac: Mac | None
    groups: tuple[GroupId, ...]
    kind: Kind = Kind.ROUTED
    observe: bool = False  # nothing is dropped, only logged

    @property
    def own_addresses(self) -> tuple[Address, ...]:
        """The source addresses it may use: the declared ones, and the link-local one that follows from its MAC."""
        return (*self.addresses, link_local(self.mac)) if self.mac else self.addresses

    @property
    def has_open_link_local(self) -> bool:
        """Whether any link-local source is let through, because its own was not declared and no MAC gives it."""
        return self.mac is None and not any(
            isinstance(address, IPv6Address) and address.is_link_local for address in self.addresses
        )


@dataclass(frozen=True, slots=True)
class HostView:
    """``rules`` has every group that an endpoint wears, ``peers`` every group that one of those rules names.

    ``endpoints`` are sorted by interface and instance.
    """

    revision: Revision
    endpoints: tuple[Endpoint, ...] = ()
    rules: Mapping[GroupId, tuple[Rule, ...]] = field(default_factory=lambda: MappingProxyType({}))
    peers: Mapping[GroupId, PeerAddresses] = field(default_factory=lambda: MappingProxyType({}))


def resolve_view(snapshot: Snapshot, host: HostName | None = None) -> HostView:
    """The view of ``host`` at the snapshot's revision, or of everything when ``host`` is None.

    O(the host's instances + the rules they wear): what a peer means is kept in the snapshot's index.
    """
    index = index_of(snapshot)
    worn_here = snapshot.instances.values() if host is None else index.on(host)
    endpoints = sorted(
        (endpoint for instance in worn_here for endpoint in endpoints_of(instance)),
        key=lambda endpoint: (endpoint.interface, endpoint.instance),
    )
    worn = sorted({group for endpoint in endpoints for group in endpoint.groups})
    rules = {group: snapshot.groups[group].rules for group in worn if group in snapshot.groups}
    named = {rule.peer.group for group in rules.values() for rule in group if isinstance(rule.peer, GroupPeer)}
    peers = {group: index.peer(group) for group in sorted(named)}
    return HostView(snapshot.revision, tuple(endpoints), MappingProxyType(rules), MappingProxyType(peers))


def endpoints_of(instance: Instance) -> list[Endpoint]:
    """The endpoints of an instance: one for each managed interface."""
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


__all__ = ["Endpoint", "HostView", "PeerAddresses", "endpoints_of", "resolve_view"]
