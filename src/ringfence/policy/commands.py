"""The changes that a caller may ask for, one type per changing operation of the API.

Their form has been checked, but not yet whether the present state permits them.

``wire`` decodes a request into one of these, ``control`` decides it over a snapshot.
"""

from dataclasses import dataclass
from uuid import UUID

from ringfence.policy.model import Interface
from ringfence.policy.values import (
    Address,
    Cidr,
    Direction,
    GroupId,
    Icmp,
    InstanceId,
    Kind,
    Protocol,
    RuleId,
    Visibility,
)


@dataclass(frozen=True, slots=True)
class GroupReference:
    """A peer group as a rule names it: a private one by id, a public one by name."""

    id: GroupId | None
    name: str | None
    visibility: Visibility = Visibility.PRIVATE


@dataclass(frozen=True, slots=True)
class RuleDraft:
    """A rule before it has an id; exactly one of network and group is the peer (checked when decoded)."""

    direction: Direction
    protocol: Protocol
    peer: Cidr | GroupReference
    start_port: int | None = None
    end_port: int | None = None
    icmp: Icmp | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class CreateGroup:
    name: str
    description: str | None = None
    visibility: Visibility = Visibility.PRIVATE


@dataclass(frozen=True, slots=True)
class DeleteGroup:
    group: GroupId


@dataclass(frozen=True, slots=True)
class AddRule:
    """``lasts_s`` is after how many seconds the rule is deleted again, None for never."""

    group: GroupId
    rule: RuleDraft
    lasts_s: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteRule:
    group: GroupId
    rule: RuleId


@dataclass(frozen=True, slots=True)
class AddSource:
    group: GroupId
    source: Cidr


@dataclass(frozen=True, slots=True)
class RemoveSource:
    group: GroupId
    source: Cidr


@dataclass(frozen=True, slots=True)
class Attach:
    group: GroupId
    instance: InstanceId


@dataclass(frozen=True, slots=True)
class Detach:
    group: GroupId
    instance: InstanceId


GroupCommand = CreateGroup | DeleteGroup | AddRule | DeleteRule | AddSource | RemoveSource | Attach | Detach


@dataclass(frozen=True, slots=True)
class InstanceClaim:
    """One instance as a host's inventory, or an operator, declares it; ``id`` None lets the server choose one."""

    name: str
    id: InstanceId | None
    interfaces: tuple[Interface, ...]
    realm: str = "default"

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses that would become members: those of managed interfaces."""
        return tuple(address for interface in self.interfaces if interface.managed for address in interface.addresses)

    @property
    def is_host(self) -> bool:
        """Whether it is the host itself, which a mistake in its groups must not make unreachable."""
        return any(interface.managed and interface.kind is Kind.SELF for interface in self.interfaces)


@dataclass(frozen=True, slots=True)
class ClaimInstances:
    """The whole inventory of the calling host: instances it had and no longer names lose their interfaces and host."""

    instances: tuple[InstanceClaim, ...]


@dataclass(frozen=True, slots=True)
class AddInstance:
    """An instance that an operator declares without a host, e.g. to develop against the API alone."""

    instance: InstanceClaim


@dataclass(frozen=True, slots=True)
class Observe:
    """Switches instances to observe (refused packets pass and are only logged) or back. Only an operator may."""

    instances: tuple[InstanceId, ...]
    observe: bool


@dataclass(frozen=True, slots=True)
class ReleaseInstance:
    """Lets another host claim an instance that is on none. Only an operator may."""

    instance: InstanceId


@dataclass(frozen=True, slots=True)
class RemoveInstance:
    """Forgets an instance that is on no host, for good. Only an operator may."""

    instance: InstanceId


InstanceCommand = AddInstance | Observe | ReleaseInstance | RemoveInstance


@dataclass(frozen=True, slots=True)
class Edit:
    """One command of a change that consists of several.

    What the command creates, if anything, gets the id ``new_id``, so that later edits can name it. ``field`` is the
    path in the caller's document that asks for the edit; a refusal names it.
    """

    command: GroupCommand | InstanceCommand
    new_id: UUID
    field: str | None = None
