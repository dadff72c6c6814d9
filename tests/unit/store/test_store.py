"""The store alone: what it keeps, what it refuses to open, and what a failing commit does."""

import threading
from concurrent.futures import wait
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from desk import H1, H2, OPERATOR, ORGANISATION, STRANGERS, Desk, cidr, instance, tcp
from places import Failing
from ringfence.control.use_cases import found_organisation
from ringfence.policy.commands import (
    AddInstance,
    AddSource,
    Attach,
    CreateGroup,
    DeleteGroup,
    GroupReference,
    ReleaseInstance,
    RemoveInstance,
    RuleDraft,
)
from ringfence.policy.errors import Busy, Conflict, OperatorError
from ringfence.policy.facts import AssertionsSet, GroupCreated, GroupWorn, HostAdded, OrganisationCreated, apply_facts
from ringfence.policy.model import Group, Operation, OperationReason, OperationState, Organisation
from ringfence.policy.values import Direction, Icmp, Kind, Protocol, Visibility
from ringfence.store import (
    AuditLine,
    Decision,
    KeyCreated,
    KeyRevoked,
    KeyRotated,
    OperationSettled,
    StoredKey,
    next_revision,
    writer,
)
from ringfence.store.migrate import load_migrations, migrate
from ringfence.store.writer import UNWRITTEN

AUDIT = AuditLine(ORGANISATION, 1000, "EXOowner", "CreateGroup", "web", "192.0.2.7", "request-1")
KEY = StoredKey("EXO1", ORGANISATION, "laptop", "owner", "s3cr3t" * 7, 1000)


FORMAT_9 = """
INSERT INTO organisation (id, name, default_group) VALUES ('{o}', 'o', '{o}')
INSERT INTO security_group (id, organisation, name, visibility) VALUES ('{o}', '{o}', 'default', 'private')
INSERT INTO revision (number, organisation, at) VALUES (1, '{o}', 0), (2, '{o}', 0), (3, '{o}', 0), (4, '{o}', 0)
INSERT INTO host VALUES (1, 'a', '{o}', ?, 3, 0, NULL, NULL, 0), (2, 'b', '{o}', ?, 4, 0, NULL, NULL, 0)
INSERT INTO operation VALUES (1, '00000000-0000-0000-0000-000000000001', '{o}', '{o}', 2, 'pending', NULL, NULL, 0)
INSERT INTO operation VALUES (2, '00000000-0000-0000-0000-000000000002', '{o}', '{o}', 3, 'success', NULL, NULL, 0)
INSERT INTO operation VALUES (3, '00000000-0000-0000-0000-000000000003', '{o}', '{o}', NULL, 'success', NULL, NULL, 0)
INSERT INTO operation_host VALUES ('00000000-0000-0000-0000-000000000001', 'a', '{o}', 1)
INSERT INTO operation_host VALUES ('00000000-0000-0000-0000-000000000001', 'b', '{o}', 0)
INSERT INTO operation_host VALUES ('00000000-0000-0000-0000-000000000002', 'a', '{o}', 1)
""".strip()


def founded(place, open_database=None):
    store = place.open(open_database)
    if not store.snapshot.organisations:
        store.submit(found_organisation(ORGANISATION, UUID(int=0xD), 1000)).result()
    return store


@pytest.fixture
def store(place):
    store = founded(place)
    yield store
    store.close()


NAMES = "stuvwxyz"


def writing(facts, **more):
    """A decision that makes `facts` true."""

    def decide(snapshot):
        after = apply_facts(snapshot, facts, revision=next_revision(snapshot))
        return Decision(None, facts=tuple(facts), after=after, audit=AUDIT, **more)

    return decide


def creating(name):
    return writing([GroupCreated(Group(uuid4(), ORGANISATION, name))])


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
    for held in (
        ("any -> web tcp/22 deny", "any -> web tcp/23 deny"),
        ("web -> db tcp/1 allow", "any -> db tcp/22 deny"),
    ):
        desk.apply(AssertionsSet(ORGANISATION, held))
    desk.do(CreateGroup("gone"))
    desk.do(DeleteGroup(next(id_ for id_, group in desk.snapshot.groups.items() if group.name == "gone")))
    desk.claim(H1, instance("a", "10.0.0.3"))
    desk.do(ReleaseInstance(desk.instance("b").id), OPERATOR)
    desk.do(RemoveInstance(desk.add_instance("leaves", "10.9.0.2", "2001:db8::9")), OPERATOR)
    return start, facts, desk.snapshot


def test_what_was_committed_is_loaded_again_equal_and_in_order(place):
    start, facts, wanted = everything()
    store = place.open()
    write_all(store, start, facts)
    kept = store.snapshot
    store.close()
    store = place.open()
    try:
        assert store.snapshot == kept
        assert [*store.snapshot.groups] == [*wanted.groups]
        assert store.snapshot.groups == wanted.groups
        assert store.snapshot.instances == wanted.instances
        assert store.snapshot.hosts == wanted.hosts
    finally:
        store.close()


def test_when_each_rule_was_made_is_read_from_what_undoes_it(place):
    start, facts, wanted = everything()
    store = place.open()
    write_all(store, start, facts)
    births = store.read_births()
    store.close()
    assert births == {rule.id: AUDIT.at for group in wanted.groups.values() for rule in group.rules}


def write_all(store, start, facts):
    """What ``everything`` made, into an empty store: a change for each fact."""
    store.submit(lambda snapshot: _all_of(start, snapshot)).result()
    for fact in facts:
        store.submit(writing([fact])).result()


def _all_of(start, snapshot):
    facts = [OrganisationCreated(organisation) for organisation in start.organisations.values()]
    facts += [GroupCreated(group) for group in start.groups.values()]
    facts += [HostAdded(host) for host in start.hosts.values()]
    after = apply_facts(snapshot, facts, revision=next_revision(snapshot))
    return Decision(None, facts=tuple(facts), after=after, audit=AUDIT)


@pytest.mark.usefixtures("store")
def test_every_table_carries_its_organisation(place):
    database = place.open_database(place.folder)
    without = {table for table in database.tables() if "organisation" not in database.columns(table)}
    database.close()
    assert without == {"meta", "organisation", "journal"}


def test_every_row_of_a_group_and_an_instance_has_their_organisation(place):
    start, facts, _ = everything()
    store = place.open()
    write_all(store, start, facts)
    store.close()
    for table in ("rule", "external_source", "instance", "interface", "interface_address", "worn_group"):
        assert place.rows(f"SELECT DISTINCT organisation FROM {table}") == [(str(ORGANISATION),)]  # noqa: S608  our own words
    assert (str(STRANGERS),) in place.rows("SELECT organisation FROM security_group")


def test_a_commit_leaves_revision_and_audit_line_together(store, place):
    store.submit(creating("web")).result()
    assert place.rows("SELECT number FROM revision") == [(1,), (2,)]
    (line,) = place.rows(
        "SELECT actor, address, request_id, action, subject, revision_before, revision_after, result"
        " FROM audit WHERE revision_after = 2",
    )
    assert line == ("EXOowner", "192.0.2.7", "request-1", "CreateGroup", "web", 1, 2, "applied")


def test_what_changes_nothing_is_audited_as_unchanged_and_makes_no_revision(store, place):
    store.submit(lambda _: Decision(None, audit=AUDIT)).result()
    assert place.rows("SELECT max(number) FROM revision") == [(1,)]
    assert place.rows("SELECT result FROM audit ORDER BY position DESC LIMIT 1") == [("unchanged",)]


def test_the_wanted_revision_of_touched_hosts_is_kept(place):
    desk = Desk()
    store = place.open()
    store.submit(lambda snapshot: _all_of(desk.snapshot, snapshot)).result()
    store.submit(writing([GroupCreated(Group(uuid4(), ORGANISATION, "x"))], touched=frozenset([H2]))).result()
    store.close()
    store = place.open()
    assert store.wanted == {H1: 1, H2: 2}
    store.close()


def test_operations_are_kept_with_their_hosts_and_their_end(place):
    store = founded(place)
    pending = Operation(uuid4(), ORGANISATION, uuid4(), 2, OperationState.PENDING, hosts=frozenset("ab"), created_at=7)
    facts = [GroupCreated(Group(pending.group, ORGANISATION, "x"))]
    store.submit(writing(facts, touched=pending.hosts, operation=pending, offline=frozenset("b"))).result()
    store.close()
    store = founded(place)
    (kept,) = store.operations
    assert (kept.operation, kept.offline, kept.awaited) == (pending, frozenset("b"), frozenset("a"))
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
    store = founded(place)
    assert [kept.operation for kept in store.operations] == [failed]
    store.close()


def test_changes_that_touch_the_same_hosts_share_one_row_of_them(place):
    store = founded(place)
    touching = [writing([GroupCreated(Group(uuid4(), ORGANISATION, name))], touched=frozenset("ab")) for name in NAMES]
    store.submit(touching[0]).result()
    gate = threading.Event()
    held = store.submit(lambda snapshot: gate.wait(5) and creating("held")(snapshot))
    batch = [store.submit(change) for change in touching[1:]]
    gate.set()
    for future in (held, *batch):
        future.result(5)
    assert place.rows("SELECT hosts FROM host_set") == [('["a","b"]',)]
    assert place.rows("SELECT count(*) FROM revision WHERE touched IS NOT NULL") == [(len(NAMES),)]
    store.close()


def test_hosts_of_operations_from_when_each_had_a_row_are_kept(place):
    """Format 9: an operation that waits for one of two hosts, one for one, and one without hosts."""
    database = place.open_database(place.folder)
    migrate(database, {number: script for number, script in load_migrations().items() if number < 10})
    database.begin()
    database.write((sql, [(b"",) * sql.count("?")]) for sql in FORMAT_9.format(o=ORGANISATION).splitlines())
    database.commit()
    database.close()
    store = place.open()
    found = [(one.operation.revision, one.operation.hosts, one.offline) for one in store.operations]
    assert found == [(2, {"a", "b"}, {"b"}), (3, {"a"}, set()), (None, set(), set())]
    assert store.wanted == {"a": 3, "b": 4}
    store.close()


def test_keys_are_kept_sealed_and_gone_when_revoked(place):
    store = founded(place)
    store.submit(lambda _: Decision(None, records=(KeyCreated(KEY),))).result()
    store.close()
    assert all(KEY.secret.encode() not in path.read_bytes() for path in place.folder.iterdir())
    store = founded(place)
    assert store.keys == (KEY,)
    store.submit(lambda _: Decision(None, records=(KeyRevoked(KEY.id),))).result()
    store.close()
    store = founded(place)
    assert store.keys == ()
    store.close()


def test_a_rotated_key_keeps_its_old_secret_sealed_and_bound_to_its_end(place):
    store = founded(place)
    rotated = replace(KEY, secret="n3w" * 9, previous=KEY.secret, previous_until=5000, scope=frozenset({uuid4()}))
    for record in (KeyCreated(replace(KEY, scope=rotated.scope)), KeyRotated(rotated)):
        store.submit(lambda _, record=record: Decision(None, records=(record,), audit=AUDIT)).result()
    store.close()
    content = b"".join(path.read_bytes() for path in place.folder.iterdir() if path.is_file())
    assert KEY.secret.encode() not in content
    assert rotated.secret.encode() not in content
    store = place.open()
    assert store.keys == (rotated,)
    store.close()
    place.run("UPDATE api_key SET previous_until = previous_until + 1")
    with pytest.raises(OperatorError, match="reading the secret"):
        place.open()


def test_a_key_whose_scope_was_widened_on_disk_is_refused(place):
    store = founded(place)
    scoped = replace(KEY, scope=frozenset({uuid4()}))
    store.submit(lambda _: Decision(None, records=(KeyCreated(scoped),), audit=AUDIT)).result()
    store.close()
    place.run("DELETE FROM api_key_scope")
    with pytest.raises(OperatorError, match="reading the secret"):
        place.open()


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
def test_a_broken_decision_takes_nothing_with_it(store, place, broken):
    def defect(_):
        raise ZeroDivisionError

    facts = [GroupCreated(Group(uuid4(), ORGANISATION, "half")), GroupWorn(uuid4(), uuid4())]

    def constraint(snapshot):
        return Decision(None, facts=tuple(facts), after=snapshot, audit=AUDIT)

    with pytest.raises(OperatorError):
        store.submit({"constraint": constraint, "defect": defect}[broken]).result()
    store.submit(creating("web")).result()
    assert place.rows("SELECT name FROM security_group ORDER BY position") == [("default",), ("web",)]


@pytest.fixture
def failing(place):
    return Failing(place)


@pytest.fixture
def broken_store(place, failing):
    store = founded(place, failing)
    yield store
    failing.fails = False
    store.close()


def test_a_failed_commit_publishes_nothing_and_makes_every_caller_of_the_batch_busy(broken_store, place, failing):
    before = broken_store.snapshot
    failing.fails = True
    gate = threading.Event()
    first = broken_store.submit(lambda snapshot: gate.wait(5) and creating("a")(snapshot))
    batch = [first, *(broken_store.submit(creating(name)) for name in "bcd")]
    gate.set()
    for future in batch:
        with pytest.raises(Busy, match="nothing was applied"):
            future.result(5)
    assert broken_store.snapshot is before
    assert place.rows("SELECT name FROM security_group") == [("default",)]


def test_writing_goes_on_by_itself_when_commits_succeed_again(broken_store, place, failing, caplog):
    failing.fails = True
    with pytest.raises(Busy) as refused:
        broken_store.submit(creating("web")).result()
    assert str(refused.value) == UNWRITTEN  # which tells no caller where the database is, and of what it is full
    assert "database or disk is full" in caplog.text
    failing.fails = False
    broken_store.submit(creating("web")).result()
    assert place.rows("SELECT name FROM security_group") == [("default",), ("web",)]
    assert place.rows("SELECT number FROM revision") == [(1,), (2,)]


@pytest.mark.parametrize("new_place", ["postgresql"], indirect=True)  # SQLite knows at once
@pytest.mark.parametrize("made", [True, False])
def test_callers_of_a_commit_in_doubt_hear_nothing_until_it_is_known_and_others_are_busy(
    broken_store, place, failing, monkeypatch, made
):
    monkeypatch.setattr(writer, "IN_DOUBT_S", 0.05)
    failing.is_away, failing.makes = True, made
    doubtful = broken_store.submit(creating("web"))
    assert failing.committing.wait(5)
    with pytest.raises(Busy, match="nothing was applied"):
        broken_store.submit(creating("db")).result(5)
    assert not doubtful.done()
    failing.is_away = False
    if made:
        assert doubtful.result(5).snapshot.revision == 2
    else:
        with pytest.raises(Busy, match="nothing was applied"):
            doubtful.result(5)
    wanted = [("default",), ("web",)] if made else [("default",)]
    assert place.rows("SELECT name FROM security_group ORDER BY position") == wanted
    assert broken_store.submit(creating("after")).result(5)


@pytest.mark.parametrize("new_place", ["postgresql"], indirect=True)  # SQLite has one server
def test_a_server_that_may_not_write_for_long_still_sees_what_others_committed(place):
    store, other = founded(place), place.open_database(place.folder)
    store._writer._database._connection.execute("SET statement_timeout = 300")
    known_s = store._writer.heard_s
    other.begin()  # and hangs with the lock
    first = store.submit(creating("web"))
    second, seen = store.submit(creating("db")), store.refresh()  # wait together for the first
    wait((first, second, seen), 5)
    for refused in (first, second):
        with pytest.raises(Busy, match="nothing was applied"):
            refused.result(0)
    assert store._writer.heard_s > known_s
    other.close()
    store.close()


@pytest.mark.parametrize("new_place", ["postgresql"], indirect=True)  # SQLite knows at once
def test_a_server_that_ends_while_a_commit_is_in_doubt_gives_no_answer(place, failing):
    store = founded(place, failing)
    failing.is_away = True
    doubtful = store.submit(creating("web"))
    assert failing.committing.wait(5)
    store.close()
    assert not doubtful.done()


@pytest.mark.parametrize("new_place", ["postgresql"], indirect=True)  # SQLite knows at once
@pytest.mark.parametrize("made", [True, False])
def test_a_server_that_ends_while_a_commit_is_in_doubt_asks_once_more(place, failing, monkeypatch, made):
    monkeypatch.setattr(writer, "_PAUSE_S", 60.0)
    store = founded(place, failing)
    failing.is_away, failing.makes = True, made
    doubtful = store.submit(creating("web"))
    assert failing.asked.wait(5)
    failing.is_away = False
    store.close()
    assert (doubtful.exception(0) is None) == made
    assert place.rows("SELECT count(*) FROM security_group") == [(2 if made else 1,)]


def test_a_closed_store_takes_no_more_writes(place):
    store = founded(place)
    queued = store.submit(creating("web"))
    store.close()
    assert queued.result().snapshot.revision == 2
    with pytest.raises(Busy, match="stopping"):
        store.submit(creating("db")).result()


def test_a_newer_format_is_refused_untouched(place):
    founded(place).close()
    place.run("UPDATE meta SET value = '999' WHERE name = 'format'")
    newest = max(load_migrations())
    with pytest.raises(OperatorError, match=f"its format is 999, this program knows formats up to {newest}"):
        place.open()


def test_the_epoch_is_random_and_stays(place, new_place):
    epochs = []
    for one in (place, place, new_place()):
        store = founded(one)
        epochs.append(store.epoch)
        store.close()
    assert epochs[0] == epochs[1] != epochs[2]


def test_another_programs_database_is_refused(place):
    place.run("CREATE TABLE theirs (a TEXT)")
    with pytest.raises(OperatorError, match="none of ringfence's"):
        place.open()


def with_key(place):
    store = founded(place)
    store.submit(lambda _: Decision(None, records=(KeyCreated(KEY),))).result()
    store.close()


@pytest.mark.parametrize("column", ["role = 'operator'", "id = 'EXO2'", f"organisation = '{STRANGERS}'"])
def test_a_sealed_secret_cannot_be_moved_to_another_row_or_right(place, column):
    with_key(place)
    store = place.open()
    strangers = [OrganisationCreated(Organisation(STRANGERS, "strangers", UUID(int=0xE)))]
    strangers += [GroupCreated(Group(UUID(int=0xE), STRANGERS, "default"))]
    store.submit(writing(strangers)).result()
    store.close()
    place.run(f"UPDATE api_key SET {column}")  # noqa: S608  our own words
    with pytest.raises(OperatorError):
        place.open()


def test_a_public_group_survives_with_its_visibility(store, place):
    group = Group(uuid4(), ORGANISATION, "dns", None, Visibility.PUBLIC, sources=(cidr("192.0.2.1/24"),))
    store.submit(writing([GroupCreated(group)])).result()
    store.close()
    again = place.open()
    assert again.snapshot.groups[group.id] == group
    again.close()
