"""The store alone: what it keeps, what it refuses to open, and what a failing commit does."""

import os
import sqlite3
import stat
import threading
from concurrent.futures import wait
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from desk import H1, H2, ORGANISATION, STRANGERS, Desk, cidr, instance, tcp
from ringfence.control.use_cases import found_organisation
from ringfence.policy.commands import (
    AddInstance,
    AddSource,
    Attach,
    CreateGroup,
    DeleteGroup,
    GroupReference,
    RuleDraft,
)
from ringfence.policy.errors import Busy, Conflict, OperatorError
from ringfence.policy.facts import GroupCreated, GroupWorn, HostAdded, OrganisationCreated, apply_facts
from ringfence.policy.model import Group, Operation, OperationReason, OperationState
from ringfence.policy.values import Direction, Icmp, Kind, Protocol, Visibility
from ringfence.store import (
    AuditLine,
    Decision,
    FolderHeld,
    KeyCreated,
    KeyRevoked,
    KeyRotated,
    OperationSettled,
    Store,
    StoredKey,
    next_revision,
)
from ringfence.store.driver import configure, connect
from ringfence.store.folder import DATABASE
from ringfence.store.migrate import load_migrations

AUDIT = AuditLine(ORGANISATION, 1000, "EXOowner", "CreateGroup", "web", "192.0.2.7", "request-1")
KEY = StoredKey("EXO1", ORGANISATION, "laptop", "owner", "s3cr3t" * 7, 1000)


def founded(folder, **how):
    store = Store.open(folder, **how)
    if not store.snapshot.organisations:
        store.submit(found_organisation(ORGANISATION, UUID(int=0xD), 1000)).result()
    return store


@pytest.fixture
def store(tmp_path):
    store = founded(tmp_path)
    yield store
    store.close()


def writing(facts, **more):
    """A decision that makes `facts` true."""

    def decide(snapshot):
        after = apply_facts(snapshot, facts, revision=next_revision(snapshot))
        return Decision(None, facts=tuple(facts), after=after, audit=AUDIT, **more)

    return decide


def creating(name):
    return writing([GroupCreated(Group(uuid4(), ORGANISATION, name))])


def rows(folder, query):
    connection = sqlite3.connect(folder / DATABASE)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def change(folder, statement):
    connection = sqlite3.connect(folder / DATABASE)
    connection.execute(statement)
    connection.commit()
    connection.close()


def everything():
    """Facts that fill every table and every column, among them some that take away again."""
    desk, facts = Desk(), []
    desk.apply = lambda *more, apply=desk.apply: facts.extend(more) or apply(*more)
    start = desk.snapshot
    web, db = desk.create("web"), desk.create("db")
    desk.do(CreateGroup("described", "with \x01 odd \U0001f600 text"))
    for draft in (
        tcp("10.0.0.1/8", description="d"),
        tcp(web),
        tcp(GroupReference(db, None)),
        RuleDraft(Direction.EGRESS, Protocol.ICMPV6, cidr("2001:DB8::/32"), icmp=Icmp(128, None)),
        RuleDraft(Direction.EGRESS, Protocol.ICMP, cidr("0.0.0.0/0"), icmp=Icmp(None, None)),
        RuleDraft(Direction.EGRESS, Protocol.UDP, cidr("0.0.0.0/0"), end_port=53),
    ):
        desk.add_rule(web, draft)
    for source in ("192.0.2.0/24", "2001:DB8::1/128"):
        desk.do(AddSource(web, cidr(source)))
    desk.add_instance("declared", "10.9.0.1")
    desk.claim(H1, instance("a", "10.0.0.1", "2001:db8::1"), instance("b", interface="veth1", managed=False))
    desk.do(AddInstance(instance("elsewhere", "10.9.0.1", realm="lab")))
    desk.claim(H2, instance("a", "10.0.0.2", kind=Kind.SELF))
    desk.do(Attach(web, desk.instance("a", H1).id))
    desk.do(CreateGroup("gone"))
    desk.do(DeleteGroup(next(id_ for id_, group in desk.snapshot.groups.items() if group.name == "gone")))
    desk.claim(H1, instance("a", "10.0.0.3"))
    return start, facts, desk.snapshot


def test_what_was_committed_is_loaded_again_equal_and_in_order(tmp_path):
    start, facts, wanted = everything()
    store = Store.open(tmp_path)
    store.submit(lambda snapshot: _all_of(start, snapshot)).result()
    for fact in facts:
        store.submit(writing([fact])).result()
    kept = store.snapshot
    store.close()
    store = Store.open(tmp_path)
    try:
        assert store.snapshot == kept
        assert [*store.snapshot.groups] == [*wanted.groups]
        assert store.snapshot.groups == wanted.groups
        assert store.snapshot.instances == wanted.instances
        assert store.snapshot.hosts == wanted.hosts
        assert rows(tmp_path, "PRAGMA foreign_key_check") == []
    finally:
        store.close()


def _all_of(start, snapshot):
    facts = [OrganisationCreated(organisation) for organisation in start.organisations.values()]
    facts += [GroupCreated(group) for group in start.groups.values()]
    facts += [HostAdded(host) for host in start.hosts.values()]
    after = apply_facts(snapshot, facts, revision=next_revision(snapshot))
    return Decision(None, facts=tuple(facts), after=after, audit=AUDIT)


@pytest.mark.usefixtures("store")
def test_every_table_carries_its_organisation(tmp_path):
    tables = [name for (name,) in rows(tmp_path, "SELECT name FROM sqlite_schema WHERE type = 'table'")]
    without = {
        table
        for table in tables
        if "organisation" not in [column[1] for column in rows(tmp_path, f"PRAGMA table_info({table})")]
    }
    assert without == {"meta", "organisation", "sqlite_sequence"}


def test_every_row_of_a_group_and_an_instance_has_their_organisation(tmp_path):
    start, facts, _ = everything()
    store = Store.open(tmp_path)
    store.submit(lambda snapshot: _all_of(start, snapshot)).result()
    for fact in facts:
        store.submit(writing([fact])).result()
    store.close()
    for table in ("rule", "external_source", "instance", "interface", "interface_address", "worn_group"):
        assert rows(tmp_path, f"SELECT DISTINCT organisation FROM {table}") == [(str(ORGANISATION),)]  # noqa: S608  our own words
    assert (str(STRANGERS),) in rows(tmp_path, "SELECT organisation FROM security_group")


def test_a_commit_leaves_revision_and_audit_line_together(store, tmp_path):
    store.submit(creating("web")).result()
    assert rows(tmp_path, "SELECT number FROM revision") == [(1,), (2,)]
    (line,) = rows(
        tmp_path,
        "SELECT actor, address, request_id, action, subject, revision_before, revision_after, result"
        " FROM audit WHERE revision_after = 2",
    )
    assert line == ("EXOowner", "192.0.2.7", "request-1", "CreateGroup", "web", 1, 2, "applied")


def test_what_changes_nothing_is_audited_as_unchanged_and_makes_no_revision(store, tmp_path):
    store.submit(lambda _: Decision(None, audit=AUDIT)).result()
    assert rows(tmp_path, "SELECT max(number) FROM revision") == [(1,)]
    assert rows(tmp_path, "SELECT result FROM audit ORDER BY position DESC LIMIT 1") == [("unchanged",)]


def test_the_wanted_revision_of_touched_hosts_is_kept(tmp_path):
    desk = Desk()
    store = Store.open(tmp_path)
    store.submit(lambda snapshot: _all_of(desk.snapshot, snapshot)).result()
    store.submit(writing([GroupCreated(Group(uuid4(), ORGANISATION, "x"))], touched=frozenset([H2]))).result()
    store.close()
    store = Store.open(tmp_path)
    assert store.wanted == {H1: 1, H2: 2}
    store.close()


def test_operations_are_kept_with_their_hosts_and_their_end(tmp_path):
    store = founded(tmp_path)
    pending = Operation(uuid4(), ORGANISATION, uuid4(), 2, OperationState.PENDING, hosts=frozenset("ab"), created_at=7)
    facts = [GroupCreated(Group(pending.group, ORGANISATION, "x"))]
    store.submit(writing(facts, operation=pending, awaited=frozenset("a"))).result()
    store.close()
    store = founded(tmp_path)
    (kept,) = store.operations
    assert (kept.operation, kept.awaited) == (pending, frozenset("a"))
    failed = Operation(
        pending.id,
        ORGANISATION,
        pending.group,
        2,
        OperationState.FAILURE,
        OperationReason.FAULT,
        "boom",
        pending.hosts,
        7,
    )
    store.submit(lambda _: Decision(None, records=(OperationSettled(failed),))).result()
    store.close()
    store = founded(tmp_path)
    assert [kept.operation for kept in store.operations] == [failed]
    store.close()


def test_keys_are_kept_sealed_and_gone_when_revoked(tmp_path):
    store = founded(tmp_path)
    store.submit(lambda _: Decision(None, records=(KeyCreated(KEY),))).result()
    store.close()
    assert all(KEY.secret.encode() not in path.read_bytes() for path in tmp_path.iterdir())
    store = founded(tmp_path)
    assert store.keys == (KEY,)
    store.submit(lambda _: Decision(None, records=(KeyRevoked(KEY.id),))).result()
    store.close()
    store = founded(tmp_path)
    assert store.keys == ()
    store.close()


def test_the_seal_key_may_come_from_systemd_and_goes_before_the_folders(tmp_path, monkeypatch):
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "secret.key").write_bytes(bytes(range(32)))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    folder = tmp_path / "data"
    store = founded(folder)
    store.submit(lambda _: Decision(None, records=(KeyCreated(KEY),), audit=AUDIT)).result()
    store.close()
    assert not (folder / "secret.key").exists()
    store = Store.open(folder)
    assert store.keys == (KEY,)
    store.close()
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(OperatorError, match="missing"):
        Store.open(folder)


def test_a_rotated_key_keeps_its_old_secret_sealed_and_bound_to_its_end(tmp_path):
    store = founded(tmp_path)
    rotated = replace(KEY, secret="n3w" * 9, previous=KEY.secret, previous_until=5000, scope=frozenset({uuid4()}))
    for record in (KeyCreated(replace(KEY, scope=rotated.scope)), KeyRotated(rotated)):
        store.submit(lambda _, record=record: Decision(None, records=(record,), audit=AUDIT)).result()
    store.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert KEY.secret.encode() not in content
    assert rotated.secret.encode() not in content
    store = Store.open(tmp_path)
    assert store.keys == (rotated,)
    store.close()
    change(tmp_path, "UPDATE api_key SET previous_until = previous_until + 1")
    with pytest.raises(OperatorError, match="reading the secret"):
        Store.open(tmp_path)


def test_a_key_whose_scope_was_widened_on_disk_is_refused(tmp_path):
    store = founded(tmp_path)
    scoped = replace(KEY, scope=frozenset({uuid4()}))
    store.submit(lambda _: Decision(None, records=(KeyCreated(scoped),), audit=AUDIT)).result()
    store.close()
    change(tmp_path, "DELETE FROM api_key_scope")
    with pytest.raises(OperatorError, match="reading the secret"):
        Store.open(tmp_path)


def test_a_refused_decision_raises_to_its_own_caller_only(store):
    def refuse(_):
        raise Conflict("no")

    gate = threading.Event()
    held = store.submit(lambda snapshot: gate.wait(5) and creating("first")(snapshot))
    futures = [store.submit(refuse), store.submit(creating("second"))]
    gate.set()
    wait([held, *futures])
    assert isinstance(futures[0].exception(), Conflict)
    assert held.exception() is futures[1].exception() is None
    assert [group.name for group in store.snapshot.groups.values()] == ["default", "first", "second"]


@pytest.mark.parametrize("broken", ["constraint", "defect"])
def test_a_broken_decision_takes_nothing_with_it(store, tmp_path, broken):
    def defect(_):
        raise ZeroDivisionError

    facts = [GroupCreated(Group(uuid4(), ORGANISATION, "half")), GroupWorn(uuid4(), uuid4())]

    def constraint(snapshot):
        return Decision(None, facts=tuple(facts), after=snapshot, audit=AUDIT)

    with pytest.raises(OperatorError):
        store.submit({"constraint": constraint, "defect": defect}[broken]).result()
    store.submit(creating("web")).result()
    assert rows(tmp_path, "SELECT name FROM security_group ORDER BY position") == [("default",), ("web",)]


class FailingConnection(sqlite3.Connection):
    """A connection whose commits fail while `fails` is set, as a full disk makes them."""

    fails = False

    def execute(self, sql, *arguments):
        if sql == "COMMIT" and FailingConnection.fails:
            raise sqlite3.OperationalError("database or disk is full")
        return super().execute(sql, *arguments)


def failing(path):
    return configure(sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=FailingConnection))


@pytest.fixture
def broken_store(tmp_path):
    store = founded(tmp_path, connect_with=failing)
    yield store
    FailingConnection.fails = False
    store.close()


def test_a_commit_returns_only_when_the_disk_has_it(tmp_path):
    """The settings that this rests on; 2 is FULL: with less, a power cut loses commits (sqlite.org/pragma.html)."""
    connection = connect(tmp_path / "db")
    found = [
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "foreign_keys")
    ]
    connection.close()
    assert found == ["wal", 2, 1]


def test_a_failed_commit_publishes_nothing_and_makes_every_caller_of_the_batch_busy(broken_store, tmp_path):
    before = broken_store.snapshot
    FailingConnection.fails = True
    gate = threading.Event()
    first = broken_store.submit(lambda snapshot: gate.wait(5) and creating("a")(snapshot))
    batch = [first, *(broken_store.submit(creating(name)) for name in "bcd")]
    gate.set()
    for future in batch:
        with pytest.raises(Busy, match="nothing was applied"):
            future.result(5)
    assert broken_store.snapshot is before
    assert rows(tmp_path, "SELECT name FROM security_group") == [("default",)]


def test_writing_goes_on_by_itself_when_commits_succeed_again(broken_store, tmp_path):
    FailingConnection.fails = True
    with pytest.raises(Busy):
        broken_store.submit(creating("web")).result()
    FailingConnection.fails = False
    broken_store.submit(creating("web")).result()
    assert rows(tmp_path, "SELECT name FROM security_group") == [("default",), ("web",)]
    assert rows(tmp_path, "SELECT number FROM revision") == [(1,), (2,)]


def test_a_foreign_lock_makes_writers_busy_and_readers_go_on(store, tmp_path):
    foreign = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    with pytest.raises(Busy, match="locked"):
        store.submit(creating("web")).result(10)
    assert [group.name for group in store.snapshot.groups.values()] == ["default"]
    foreign.execute("ROLLBACK")
    foreign.close()
    store.submit(creating("web")).result()


def test_a_closed_store_takes_no_more_writes(tmp_path):
    store = founded(tmp_path)
    queued = store.submit(creating("web"))
    store.close()
    assert queued.result().snapshot.revision == 2
    with pytest.raises(Busy, match="stopping"):
        store.submit(creating("db")).result()


@pytest.mark.usefixtures("store")
def test_the_folder_is_held_and_the_holder_is_named(tmp_path):
    with pytest.raises(FolderHeld, match=f"process {os.getpid()} holds its lock"):
        Store.open(tmp_path)


def test_a_refused_open_gives_the_folder_back(tmp_path):
    founded(tmp_path).close()
    (tmp_path / "secret.key").chmod(0o644)
    for _ in range(2):
        with pytest.raises(OperatorError, match="others may read it") as refusal:
            Store.open(tmp_path)
        assert not isinstance(refusal.value, FolderHeld)


@pytest.mark.usefixtures("store")
def test_nothing_in_the_folder_is_readable_by_others(tmp_path):
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o400


def test_the_folder_is_made_private(tmp_path):
    founded(tmp_path / "a" / "b").close()
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_a_newer_format_is_refused_untouched(tmp_path):
    founded(tmp_path).close()
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("UPDATE meta SET value = '999' WHERE name = 'format'")
    connection.commit()
    connection.close()
    newest = max(load_migrations())
    with pytest.raises(OperatorError, match=f"its format is 999, this program knows formats up to {newest}"):
        Store.open(tmp_path)


def test_the_epoch_is_random_and_stays(tmp_path):
    epochs = []
    for folder in ("a", "a", "b"):
        store = founded(tmp_path / folder)
        epochs.append(store.epoch)
        store.close()
    assert epochs[0] == epochs[1] != epochs[2]


def test_another_programs_database_is_refused(tmp_path):
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    with pytest.raises(OperatorError, match="none of ringfence's"):
        Store.open(tmp_path)


def with_key(folder):
    store = founded(folder)
    store.submit(lambda _: Decision(None, records=(KeyCreated(KEY),))).result()
    store.close()


def test_a_lost_seal_key_is_not_replaced_while_there_are_secrets(tmp_path):
    with_key(tmp_path)
    (tmp_path / "secret.key").unlink()
    with pytest.raises(OperatorError, match=r"secret.key: it is missing.*restore it from a backup"):
        Store.open(tmp_path)


def test_another_seal_key_is_refused(tmp_path):
    with_key(tmp_path)
    path = tmp_path / "secret.key"
    path.unlink()
    path.write_bytes(bytes(32))
    path.chmod(0o400)
    with pytest.raises(OperatorError, match=f"secret of {ORGANISATION}/EXO1/owner"):
        Store.open(tmp_path)


@pytest.mark.parametrize("column", ["role = 'operator'", "id = 'EXO2'", f"organisation = '{STRANGERS}'"])
def test_a_sealed_secret_cannot_be_moved_to_another_row_or_right(tmp_path, column):
    with_key(tmp_path)
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute(f"UPDATE api_key SET {column}")  # noqa: S608  our own words
    connection.commit()
    connection.close()
    with pytest.raises(OperatorError):
        Store.open(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE security_group SET visibility = 'private', id = 'no uuid' WHERE name = 'web'",
        "UPDATE rule SET network = '10.0.0.0'",
        "UPDATE rule SET protocol = 'sctp'",
        "DELETE FROM security_group WHERE name = 'web'",
    ],
)
def test_rows_that_are_no_values_of_the_model_are_refused(tmp_path, damage):
    store = founded(tmp_path)
    desk = Desk()
    web = desk.create("web")
    desk.add_rule(web, tcp("10.0.0.0/8"))
    store.submit(writing([GroupCreated(desk.snapshot.groups[web])])).result()
    store.close()
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute(damage)
    connection.commit()
    connection.close()
    with pytest.raises(OperatorError, match="restore the folder from a backup"):
        Store.open(tmp_path)


def test_a_damaged_index_is_refused(tmp_path):
    founded(tmp_path).close()
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'rule_by_peer')"
        " WHERE name = 'sqlite_autoindex_security_group_1'"
    )
    connection.commit()
    connection.close()
    with pytest.raises(OperatorError, match="restore the folder from a backup"):
        Store.open(tmp_path)


def test_damage_in_what_is_not_even_loaded_is_refused(tmp_path):
    founded(tmp_path).close()
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("UPDATE audit SET result = 'applied?'")
    connection.commit()
    connection.close()
    with pytest.raises(OperatorError, match="CHECK constraint failed in audit"):
        Store.open(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    founded(tmp_path).close()
    (tmp_path / DATABASE).write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(OperatorError, match="restore the folder from a backup"):
        Store.open(tmp_path)


def test_a_public_group_survives_with_its_visibility(store, tmp_path):
    group = Group(uuid4(), ORGANISATION, "dns", None, Visibility.PUBLIC, sources=(cidr("192.0.2.1/24"),))
    store.submit(writing([GroupCreated(group)])).result()
    store.close()
    again = Store.open(tmp_path)
    assert again.snapshot.groups[group.id] == group
    again.close()
