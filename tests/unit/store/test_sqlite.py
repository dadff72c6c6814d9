"""SQLite and the folder around it: who may read it, who holds it, and damage that is refused."""

import os
import sqlite3
import stat
from contextlib import closing

import pytest

from desk import ORGANISATION, Desk, tcp
from places import Place
from ringfence.policy.errors import Busy, OperatorError
from ringfence.policy.facts import GroupCreated
from ringfence.store import Decision, FolderHeld, KeyCreated, Store
from ringfence.store.folder import DATABASE
from ringfence.store.migrate import format_of, load_migrations
from ringfence.store.sqlite import connect, open_sqlite
from unit.store.test_store import AUDIT, KEY, creating, founded, with_key, writing


@pytest.fixture
def store(tmp_path):
    store = founded(Place(tmp_path))
    yield store
    store.close()


def test_a_commit_returns_only_when_the_disk_has_it(tmp_path):
    """The settings that this rests on; 2 is FULL: with less, a power cut loses commits (sqlite.org/pragma.html)."""
    connection = connect(tmp_path / "db")
    found = [
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "foreign_keys")
    ]
    connection.close()
    assert found == ["wal", 2, 1]


def test_a_foreign_lock_makes_writers_busy_and_readers_go_on(store, tmp_path, caplog):
    foreign = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    with pytest.raises(Busy):
        store.submit(creating("web")).result(10)
    assert "locked" in caplog.text
    assert [group.name for group in store.snapshot.groups.values()] == ["default"]
    foreign.execute("ROLLBACK")
    foreign.close()
    store.submit(creating("web")).result()


def test_nothing_is_acknowledged_that_goes_into_a_file_which_is_not_there_any_more(store, tmp_path, caplog):
    file, elsewhere = tmp_path / DATABASE, tmp_path / "elsewhere"
    file.rename(elsewhere)
    another = ("nothing", file.touch, file.unlink, lambda: file.symlink_to(file))  # the last one: its path has no end
    for number, put in enumerate(another, 1):
        if callable(put):
            put()
        with pytest.raises(Busy):
            store.submit(creating("web")).result()
        assert caplog.text.count("the file was removed, replaced or closed to us") == number
    file.unlink()
    elsewhere.rename(file)
    store.submit(creating("web")).result()


def test_no_store_begins_where_one_was_lost(tmp_path):
    founded(Place(tmp_path)).close()
    (tmp_path / DATABASE).unlink()
    for _ in range(2):  # missing at first, then empty
        with pytest.raises(OperatorError, match="a store was here: restore a backup"):
            Store.open(tmp_path)
    (tmp_path / "secret.key").unlink()
    Store.open(tmp_path).close()


@pytest.mark.usefixtures("store")
def test_the_folder_is_held_and_the_holder_is_named(tmp_path):
    with pytest.raises(FolderHeld, match=f"process {os.getpid()} holds its lock"):
        Store.open(tmp_path)


def test_a_refused_open_gives_the_folder_back(tmp_path):
    founded(Place(tmp_path)).close()
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
    founded(Place(tmp_path / "a" / "b")).close()
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_a_lost_seal_key_is_not_replaced_while_there_are_secrets(tmp_path):
    with_key(Place(tmp_path))
    (tmp_path / "secret.key").unlink()
    with pytest.raises(OperatorError, match=r"secret.key: it is missing.*restore a backup"):
        Store.open(tmp_path)


def test_another_seal_key_is_refused(tmp_path):
    with_key(Place(tmp_path))
    path = tmp_path / "secret.key"
    path.unlink()
    path.write_bytes(bytes(32))
    path.chmod(0o400)
    with pytest.raises(OperatorError, match=f"secret of {ORGANISATION}/EXO1/owner"):
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
    store = founded(Place(tmp_path))
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
    founded(Place(tmp_path)).close()
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
    founded(Place(tmp_path)).close()
    _damage_history(tmp_path)
    with pytest.raises(OperatorError, match="CHECK constraint failed in audit"):
        Store.open(tmp_path)


def test_what_is_damaged_is_brought_to_no_newer_format(tmp_path):
    founded(Place(tmp_path)).close()
    older = max(load_migrations()) - 1
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("UPDATE meta SET value = ? WHERE name = 'format'", (str(older),))
    connection.commit()
    connection.close()
    _damage_history(tmp_path)
    with pytest.raises(OperatorError, match="CHECK constraint failed in audit"):
        Store.open(tmp_path)
    with closing(open_sqlite(tmp_path)) as database:
        assert format_of(database) == older


def _damage_history(folder):
    connection = sqlite3.connect(folder / DATABASE)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("UPDATE audit SET result = 'applied?'")
    connection.commit()
    connection.close()


def test_a_file_that_is_no_database_is_refused(tmp_path):
    founded(Place(tmp_path)).close()
    (tmp_path / DATABASE).write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(OperatorError, match="restore the folder from a backup"):
        Store.open(tmp_path)


def test_what_only_cannot_be_opened_now_is_not_called_damaged(tmp_path):
    (tmp_path / DATABASE).mkdir()
    with pytest.raises(OperatorError, match=r"unable to open database file.*: mend that, then start anew"):
        Store.open(tmp_path)


def test_the_seal_key_may_come_from_systemd_and_goes_before_the_folders(tmp_path, monkeypatch):
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "secret.key").write_bytes(bytes(range(32)))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    folder = tmp_path / "data"
    store = founded(Place(folder))
    store.submit(lambda _: Decision(None, records=(KeyCreated(KEY),), audit=AUDIT)).result()
    store.close()
    assert not (folder / "secret.key").exists()
    store = Store.open(folder)
    assert store.keys == (KEY,)
    store.close()
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(OperatorError, match="missing"):
        Store.open(folder)


def test_many_rows_are_few_statements_and_keep_their_order(tmp_path):
    database = open_sqlite(tmp_path)
    rows = [(f"row {n}", n) for n in range(64 + 16 + 4 + 3)]
    database.define(["CREATE TABLE made (name TEXT, number INTEGER)"])
    statements = []
    database._connection.set_trace_callback(statements.append)
    database.begin()
    database.write([("INSERT INTO made (name, number) VALUES (?, ?)", rows)])
    database.write([("UPDATE made SET number = number + ? WHERE name = ?", [(0, "row 1"), (0, "row 2")])])
    database.commit()
    assert list(database.query("SELECT name, number FROM made ORDER BY rowid")) == rows
    assert sum(one.startswith("INSERT") for one in statements) == 6
    database.close()
