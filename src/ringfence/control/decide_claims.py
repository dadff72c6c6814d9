"""The decision on a host's inventory: which of its claims are accepted. Pure.

A host is trusted with its own instances only: an id belongs to the first host that claimed it, and an address to one
instance of its realm. Otherwise a compromised host could join any group's members. Instances that no host has yet are
for hosts of their organisation, and for those of the first, which are the operator's own. A refused claim contributes
nothing, and does not keep the others from being accepted.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ringfence.control.decide_instances import born_instance
from ringfence.control.quotas import room_for_instances
from ringfence.policy.commands import ClaimInstances, InstanceClaim
from ringfence.policy.facts import Fact, InstanceCreated, InstanceObserved, InstancePlaced
from ringfence.policy.model import Host, Instance
from ringfence.policy.quota import Quota
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import Address, InstanceId, InterfaceName

# Membership does not consider realms: in a realm of its own a host could put another's address into every peer group.
_REALM: Final = "default"


@dataclass(frozen=True, slots=True)
class DecidedClaim:
    """The facts, the names and ids of accepted claims, and the names of refused ones with the reason."""

    facts: tuple[Fact, ...]
    accepted: tuple[tuple[str, InstanceId], ...]
    refused: tuple[tuple[str, str], ...]


def decide_claim(
    snapshot: Snapshot, command: ClaimInstances, host: Host, *, new_ids: Sequence[InstanceId], now_s: int
) -> DecidedClaim:
    """Decides the inventory of ``host``, claim by claim. O(its instances).

    ``new_ids`` has an id for each claim, for use if the claim has none and is a new instance's. Instances of the host
    that no accepted claim names lose host and interfaces, and keep id, name and groups.
    """
    ledger = _Ledger.of(snapshot, host, command)
    accepted, refused = [], []
    facts: list[Fact] = []
    for claim, new_id in sorted(zip(command.instances, new_ids, strict=True), key=ledger.precedence):
        id_ = ledger.identify(claim) or new_id
        reason = ledger.refusal(claim, id_)
        if reason:
            refused.append((claim.name, reason))
            continue
        ledger.accept(claim, id_)
        accepted.append((claim.name, id_))
        facts.extend(_place(snapshot, claim, id_, host, now_s))
    facts.extend(_release(instance) for instance in ledger.missing())
    return DecidedClaim(tuple(facts), tuple(accepted), tuple(refused))


@dataclass(slots=True)
class _Ledger:
    """What is taken (ids, names, interfaces, addresses) while the claims of one inventory are decided."""

    host: Host
    known: Mapping[InstanceId, Instance]
    own: tuple[Instance, ...]  # bound to this host: those that it runs first, then by age, the youngest first
    named: frozenset[InstanceId]  # ids that the inventory itself gives
    births: int  # how many new instances the quota still allows
    is_operators: bool  # the host is of the first organisation, and may run instances of every other
    addresses: dict[tuple[str, Address], Instance]  # the claimed addresses that instances of others have
    claimed: dict[tuple[str, Address], str] = field(default_factory=dict)
    interfaces: dict[InterfaceName, str] = field(default_factory=dict)
    ids: set[InstanceId] = field(default_factory=set)
    names: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, snapshot: Snapshot, host: Host, command: ClaimInstances) -> "_Ledger":
        index = index_of(snapshot)
        own = index.bound_to(host.name)
        own.sort(key=lambda instance: (instance.host is None, -instance.created_at, instance.id))
        taken = {
            (instance.realm, address): instance
            for claim in command.instances
            for address in claim.addresses
            for instance in index.holding(address)
            if instance.bound_to != host.name
        }
        named = frozenset(claim.id for claim in command.instances if claim.id is not None)
        births = room_for_instances(snapshot, host.organisation, len(command.instances))
        is_operators = host.organisation == next(iter(snapshot.organisations))
        return cls(host, snapshot.instances, tuple(own), named, births, is_operators, taken)

    def precedence(self, claim: tuple[InstanceClaim, InstanceId]) -> int:
        """The order of decision: claims of instances that are bound to no host come first.

        The addresses that these give up may be claimed by others, so the outcome does not depend on the order of the
        inventory, and is the same when it is sent again.
        """
        known = self.known.get(claim[0].id) if claim[0].id else None
        return 0 if known is not None and known.bound_to is None else 1

    def identify(self, claim: InstanceClaim) -> InstanceId | None:
        """The claim's own id, or that of this host's instance of the same name; None when it is new."""
        if claim.id is not None:
            return claim.id
        alike = (instance.id for instance in self.own if instance.name == claim.name and instance.id not in self.named)
        return next(alike, None)

    def refusal(self, claim: InstanceClaim, id_: InstanceId) -> str | None:
        """Why the claim is refused, or None."""
        if claim.realm != _REALM:
            return "realms other than default are not offered yet"
        if claim.name in self.names:
            return "another instance of this inventory has the same name"
        if id_ not in self.known and self.births == 0:
            return (
                f"the organisation's quota {Quota.INSTANCES.value} is reached: the operator of the server can raise it"
            )
        return self._refused_id(id_) or self._refused_interface(claim) or self._refused_address(claim, id_)

    def accept(self, claim: InstanceClaim, id_: InstanceId) -> None:
        for address in self.known[id_].addresses if id_ in self.known else ():
            self.addresses.pop((self.known[id_].realm, address), None)
        self.births -= id_ not in self.known
        self.ids.add(id_)
        self.names.add(claim.name)
        self.interfaces.update({interface.name: claim.name for interface in claim.interfaces})
        self.claimed.update({(claim.realm, address): claim.name for address in claim.addresses})

    def missing(self) -> Iterator[Instance]:
        """Instances that this host runs in the snapshot and that no accepted claim names."""
        return (instance for instance in self.own if instance.host is not None and instance.id not in self.ids)

    def _refused_id(self, id_: InstanceId) -> str | None:
        instance = self.known.get(id_)
        if id_ in self.ids:
            return f"another instance of this inventory has the same id {id_}"
        if instance is None or instance.bound_to == self.host.name:
            return None
        if instance.bound_to is None and (self.is_operators or instance.organisation == self.host.organisation):
            return None
        return f"id {id_} is another host's: the operator of the server can free it (ringfence instance release)"

    def _refused_interface(self, claim: InstanceClaim) -> str | None:
        times = Counter(interface.name for interface in claim.interfaces)
        for name in times:
            if name in self.interfaces:
                return f"interface {name} is claimed by instance {self.interfaces[name]} of this inventory"
            if times[name] > 1:
                return f"interface {name} is given twice"
        return None

    def _refused_address(self, claim: InstanceClaim, id_: InstanceId) -> str | None:
        times = Counter(claim.addresses)  # of a hostile host, tens of thousands
        for address in times:
            owner = self.addresses.get((claim.realm, address))
            if owner is not None and owner.id != id_:
                return f"address {address} belongs to another instance of realm {claim.realm}"
            if (claim.realm, address) in self.claimed:
                other = self.claimed[(claim.realm, address)]
                return f"address {address} is claimed by instance {other} of this inventory"
            if times[address] > 1:
                return f"address {address} is given twice"
        return None


def _place(snapshot: Snapshot, claim: InstanceClaim, id_: InstanceId, host: Host, now_s: int) -> tuple[Fact, ...]:
    known = snapshot.instances.get(id_)
    if known is None:
        born = born_instance(snapshot, claim, host.organisation, id_, host=host.name, now_s=now_s)
        return (InstanceCreated(born),)
    if (known.name, known.host, known.interfaces, known.realm) == (
        claim.name,
        host.name,
        claim.interfaces,
        claim.realm,
    ):
        return ()
    placed = InstancePlaced(id_, claim.name, host.name, claim.interfaces, claim.realm)
    # An instance that was only declared so far turns out to be a host: it starts observed, as a new host does.
    observed = claim.is_host and known.bound_to is None and not known.observe
    return (placed, InstanceObserved(id_, observe=True)) if observed else (placed,)


def _release(instance: Instance) -> InstancePlaced:
    return InstancePlaced(instance.id, instance.name, None, (), instance.realm)
