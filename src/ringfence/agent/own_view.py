"""The part of the server's view that this host enforces: what its own inventory declares, too.

Pure. Input: views and inventories as values. Output: views.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from ringfence.agent.inventory import Inventory
from ringfence.policy.commands import InstanceClaim
from ringfence.policy.evolving import common_ends
from ringfence.policy.model import GroupPeer, Interface
from ringfence.policy.values import InterfaceName
from ringfence.policy.view import Endpoint, HostView


class OwnPart:
    """Reduces the server's view to what this host enforces: endpoints that its own present inventory declares.

    An endpoint keeps only the addresses that are declared here too, and the MAC address that is declared here, so that
    what is taken out of the inventory is closed at once, whatever the server says and whether it can be reached or not.
    """

    def __init__(self) -> None:
        self._inventory: Inventory | None = None
        self._declared: dict[InterfaceName, tuple[InstanceClaim, Interface]] = {}
        self._endpoints: tuple[Endpoint, ...] = ()
        self._parts: tuple[Endpoint | None, ...] = ()  # of each endpoint; None: not declared here
        self._kept: tuple[Endpoint, ...] = ()

    def keep(self, view: HostView, inventory: Inventory) -> HostView:
        """The part of ``view`` to enforce. Constant time while endpoints and inventory are the same objects."""
        if inventory is not self._inventory:
            self._declare(inventory)
        if view.endpoints is not self._endpoints:
            self._keep(view.endpoints)
        own = replace(view, endpoints=self._kept)
        # The server sends the groups that its endpoints wear, and no others.
        return own if len(self._kept) == len(view.endpoints) else only_worn(own)

    def _declare(self, inventory: Inventory) -> None:
        self._declared = {
            interface.name: (claim, interface)
            for claim in inventory.instances
            for interface in claim.interfaces
            if interface.managed
        }
        self._inventory, self._endpoints, self._parts, self._kept = inventory, (), (), ()

    def _keep(self, endpoints: tuple[Endpoint, ...]) -> None:
        first, last = common_ends(self._endpoints, endpoints)
        before = slice(first, len(self._endpoints) - last)
        known = {id(one): part for one, part in zip(self._endpoints[before], self._parts[before], strict=True)}
        parts = tuple(
            known[id(one)] if id(one) in known else _own_part(one, self._declared)
            for one in endpoints[first : len(endpoints) - last]
        )
        self._parts = (*self._parts[:first], *parts, *self._parts[before.stop :])
        self._kept = tuple(filter(None, self._parts))
        self._endpoints = endpoints


def only_worn(view: HostView) -> HostView:
    """The view without the groups that none of its endpoints wears, and without peers that no rule names any more."""
    worn = {group for endpoint in view.endpoints for group in endpoint.groups}
    rules = {group: rules for group, rules in view.rules.items() if group in worn}
    named = {rule.peer.group for listed in rules.values() for rule in listed if isinstance(rule.peer, GroupPeer)}
    peers = {group: peer for group, peer in view.peers.items() if group in named}
    return replace(view, rules=MappingProxyType(rules), peers=MappingProxyType(peers))


def _own_part(endpoint: Endpoint, declared: Mapping[InterfaceName, tuple[InstanceClaim, Interface]]) -> Endpoint | None:
    claim, interface = declared.get(endpoint.interface, (None, None))
    if claim is None or interface is None or not _is_same(claim, endpoint):
        return None
    addresses = tuple(address for address in endpoint.addresses if address in interface.addresses)
    return replace(endpoint, addresses=addresses, mac=interface.mac, kind=interface.kind)


def _is_same(claim: InstanceClaim, endpoint: Endpoint) -> bool:
    """Whether both mean one instance: by its id where the inventory gives one, else by its name."""
    return claim.id == endpoint.instance if claim.id is not None else claim.name == endpoint.name
