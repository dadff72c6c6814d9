"""What exists: groups with rules and external sources, instances with interfaces, hosts, operations.

Immutable. Everything carries its organisation. Order of rules, sources and worn groups is the order in which they came.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final

from ringfence.policy.quota import DEFAULT_LIMITS, Quota
from ringfence.policy.values import (
    ALL_PORTS,
    Address,
    Cidr,
    Direction,
    GroupId,
    HostName,
    Icmp,
    InstanceId,
    InterfaceName,
    Kind,
    Mac,
    Network,
    OperationId,
    OrganisationId,
    Ports,
    Protocol,
    Revision,
    RuleId,
    Visibility,
)


@dataclass(frozen=True, slots=True)
class GroupPeer:
    """The other side of a rule is a group: its members' addresses and its external sources."""

    group: GroupId


Peer = Cidr | GroupPeer


@dataclass(frozen=True, slots=True)
class Rule:
    """One allow rule. ``start_port``, ``end_port`` and ``icmp`` are kept as given: the API echoes them.

    ``expires_at`` (seconds since the epoch) is when the server deletes it, None for never; hosts know nothing of it,
    and two rules that differ in nothing else are equal.
    """

    id: RuleId
    direction: Direction
    protocol: Protocol
    peer: Peer
    start_port: int | None = None
    end_port: int | None = None
    icmp: Icmp | None = None
    description: str | None = None
    expires_at: int | None = field(default=None, compare=False)

    @property
    def ports(self) -> Ports:
        """The destination ports meant: all when none is given, a single one when only one is."""
        first = self.start_port if self.start_port is not None else self.end_port
        if first is None:
            return ALL_PORTS
        return Ports(first, self.end_port if self.end_port is not None else first)

    def __hash__(self) -> int:
        """Of the id alone, which no other rule has: cheap, because rules are put into sets by the thousand."""
        return hash(self.id.int)

    def same_as(self, other: "Rule") -> bool:
        """Whether both rules say the same in every field but the id."""
        return _without_id(self) == _without_id(other)


def _without_id(rule: Rule) -> tuple[object, ...]:
    return (
        rule.direction,
        rule.protocol,
        rule.peer,
        rule.start_port,
        rule.end_port,
        rule.icmp,
        rule.description,
    )


@dataclass(frozen=True, slots=True)
class Group:
    """A named set of allow rules; also a set of addresses (members, external sources) that rules may name as peer."""

    id: GroupId
    organisation: OrganisationId
    name: str
    description: str | None = None
    visibility: Visibility = Visibility.PRIVATE
    rules: tuple[Rule, ...] = ()
    sources: tuple[Cidr, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerAddresses:
    """The addresses that a group stands for as a peer: its members' and its external sources. Empty means nobody."""

    members: AbstractSet[Address] = frozenset()
    sources: frozenset[Network] = frozenset()

    def __contains__(self, address: Address) -> bool:
        return address in self.members or any(address in source for source in self.sources)


NOBODY: Final = PeerAddresses()


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface of an instance on its host; only managed ones are filtered and contribute members."""

    name: InterfaceName
    addresses: tuple[Address, ...]
    mac: Mac | None = None
    managed: bool = True
    kind: Kind = Kind.ROUTED


@dataclass(frozen=True, slots=True)
class Instance:
    """Something that wears groups, i.e. is attached to them. ``host`` is None while no agent's inventory names it.

    ``bound_to`` is the first host that claimed it: no other may, so that a host cannot take over another's memberships.
    ``observe``: nothing of it is dropped, only logged.
    """

    id: InstanceId
    organisation: OrganisationId
    name: str
    host: HostName | None
    interfaces: tuple[Interface, ...]
    groups: tuple[GroupId, ...] = ()
    realm: str = "default"
    created_at: int = 0  # seconds since the epoch
    observe: bool = False
    bound_to: HostName | None = None

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses that it brings as a member into its groups: those of its managed interfaces."""
        return tuple(address for interface in self.interfaces if interface.managed for address in interface.addresses)


@dataclass(frozen=True, slots=True)
class Invitation:
    """What lets a host join once: the SHA-256 of a secret, valid until ``expires_at`` (seconds since the epoch)."""

    secret_hash: bytes
    expires_at: int
    used: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """A machine with an agent; ``public_key`` is its raw Ed25519 key (32 bytes), empty until it has joined."""

    name: HostName
    organisation: OrganisationId
    public_key: bytes
    created_at: int = 0
    invitation: Invitation | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """The change that made ``revision`` is undone at ``ends_at`` (seconds since the epoch), unless it is confirmed."""

    revision: Revision
    ends_at: int


@dataclass(frozen=True, slots=True)
class Organisation:
    """The owner of groups, instances, keys and hosts; ``default_group`` is worn by an instance born without groups.

    ``limits`` are those that an operator set in place of the defaults, ``assertions`` what every change must keep true.
    ``trial`` is the change that waits to be confirmed.
    """

    id: OrganisationId
    name: str
    default_group: GroupId
    limits: Mapping[Quota, int] = field(default_factory=lambda: MappingProxyType({}))
    assertions: tuple[str, ...] = ()
    trial: Trial | None = None

    def limit(self, quota: Quota) -> int:
        """The organisation's limit for ``quota``; -1 for unlimited."""
        return self.limits.get(quota, DEFAULT_LIMITS[quota])


class OperationState(Enum):
    """Where an operation stands (openapi.json, operation.state)."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"
    TIMEOUT = "timeout"


class OperationReason(Enum):
    """Why an operation failed (openapi.json, operation.reason)."""

    BUSY = "busy"
    CONFLICT = "conflict"
    FAULT = "fault"
    FORBIDDEN = "forbidden"
    INCORRECT = "incorrect"
    INTERRUPTED = "interrupted"
    NOT_FOUND = "not-found"
    PARTIAL = "partial"
    UNAVAILABLE = "unavailable"
    UNKNOWN = "unknown"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Operation:
    """What has become of one accepted change: ``group`` is what the API refers to, ``revision`` what hosts must apply.

    ``revision`` is None when the change changed nothing. ``hosts`` are those that the revision touched when committed.
    """

    id: OperationId
    organisation: OrganisationId
    group: GroupId
    revision: Revision | None
    state: OperationState
    reason: OperationReason | None = None
    message: str | None = None
    hosts: frozenset[HostName] = frozenset()
    created_at: int = 0


__all__ = [
    "NOBODY",
    "Group",
    "GroupPeer",
    "Host",
    "Instance",
    "Interface",
    "Operation",
    "OperationReason",
    "OperationState",
    "Organisation",
    "Peer",
    "PeerAddresses",
    "Rule",
    "Trial",
]
