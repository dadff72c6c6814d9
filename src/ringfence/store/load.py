"""Rows -> the snapshot, the keys and the operations, when the store is opened.

One query per table, joined in memory; never one per row. A row that is not a value of the model is damage and raises an
error: half a policy is never served.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from ipaddress import ip_address
from itertools import islice
from sys import intern
from types import MappingProxyType
from typing import Final
from uuid import UUID

import msgspec

from ringfence.policy.model import (
    Group,
    GroupPeer,
    Host,
    Instance,
    Interface,
    Invitation,
    Operation,
    OperationReason,
    OperationState,
    Organisation,
    Rule,
    Trial,
)
from ringfence.policy.quota import Quota
from ringfence.policy.snapshot import Snapshot, indexed
from ringfence.policy.values import (
    Cidr,
    Direction,
    GroupId,
    HostName,
    Icmp,
    InstanceId,
    InterfaceName,
    KeyId,
    Kind,
    Mac,
    OperationId,
    OrganisationId,
    Protocol,
    Revision,
    RuleId,
    Visibility,
    parse_cidr,
)
from ringfence.store.database import Database, Values
from ringfence.store.decision import StoredKey
from ringfence.store.seal import label_of, label_of_previous, unseal

MAX_OPERATIONS: Final = 10_000  # how many of the newest operations can still be asked for, settled or not

# The placeholder is how many of the newest to load; pending ones are loaded in any case.
_OPERATIONS: Final = """
    WITH kept AS (
        SELECT id FROM operation WHERE state = 'pending'
        UNION SELECT id FROM (SELECT id FROM operation ORDER BY position DESC LIMIT ?) AS newest
    )
    SELECT o.id, o.organisation, security_group, revision, state, reason, message, created_at, touched, offline
    FROM operation AS o JOIN kept USING (id) LEFT JOIN revision ON number = revision ORDER BY position
"""
_NEWEST_OF_SETS: Final = "SELECT touched, max(number) FROM revision WHERE touched IS NOT NULL GROUP BY touched"

_AT_ONCE: Final = 10_000  # ids that are converted by one call

_HostSets = dict[str | None, frozenset[HostName]]


@dataclass(frozen=True, slots=True)
class StoredOperation:
    """An operation, and those of its hosts that were offline, for which it does not wait."""

    operation: Operation
    offline: frozenset[HostName]

    @property
    def awaited(self) -> frozenset[HostName]:
        return self.operation.hosts - self.offline


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything that the store keeps in memory. ``wanted``: the newest revision that touched each host."""

    snapshot: Snapshot
    wanted: Mapping[HostName, Revision]
    keys: tuple[StoredKey, ...]
    operations: tuple[StoredOperation, ...]


def load(database: Database, seal_key: bytes) -> Loaded:
    """The whole store. O(rows)."""
    sets = _load_host_sets(database)
    return Loaded(
        snapshot=load_snapshot(database),
        wanted=_load_wanted(database, sets),
        keys=load_keys(database, seal_key),
        operations=_load_operations(database, sets),
    )


def load_snapshot(database: Database) -> Snapshot:
    """The policy at its newest revision."""
    ((revision,),) = database.query("SELECT coalesce(max(number), 0) FROM revision")
    return indexed(
        Snapshot(
            revision=Revision(revision),
            organisations=_load_organisations(database),
            groups=_load_groups(database),
            instances=_load_instances(database),
            hosts=_load_hosts(database),
        )
    )


def has_keys(database: Database) -> bool:
    """Whether the store holds secrets, so that it needs its seal key."""
    return bool(list(database.query("SELECT 1 FROM api_key LIMIT 1")))


def _load_organisations(database: Database) -> Mapping[OrganisationId, Organisation]:
    limits: dict[str, dict[Quota, int]] = defaultdict(dict)
    for id_, quota, amount in database.query("SELECT organisation, quota, amount FROM organisation_limit"):
        limits[id_][Quota(quota)] = amount
    assertions: dict[str, list[str]] = defaultdict(list)
    for id_, text in database.query("SELECT organisation, text FROM assertion ORDER BY organisation, place"):
        assertions[id_].append(text)
    found = {}
    for id_, name, default, tried, ends_at in database.query(
        "SELECT id, name, default_group, trial_revision, trial_ends_at FROM organisation"
        " WHERE removed_at IS NULL ORDER BY position"
    ):
        organisation, own = OrganisationId(UUID(id_)), MappingProxyType(limits[id_])
        trial = None if tried is None else Trial(Revision(tried), ends_at)
        held = tuple(assertions[id_])
        found[organisation] = Organisation(organisation, name, GroupId(UUID(default)), own, held, trial)
    return MappingProxyType(found)


def _load_groups(database: Database) -> Mapping[GroupId, Group]:
    rules, sources = _load_rules(database), _load_sources(database)
    found = {}
    for id_, (text, organisation, name, description, visibility) in _by_id(
        database.query(
            "SELECT g.id, g.organisation, g.name, g.description, g.visibility FROM security_group AS g"
            " JOIN organisation AS o ON o.id = g.organisation WHERE o.removed_at IS NULL ORDER BY g.position"
        )
    ):
        group = GroupId(id_)
        found[group] = Group(
            id=group,
            organisation=_organisation(organisation),
            name=name,
            description=description,
            visibility=Visibility(visibility),
            rules=tuple(rules[text]),
            sources=tuple(sources[text]),
        )
    return MappingProxyType(found)


def _load_rules(database: Database) -> dict[str, list[Rule]]:
    found: dict[str, list[Rule]] = defaultdict(list)
    for id_, row in _by_id(
        database.query(
            "SELECT id, security_group, direction, protocol, network, peer_group, start_port, end_port,"
            " icmp, icmp_type, icmp_code, description, expires_at FROM rule ORDER BY position"
        )
    ):
        _, group, direction, protocol, network, peer, start, end, icmp, icmp_type, icmp_code, description, at = row
        found[group].append(
            Rule(  # positional arguments take two thirds of the time
                RuleId(id_),
                _direction(direction),
                _protocol(protocol),
                _group_peer(peer) if network is None else _rule_network(network),
                start,
                end,
                Icmp(icmp_type, icmp_code) if icmp else None,
                description,
                at,
            )
        )
    return found


def _by_id(rows: Iterable[Values]) -> Iterator[tuple[UUID, Values]]:
    """Each row with its first column as an id. Converted one by one, ids would take as long as all else of a rule."""
    rows = iter(rows)
    while some := list(islice(rows, _AT_ONCE)):
        try:
            ids = msgspec.convert([row[0] for row in some], list[UUID])
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error
        yield from zip(ids, some, strict=True)


_direction: Final = cache(Direction)
_protocol: Final = cache(Protocol)


@lru_cache(maxsize=100_000)
def _group_peer(text: str) -> GroupPeer:
    """One object for all equal ones, as below: many rules name few groups and few networks."""
    return GroupPeer(GroupId(UUID(text)))


@lru_cache(maxsize=10_000)
def _rule_network(text: str) -> Cidr:
    return parse_cidr(text, field="rule.network")


@lru_cache(maxsize=10_000)
def _organisation(text: str) -> OrganisationId:
    return OrganisationId(UUID(text))


def _load_sources(database: Database) -> dict[str, list[Cidr]]:
    found: dict[str, list[Cidr]] = defaultdict(list)
    for group, written in database.query("SELECT security_group, written FROM external_source ORDER BY position"):
        found[group].append(parse_cidr(written, field="external_source.written"))
    return found


def _load_instances(database: Database) -> Mapping[InstanceId, Instance]:
    interfaces, worn = _load_interfaces(database), _load_worn(database)
    found = {}
    for id_, (text, organisation, name, host, bound_to, realm, observe, created_at) in _by_id(
        database.query(
            "SELECT id, organisation, name, host, bound_to, realm, observe, created_at FROM instance ORDER BY position"
        )
    ):
        instance = InstanceId(id_)
        found[instance] = Instance(
            id=instance,
            organisation=_organisation(organisation),
            name=name,
            host=_host_name(host) if host is not None else None,
            interfaces=tuple(interfaces[text]),
            groups=tuple(worn[text]),
            realm=realm,
            created_at=created_at,
            observe=bool(observe),
            bound_to=_host_name(bound_to) if bound_to is not None else None,
        )
    return MappingProxyType(found)


def _load_interfaces(database: Database) -> dict[str, list[Interface]]:
    addresses: dict[int, list[str]] = defaultdict(list)
    for interface, address in database.query("SELECT interface, address FROM interface_address ORDER BY position"):
        addresses[interface].append(address)
    found: dict[str, list[Interface]] = defaultdict(list)
    for position, instance, name, mac, managed, kind in database.query(
        "SELECT position, instance, name, mac, managed, kind FROM interface ORDER BY position"
    ):
        found[instance].append(
            Interface(
                name=InterfaceName(name),
                addresses=tuple(ip_address(address) for address in addresses[position]),
                mac=Mac(mac) if mac is not None else None,
                managed=bool(managed),
                kind=Kind(kind),
            )
        )
    return found


def _load_worn(database: Database) -> dict[str, list[GroupId]]:
    found: dict[str, list[GroupId]] = defaultdict(list)
    for instance, group in database.query("SELECT instance, security_group FROM worn_group ORDER BY position"):
        found[instance].append(_group_peer(group).group)
    return found


def _load_hosts(database: Database) -> Mapping[HostName, Host]:
    rows = database.query(
        "SELECT name, organisation, public_key, created_at, token_hash, token_expires_at, token_used"
        " FROM host ORDER BY position"
    )
    return MappingProxyType(
        {
            _host_name(name): Host(
                _host_name(name),
                OrganisationId(UUID(organisation)),
                public_key,
                created_at,
                None if token_hash is None else Invitation(token_hash, expires_at, bool(used)),
            )
            for name, organisation, public_key, created_at, token_hash, expires_at, used in rows
        }
    )


def _host_name(text: str) -> HostName:
    """One object for all equal names, which makes the many look-ups of hosts faster."""
    return HostName(intern(text))


def load_keys(database: Database, seal_key: bytes) -> tuple[StoredKey, ...]:
    """All keys, with their secrets in clear."""
    scopes: dict[str, set[GroupId]] = defaultdict(set)
    for id_, group in database.query("SELECT api_key, security_group FROM api_key_scope"):
        scopes[id_].add(GroupId(UUID(group)))
    rows = list(  # all rows first: an error in unsealing must not leave the query open
        database.query(
            "SELECT id, organisation, name, role, created_at, sealed_secret, sealed_previous, previous_until"
            " FROM api_key ORDER BY position"
        )
    )
    return tuple(_stored_key(row, scopes.get(row[0]), seal_key) for row in rows)


def _stored_key(
    row: tuple[str, str, str | None, str, int, bytes, bytes | None, int | None],
    scope: set[GroupId] | None,
    seal_key: bytes,
) -> StoredKey:
    id_, organisation, name, role, created_at, sealed, sealed_previous, until = row
    key = StoredKey(
        id=KeyId(id_),
        organisation=OrganisationId(UUID(organisation)),
        name=name,
        role=role,
        secret="",
        created_at=created_at,
        scope=None if scope is None else frozenset(scope),
        previous_until=until,
    )
    previous = None if sealed_previous is None else unseal(seal_key, sealed_previous, label=label_of_previous(key))
    return replace(key, secret=unseal(seal_key, sealed, label=label_of(key)), previous=previous)


def _load_host_sets(database: Database) -> _HostSets:
    """Every set of hosts by its id; the empty set under None."""
    rows = database.query("SELECT id, hosts FROM host_set")
    return {None: frozenset(), **{id_: frozenset(map(_host_name, json.loads(hosts))) for id_, hosts in rows}}


def _load_wanted(database: Database, sets: _HostSets) -> Mapping[HostName, Revision]:
    """The newest revision that touched each host: that of its creation, or of a touched set of hosts that it is in."""
    wanted = {_host_name(name): Revision(number) for name, number in database.query("SELECT name, wanted FROM host")}
    for touched, number in database.query(_NEWEST_OF_SETS):
        for host in sets[touched] & wanted.keys():
            wanted[host] = max(wanted[host], Revision(number))
    return wanted


def _load_operations(database: Database, sets: _HostSets) -> tuple[StoredOperation, ...]:
    """All that are pending and the newest of the others, oldest first."""
    return tuple(_stored_operation(row, sets) for row in database.query(_OPERATIONS, (MAX_OPERATIONS,)))


def _stored_operation(row: Values, sets: _HostSets) -> StoredOperation:
    id_, organisation, group, revision, state, reason, message, created_at, touched, offline = row
    operation = Operation(
        id=OperationId(UUID(id_)),
        organisation=OrganisationId(UUID(organisation)),
        group=GroupId(UUID(group)),
        revision=None if revision is None else Revision(revision),
        state=OperationState(state),
        reason=None if reason is None else OperationReason(reason),
        message=message,
        hosts=sets[touched],
        created_at=created_at,
    )
    return StoredOperation(operation, sets[offline])
