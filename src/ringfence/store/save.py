"""Facts and records of a decision -> rows. All SQL that writes them is here.

Output: statements with their values, which are run later. Nothing is decided here; if a constraint of the database
refuses a row, the decision was defective.
"""

import json
from collections.abc import Iterable
from functools import cache, lru_cache
from hashlib import sha256
from typing import Final, TypeVar, assert_never

from ringfence.policy.facts import (
    AssertionsSet,
    Fact,
    GroupCreated,
    GroupDeleted,
    GroupFact,
    GroupTakenOff,
    GroupWorn,
    HostAdded,
    HostInvited,
    HostJoined,
    HostRemoved,
    InstanceCreated,
    InstanceFact,
    InstanceObserved,
    InstancePlaced,
    InstanceReleased,
    InstanceRemoved,
    LimitSet,
    OrganisationCreated,
    OrganisationFact,
    OrganisationRemoved,
    RuleAdded,
    RuleDeleted,
    RuleExpires,
    SourceAdded,
    SourceRemoved,
    TrialBegun,
    TrialEnded,
)
from ringfence.policy.model import Group, Host, Instance, Interface, Operation, Rule
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.undo import undo_of
from ringfence.policy.values import Cidr, GroupId, HostName, InstanceId, OrganisationId, Revision
from ringfence.store.database import Values
from ringfence.store.decision import (
    AuditLine,
    Decision,
    KeyCreated,
    KeyRevoked,
    KeyRotated,
    OperationSettled,
    Record,
    StoredKey,
    Tidied,
)
from ringfence.store.history import FORGET, FORGET_UNDO, SET_ANCHOR, Chain
from ringfence.store.journal import encode_facts
from ringfence.store.rows import Part, Rows
from ringfence.store.seal import label_of, label_of_previous, seal

T = TypeVar("T")

_INSERT_HOSTS: Final = "INSERT INTO host_set (id, organisation, hosts) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING"
# An address of the interface that was inserted last.
_INSERT_ADDRESS: Final = """
    INSERT INTO interface_address (organisation, interface, address) VALUES (
        (SELECT organisation FROM instance WHERE id = ?),
        (SELECT max(position) FROM interface WHERE instance = ?), ?)
"""

_SET_TRIAL: Final = "UPDATE organisation SET trial_revision = ?, trial_ends_at = ? WHERE id = ?"


def save_decision(rows: Rows, decision: Decision[T], before: Snapshot, *, seal_key: bytes, chain: Chain) -> None:
    """Adds to ``rows`` everything that a decision writes; its line of the history extends ``chain``."""
    after = decision.after or before
    for fact in decision.facts:
        _save_fact(rows, fact, after.revision, decision.audit)
    if decision.facts and decision.audit:
        touched = _save_hosts(rows, decision.audit.organisation, decision.touched)
        _save_revision(rows, decision.audit, after.revision, touched, undo_of(before, decision.facts))
    if decision.operation:
        _save_operation(rows, decision.operation, decision.offline)
    for record in decision.records:
        _save_record(rows, record, seal_key)
    if decision.audit:
        changed = bool(decision.facts or decision.records)
        _save_audit(rows, chain, decision.audit, (before.revision, after.revision), changed=changed)


def _save_fact(rows: Rows, fact: Fact, revision: Revision, audit: AuditLine | None) -> None:
    match fact:
        case OrganisationCreated() | OrganisationRemoved():
            _save_organisation_fact(rows, fact, audit)
        case LimitSet() | AssertionsSet() | TrialBegun() | TrialEnded():
            _save_organisation_fact(rows, fact, audit)
        case HostAdded(host):
            _save_host(rows, host, revision)
        case HostInvited(name, invitation):
            rows.add(
                "UPDATE host SET token_hash = ?, token_expires_at = ?, token_used = 0 WHERE name = ?",
                (invitation.secret_hash, invitation.expires_at, name),
            )
        case HostJoined(name, public_key):
            rows.add("UPDATE host SET public_key = ?, token_used = 1 WHERE name = ?", (public_key, name))
        case HostRemoved(name):
            rows.add("UPDATE instance SET bound_to = NULL WHERE bound_to = ?", (name,))
            rows.add("DELETE FROM host WHERE name = ?", (name,))
        case _ if isinstance(fact, InstanceFact):
            _save_instance_fact(rows, fact)
        case _:
            _save_group_fact(rows, fact)


def _save_organisation_fact(
    rows: Rows,
    fact: OrganisationFact,
    audit: AuditLine | None,
) -> None:
    match fact:
        case OrganisationCreated(organisation):
            _insert(
                rows,
                "organisation (id, name, default_group)",
                (str(organisation.id), organisation.name, str(organisation.default_group)),
            )
        case OrganisationRemoved(id_):
            _remove_organisation(rows, id_, audit.at if audit else 0)
        case LimitSet(id_, quota, limit):
            where = (str(id_), quota.value)
            rows.add("DELETE FROM organisation_limit WHERE organisation = ? AND quota = ?", where)
            if limit is not None:
                _insert(rows, "organisation_limit (organisation, quota, amount)", (*where, limit))
        case AssertionsSet(id_, assertions):
            rows.add("DELETE FROM assertion WHERE organisation = ?", (str(id_),))
            for place, text in enumerate(assertions):
                _insert(rows, "assertion (organisation, place, text)", (str(id_), place, text))
        case TrialBegun(id_, trial):
            rows.add(_SET_TRIAL, (trial.revision, trial.ends_at, str(id_)))
        case TrialEnded(id_):
            rows.add(_SET_TRIAL, (None, None, str(id_)))
        case _:
            assert_never(fact)


def _remove_organisation(rows: Rows, id_: OrganisationId, at: int) -> None:
    """Deletes all but the rows of the organisation and of its default group, which the history refers to."""
    rows.add("DELETE FROM api_key WHERE organisation = ?", (str(id_),), Part.RECORD)  # one may have come just before
    for table in ("organisation_limit", "assertion", "rule", "external_source"):
        rows.add(f"DELETE FROM {table} WHERE organisation = ?", (str(id_),))  # noqa: S608  our own words
    rows.add("UPDATE organisation SET removed_at = ? WHERE id = ?", (at, str(id_)))


def _save_group_fact(rows: Rows, fact: GroupFact) -> None:
    match fact:
        case GroupCreated(group):
            _save_group(rows, group)
        case GroupDeleted(id_):
            rows.add("DELETE FROM security_group WHERE id = ?", (str(id_),))
        case RuleAdded(id_, rule):
            _save_rule(rows, id_, rule)
        case RuleDeleted(rule=rule_id):
            rows.add("DELETE FROM rule WHERE id = ?", (str(rule_id),))
        case RuleExpires(rule=rule_id, at=at):
            rows.add("UPDATE rule SET expires_at = ? WHERE id = ?", (at, str(rule_id)))
        case SourceAdded(id_, source):
            _save_source(rows, id_, source)
        case SourceRemoved(id_, source):
            rows.add("DELETE FROM external_source WHERE security_group = ? AND written = ?", (str(id_), source.text))
        case _:
            assert_never(fact)


def _save_instance_fact(rows: Rows, fact: InstanceFact) -> None:
    match fact:
        case InstanceCreated(instance):
            _save_instance(rows, instance)
        case InstancePlaced():
            _place_instance(rows, fact)
        case InstanceReleased(id_):
            rows.add("UPDATE instance SET bound_to = NULL WHERE id = ?", (str(id_),))
        case InstanceRemoved(id_):
            rows.add("DELETE FROM instance WHERE id = ?", (str(id_),))
        case InstanceObserved(id_, observe):
            rows.add("UPDATE instance SET observe = ? WHERE id = ?", (int(observe), str(id_)))
        case GroupWorn(id_, group):
            _save_worn(rows, id_, group)
        case GroupTakenOff(id_, group):
            rows.add("DELETE FROM worn_group WHERE instance = ? AND security_group = ?", (str(id_), str(group)))
        case _:
            assert_never(fact)


def _save_group(rows: Rows, group: Group) -> None:
    _insert(
        rows,
        "security_group (id, organisation, name, description, visibility)",
        (str(group.id), str(group.organisation), group.name, group.description, group.visibility.value),
    )
    for rule in group.rules:
        _save_rule(rows, group.id, rule)
    for source in group.sources:
        _save_source(rows, group.id, source)


def _save_rule(rows: Rows, group: GroupId, rule: Rule) -> None:
    _insert(
        rows,
        "rule (organisation, id, security_group, direction, protocol, network, peer_group,"
        " start_port, end_port, icmp, icmp_type, icmp_code, description, expires_at)",
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
            rule.expires_at,
        ),
        owner=("security_group", group),
    )


def _save_source(rows: Rows, group: GroupId, source: Cidr) -> None:
    _insert(
        rows,
        "external_source (organisation, security_group, written, network)",
        (str(group), source.text, str(source.network)),
        owner=("security_group", group),
    )


def _save_host(rows: Rows, host: Host, revision: Revision) -> None:
    _insert(
        rows,
        "host (name, organisation, public_key, wanted, created_at, token_hash, token_expires_at, token_used)",
        (
            *(host.name, str(host.organisation), host.public_key, revision, host.created_at),
            host.invitation.secret_hash if host.invitation else None,
            host.invitation.expires_at if host.invitation else None,
            int(host.invitation is not None and host.invitation.used),
        ),
    )


def _save_instance(rows: Rows, instance: Instance) -> None:
    _insert(
        rows,
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
    _save_interfaces(rows, instance.id, instance.interfaces)
    for group in instance.groups:
        _save_worn(rows, instance.id, group)


def _place_instance(rows: Rows, fact: InstancePlaced) -> None:
    rows.add(
        "UPDATE instance SET name = ?, host = ?, realm = ?, bound_to = coalesce(bound_to, ?) WHERE id = ?",
        (fact.name, fact.host, fact.realm, fact.host, str(fact.instance)),
    )
    rows.add("DELETE FROM interface WHERE instance = ?", (str(fact.instance),))
    _save_interfaces(rows, fact.instance, fact.interfaces)


def _save_interfaces(rows: Rows, instance: InstanceId, interfaces: Iterable[Interface]) -> None:
    for interface in interfaces:
        _insert(
            rows,
            "interface (organisation, instance, name, mac, managed, kind)",
            (str(instance), interface.name, interface.mac, int(interface.managed), interface.kind.value),
            owner=("instance", instance),
        )
        for address in interface.addresses:
            rows.add(_INSERT_ADDRESS, (str(instance), str(instance), str(address)))


def _save_worn(rows: Rows, instance: InstanceId, group: GroupId) -> None:
    _insert(
        rows,
        "worn_group (organisation, instance, security_group)",
        (str(instance), str(group)),
        owner=("instance", instance),
    )


def _save_revision(
    rows: Rows, audit: AuditLine, revision: Revision, touched: str | None, undo: tuple[Fact, ...]
) -> None:
    values = (revision, str(audit.organisation), audit.at, touched, encode_facts(undo))
    _insert(rows, "revision (number, organisation, at, touched, undo)", values, part=Part.REVISION)


def _save_hosts(rows: Rows, organisation: OrganisationId, hosts: frozenset[HostName]) -> str | None:
    """The id of a set of hosts, None for the empty set. A set is one row, however large and however often used."""
    if not hosts:
        return None
    id_, text = _as_one_value(organisation, hosts)
    rows.add(_INSERT_HOSTS, (id_, str(organisation), text), Part.HOSTS)
    return id_


@lru_cache(maxsize=32)
def _as_one_value(organisation: OrganisationId, hosts: frozenset[HostName]) -> tuple[str, str]:
    """The id and the text of a set of hosts. Cached, because many changes touch the same set."""
    text = json.dumps(sorted(hosts), separators=(",", ":"))
    return sha256(f"{organisation} {text}".encode()).hexdigest(), text


def _save_operation(rows: Rows, operation: Operation, offline: frozenset[HostName]) -> None:
    _insert(
        rows,
        "operation (id, organisation, security_group, revision, state, reason, message, created_at, offline)",
        (
            str(operation.id),
            str(operation.organisation),
            str(operation.group),
            operation.revision,
            operation.state.value,
            operation.reason.value if operation.reason else None,
            operation.message,
            operation.created_at,
            _save_hosts(rows, operation.organisation, offline),
        ),
        part=Part.OPERATION,
    )


def _save_record(rows: Rows, record: Record, seal_key: bytes) -> None:
    match record:
        case KeyCreated(key):
            _save_key(rows, key, seal_key)
        case KeyRotated(key):
            _save_secrets(rows, key, seal_key)
        case KeyRevoked(id_):
            rows.add("DELETE FROM api_key WHERE id = ?", (id_,), Part.RECORD)
        case OperationSettled(operation):
            reason = operation.reason.value if operation.reason else None
            rows.add(
                "UPDATE operation SET state = ?, reason = ?, message = ? WHERE id = ?",
                (operation.state.value, reason, operation.message, str(operation.id)),
                Part.RECORD,
            )
        case Tidied():
            _tidy(rows, record)
        case _:
            assert_never(record)


def _save_key(rows: Rows, key: StoredKey, seal_key: bytes) -> None:
    _insert(
        rows,
        "api_key (id, organisation, name, role, sealed_secret, created_at)",
        (key.id, str(key.organisation), key.name, key.role, b"", key.created_at),
        part=Part.RECORD,
    )
    _save_secrets(rows, key, seal_key)
    for group in sorted(key.scope or ()):
        rows.add(
            "INSERT INTO api_key_scope (api_key, security_group, organisation) VALUES (?, ?, ?)",
            (key.id, str(group), str(key.organisation)),
            Part.RECORD,
        )


def _save_secrets(rows: Rows, key: StoredKey, seal_key: bytes) -> None:
    previous = None if key.previous is None else seal(seal_key, key.previous, label=label_of_previous(key))
    rows.add(
        "UPDATE api_key SET sealed_secret = ?, sealed_previous = ?, previous_until = ? WHERE id = ?",
        (seal(seal_key, key.secret, label=label_of(key)), previous, key.previous_until, key.id),
        Part.RECORD,
    )


def _save_audit(
    rows: Rows, chain: Chain, audit: AuditLine, revisions: tuple[Revision, Revision], *, changed: bool
) -> None:
    values = (
        audit.at,
        str(audit.organisation),
        audit.actor,
        audit.actor_name,
        audit.address,
        audit.request_id,
        audit.action,
        audit.subject,
        *revisions,
        "applied" if changed else "unchanged",
    )
    _insert(
        rows,
        "audit (number, at, organisation, actor, actor_name, address, request_id, action, subject,"
        " revision_before, revision_after, result, hash)",
        chain.link(values),
        part=Part.AUDIT,
    )


def _tidy(rows: Rows, tidied: Tidied) -> None:
    rows.add(
        "UPDATE api_key SET sealed_previous = NULL, previous_until = NULL WHERE previous_until <= ?",
        (tidied.now,),
        Part.RECORD,
    )
    if tidied.history_before is not None:
        rows.add(SET_ANCHOR, (tidied.history_before,), Part.RECORD)
        rows.add(FORGET, (tidied.history_before,), Part.RECORD)
        rows.add(FORGET_UNDO, (tidied.history_before,), Part.RECORD)


def _insert(
    rows: Rows,
    target: str,
    values: Values,
    *,
    owner: tuple[str, GroupId | InstanceId] | None = None,
    part: Part = Part.POLICY,
) -> None:
    """Inserts into ``target`` ("table (columns)").

    With an ``owner`` (table, id), the first column is the organisation that the owner's row carries.
    """
    if owner is None:
        rows.add(_inserting(target, len(values)), values, part)
    else:
        table, id_ = owner
        rows.add(_inserting(target, len(values), table), (str(id_), *values), part)


@cache
def _inserting(target: str, count: int, owner: str | None = None) -> str:
    """The INSERT statement. Cached, because there are few."""
    marks = ", ".join("?" * count)
    first = f"(SELECT organisation FROM {owner} WHERE id = ?), " if owner else ""  # noqa: S608  our own words
    return f"INSERT INTO {target} VALUES ({first}{marks})"  # noqa: S608  our own words
