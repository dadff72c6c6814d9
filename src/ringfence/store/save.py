"""Facts and records of a decision -> rows. The only place that writes SQL for them.

Input: a connection inside a transaction. It decides nothing; what the constraints of the database refuse is a defect of
the decision and surfaces as ``sqlite3.IntegrityError``.
"""

import sqlite3
from collections.abc import Iterable
from typing import TypeVar, assert_never

from ringfence.policy.facts import (
    Fact,
    GroupCreated,
    GroupDeleted,
    GroupTakenOff,
    GroupWorn,
    HostAdded,
    HostRemoved,
    InstanceCreated,
    InstanceObserved,
    InstancePlaced,
    LimitSet,
    OrganisationCreated,
    OrganisationRemoved,
    RuleAdded,
    RuleDeleted,
    SourceAdded,
    SourceRemoved,
)
from ringfence.policy.model import Group, Host, Instance, Interface, Operation, Rule, Snapshot
from ringfence.policy.values import Cidr, GroupId, HostName, InstanceId, OrganisationId, Revision
from ringfence.store.decision import (
    AuditLine,
    Decision,
    KeyCreated,
    KeyRevoked,
    KeyRotated,
    OperationSettled,
    Record,
    StoredKey,
)
from ringfence.store.seal import label_of, label_of_previous, seal

T = TypeVar("T")


def save_decision(connection: sqlite3.Connection, decision: Decision[T], before: Snapshot, *, seal_key: bytes) -> None:
    """Everything that a decision makes true; the revision row, when there is one, before what refers to it."""
    after = decision.after or before
    for fact in decision.facts:
        _save_fact(connection, fact, after.revision, decision.audit)
    if decision.facts and decision.audit:
        _save_revision(connection, decision.audit, after.revision)
    _save_wanted(connection, decision.touched, after.revision)
    if decision.operation:
        _save_operation(connection, decision.operation, decision.awaited)
    for record in decision.records:
        _save_record(connection, record, seal_key)
    if decision.audit:
        changed = bool(decision.facts or decision.records)
        _save_audit(connection, decision.audit, (before.revision, after.revision), changed=changed)


def _save_fact(connection: sqlite3.Connection, fact: Fact, revision: Revision, audit: AuditLine | None) -> None:
    match fact:
        case OrganisationCreated() | OrganisationRemoved() | LimitSet():
            _save_organisation_fact(connection, fact, audit)
        case HostAdded(host):
            _save_host(connection, host, revision)
        case HostRemoved(name):
            connection.execute("UPDATE instance SET bound_to = NULL WHERE bound_to = ?", (name,))
            connection.execute("DELETE FROM host WHERE name = ?", (name,))
        case InstanceCreated() | InstancePlaced() | InstanceObserved() | GroupWorn() | GroupTakenOff():
            _save_instance_fact(connection, fact)
        case GroupCreated() | GroupDeleted() | RuleAdded() | RuleDeleted() | SourceAdded() | SourceRemoved():
            _save_group_fact(connection, fact)
        case _:
            assert_never(fact)


def _save_organisation_fact(
    connection: sqlite3.Connection,
    fact: OrganisationCreated | OrganisationRemoved | LimitSet,
    audit: AuditLine | None,
) -> None:
    match fact:
        case OrganisationCreated(organisation):
            _insert(
                connection,
                "organisation (id, name, default_group)",
                (str(organisation.id), organisation.name, str(organisation.default_group)),
            )
        case OrganisationRemoved(id_):
            _remove_organisation(connection, id_, audit.at if audit else 0)
        case LimitSet(id_, quota, limit):
            where = (str(id_), quota.value)
            connection.execute("DELETE FROM organisation_limit WHERE organisation = ? AND quota = ?", where)
            if limit is not None:
                _insert(connection, "organisation_limit (organisation, quota, amount)", (*where, limit))
        case _:
            assert_never(fact)


def _remove_organisation(connection: sqlite3.Connection, id_: OrganisationId, at: int) -> None:
    """What no loaded row may refer to goes; the organisation's own row, and its default group's, stay for history."""
    for table in ("api_key", "organisation_limit", "rule", "external_source"):
        connection.execute(f"DELETE FROM {table} WHERE organisation = ?", (str(id_),))  # noqa: S608  our own words
    connection.execute("UPDATE organisation SET removed_at = ? WHERE id = ?", (at, str(id_)))


def _save_group_fact(
    connection: sqlite3.Connection,
    fact: GroupCreated | GroupDeleted | RuleAdded | RuleDeleted | SourceAdded | SourceRemoved,
) -> None:
    match fact:
        case GroupCreated(group):
            _save_group(connection, group)
        case GroupDeleted(id_):
            connection.execute("DELETE FROM security_group WHERE id = ?", (str(id_),))
        case RuleAdded(id_, rule):
            _save_rule(connection, id_, rule)
        case RuleDeleted(rule=rule_id):
            connection.execute("DELETE FROM rule WHERE id = ?", (str(rule_id),))
        case SourceAdded(id_, source):
            _save_source(connection, id_, source)
        case SourceRemoved(id_, source):
            connection.execute(
                "DELETE FROM external_source WHERE security_group = ? AND written = ?", (str(id_), source.text)
            )
        case _:
            assert_never(fact)


def _save_instance_fact(
    connection: sqlite3.Connection,
    fact: InstanceCreated | InstancePlaced | InstanceObserved | GroupWorn | GroupTakenOff,
) -> None:
    match fact:
        case InstanceCreated(instance):
            _save_instance(connection, instance)
        case InstancePlaced():
            _place_instance(connection, fact)
        case InstanceObserved(id_, observe):
            connection.execute("UPDATE instance SET observe = ? WHERE id = ?", (int(observe), str(id_)))
        case GroupWorn(id_, group):
            _save_worn(connection, id_, group)
        case GroupTakenOff(id_, group):
            connection.execute(
                "DELETE FROM worn_group WHERE instance = ? AND security_group = ?", (str(id_), str(group))
            )
        case _:
            assert_never(fact)


def _save_group(connection: sqlite3.Connection, group: Group) -> None:
    _insert(
        connection,
        "security_group (id, organisation, name, description, visibility)",
        (str(group.id), str(group.organisation), group.name, group.description, group.visibility.value),
    )
    for rule in group.rules:
        _save_rule(connection, group.id, rule)
    for source in group.sources:
        _save_source(connection, group.id, source)


def _save_rule(connection: sqlite3.Connection, group: GroupId, rule: Rule) -> None:
    _insert(
        connection,
        "rule (organisation, id, security_group, direction, protocol, network, peer_group,"
        " start_port, end_port, icmp, icmp_type, icmp_code, description)",
        (
            str(rule.id),
            str(group),
            rule.direction.value,
            rule.protocol.value,
            rule.peer.text if isinstance(rule.peer, Cidr) else None,
            None if isinstance(rule.peer, Cidr) else str(rule.peer.group),
            rule.start_port,
            rule.end_port,
            int(rule.icmp is not None),
            rule.icmp.type if rule.icmp else None,
            rule.icmp.code if rule.icmp else None,
            rule.description,
        ),
        owner=("security_group", group),
    )


def _save_source(connection: sqlite3.Connection, group: GroupId, source: Cidr) -> None:
    _insert(
        connection,
        "external_source (organisation, security_group, written, network)",
        (str(group), source.text, str(source.network)),
        owner=("security_group", group),
    )


def _save_host(connection: sqlite3.Connection, host: Host, revision: Revision) -> None:
    _insert(
        connection,
        "host (name, organisation, public_key, wanted, created_at)",
        (host.name, str(host.organisation), host.public_key, revision, host.created_at),
    )


def _save_instance(connection: sqlite3.Connection, instance: Instance) -> None:
    _insert(
        connection,
        "instance (id, organisation, name, host, bound_to, realm, observe, created_at)",
        (
            str(instance.id),
            str(instance.organisation),
            instance.name,
            instance.host,
            instance.bound_to,
            instance.realm,
            int(instance.observe),
            instance.created_at,
        ),
    )
    _save_interfaces(connection, instance.id, instance.interfaces)
    for group in instance.groups:
        _save_worn(connection, instance.id, group)


def _place_instance(connection: sqlite3.Connection, fact: InstancePlaced) -> None:
    connection.execute(
        "UPDATE instance SET name = ?, host = ?, realm = ?, bound_to = coalesce(bound_to, ?) WHERE id = ?",
        (fact.name, fact.host, fact.realm, fact.host, str(fact.instance)),
    )
    connection.execute("DELETE FROM interface WHERE instance = ?", (str(fact.instance),))
    _save_interfaces(connection, fact.instance, fact.interfaces)


def _save_interfaces(connection: sqlite3.Connection, instance: InstanceId, interfaces: Iterable[Interface]) -> None:
    for interface in interfaces:
        position = _insert(
            connection,
            "interface (organisation, instance, name, mac, managed, kind)",
            (str(instance), interface.name, interface.mac, int(interface.managed), interface.kind.value),
            owner=("instance", instance),
        )
        for address in interface.addresses:
            _insert(
                connection,
                "interface_address (organisation, interface, address)",
                (position, str(address)),
                owner=("instance", instance),
            )


def _save_worn(connection: sqlite3.Connection, instance: InstanceId, group: GroupId) -> None:
    _insert(
        connection,
        "worn_group (organisation, instance, security_group)",
        (str(instance), str(group)),
        owner=("instance", instance),
    )


def _save_revision(connection: sqlite3.Connection, audit: AuditLine, revision: Revision) -> None:
    _insert(connection, "revision (number, organisation, at)", (revision, str(audit.organisation), audit.at))


def _save_wanted(connection: sqlite3.Connection, touched: frozenset[HostName], revision: Revision) -> None:
    for host in sorted(touched):
        connection.execute("UPDATE host SET wanted = ? WHERE name = ?", (revision, host))


def _save_operation(connection: sqlite3.Connection, operation: Operation, awaited: frozenset[HostName]) -> None:
    _insert(
        connection,
        "operation (id, organisation, security_group, revision, state, reason, message, created_at)",
        (
            str(operation.id),
            str(operation.organisation),
            str(operation.group),
            operation.revision,
            operation.state.value,
            operation.reason.value if operation.reason else None,
            operation.message,
            operation.created_at,
        ),
    )
    for host in sorted(operation.hosts):
        connection.execute(
            "INSERT INTO operation_host (operation, host, organisation, awaited) VALUES (?, ?, ?, ?)",
            (str(operation.id), host, str(operation.organisation), int(host in awaited)),
        )


def _save_record(connection: sqlite3.Connection, record: Record, seal_key: bytes) -> None:
    match record:
        case KeyCreated(key):
            _save_key(connection, key, seal_key)
        case KeyRotated(key):
            _save_secrets(connection, key, seal_key)
        case KeyRevoked(id_):
            connection.execute("DELETE FROM api_key WHERE id = ?", (id_,))
        case OperationSettled(operation):
            reason = operation.reason.value if operation.reason else None
            connection.execute(
                "UPDATE operation SET state = ?, reason = ?, message = ? WHERE id = ?",
                (operation.state.value, reason, operation.message, str(operation.id)),
            )
        case _:
            assert_never(record)


def _save_key(connection: sqlite3.Connection, key: StoredKey, seal_key: bytes) -> None:
    _insert(
        connection,
        "api_key (id, organisation, name, role, sealed_secret, created_at)",
        (key.id, str(key.organisation), key.name, key.role, b"", key.created_at),
    )
    _save_secrets(connection, key, seal_key)
    for group in sorted(key.scope or ()):
        connection.execute(
            "INSERT INTO api_key_scope (api_key, security_group, organisation) VALUES (?, ?, ?)",
            (key.id, str(group), str(key.organisation)),
        )


def _save_secrets(connection: sqlite3.Connection, key: StoredKey, seal_key: bytes) -> None:
    previous = None if key.previous is None else seal(seal_key, key.previous, label=label_of_previous(key))
    connection.execute(
        "UPDATE api_key SET sealed_secret = ?, sealed_previous = ?, previous_until = ? WHERE id = ?",
        (seal(seal_key, key.secret, label=label_of(key)), previous, key.previous_until, key.id),
    )


def _save_audit(
    connection: sqlite3.Connection, audit: AuditLine, revisions: tuple[Revision, Revision], *, changed: bool
) -> None:
    _insert(
        connection,
        "audit (organisation, at, actor, address, request_id, action, subject,"
        " revision_before, revision_after, result)",
        (
            str(audit.organisation),
            audit.at,
            audit.actor,
            audit.address,
            audit.request_id,
            audit.action,
            audit.subject,
            *revisions,
            "applied" if changed else "unchanged",
        ),
    )


def _insert(
    connection: sqlite3.Connection,
    target: str,
    values: tuple[object, ...],
    *,
    owner: tuple[str, GroupId | InstanceId] | None = None,
) -> int:
    """Inserts into ``target`` ("table (columns)") and answers the row's position.

    With an ``owner`` (table, id), the first column is the organisation that the owner's row carries.
    """
    marks = ", ".join("?" * len(values))
    if owner is None:
        cursor = connection.execute(f"INSERT INTO {target} VALUES ({marks})", values)  # noqa: S608  our own words
    else:
        table, id_ = owner
        first = f"(SELECT organisation FROM {table} WHERE id = ?)"  # noqa: S608  our own words
        cursor = connection.execute(
            f"INSERT INTO {target} VALUES ({first}, {marks})",  # noqa: S608  our own words
            (str(id_), *values),
        )
    return cursor.lastrowid or 0
