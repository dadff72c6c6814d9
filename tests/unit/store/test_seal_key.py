"""Whose key a shared database is sealed with is settled by the first server that starts on it."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from places import Place, postgres_place
from ringfence.policy.errors import OperatorError
from ringfence.policy.values import GroupId
from ringfence.store import Decision, KeyCreated
from ringfence.store.copies import back_up, bring_back
from ringfence.store.reseal import reseal
from unit.store.test_store import KEY, founded

OPERATIONS = Path(__file__).parents[3] / "docs/operations.md"
ANOTHER_KEY = "another server has sealed .* with another key: copy the key from"


@pytest.fixture
def two(postgres, tmp_path):
    """Two folders of servers that share an empty database."""
    url = postgres.database()
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    return [postgres_place(folder, url) for folder in folders]


def opens(place):
    try:
        place.open().close()
    except OperatorError as error:
        assert "with another key" in str(error)  # noqa: PT017  one of two may be refused
        return False
    return True


def copy_key(source, target):
    (target.folder / "secret.key").unlink(missing_ok=True)
    shutil.copy(source.folder / "secret.key", target.folder)


def test_a_server_with_another_key_is_refused_before_there_is_any_secret(two):
    first, second = two
    first.open().close()
    with pytest.raises(OperatorError, match=r"it is missing.*copy it from another server of the database"):
        second.open()
    (second.folder / "secret.key").write_bytes(b"k" * 32)
    (second.folder / "secret.key").chmod(0o400)
    with pytest.raises(OperatorError, match=ANOTHER_KEY):
        second.open()
    copy_key(first, second)
    second.open().close()


def test_of_two_that_start_at_once_with_keys_of_their_own_one_is_refused(two):
    two[0].open_database(two[0].folder).close()
    for place, letter in zip(two, b"ab", strict=True):
        (place.folder / "secret.key").write_bytes(bytes([letter]) * 32)
        (place.folder / "secret.key").chmod(0o400)
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(opens, two)) == [False, True]


def test_sealing_anew_without_any_secret_refuses_the_old_key(two):
    first, second = two
    founded(first).close()
    copy_key(first, second)
    assert reseal(first.folder, actor="operator", now_s=0) == 0
    first.open().close()
    with pytest.raises(OperatorError, match=ANOTHER_KEY):
        second.open()


def test_a_backup_of_a_shared_database_goes_into_sqlite_which_needs_no_mark(two, tmp_path):
    first, _ = two
    first.open().close()
    back_up(first.folder, tmp_path / "backup")
    bring_back(tmp_path / "backup", tmp_path / "c", None)
    with closing(Place(tmp_path / "c").open()) as store:
        assert store.snapshot.revision == 0
    assert Place(tmp_path / "c").rows("SELECT name FROM meta WHERE name = 'seal'") == []


def test_the_documented_way_out_when_no_server_has_the_key_leaves_all_but_the_keys(place):
    (page,) = re.findall(r"```sql\n(.*?)```", OPERATIONS.read_text(), re.DOTALL)
    scoped = replace(KEY, id=f"{KEY.id}2", scope=frozenset({GroupId(UUID(int=1))}))
    with closing(founded(place)) as store:
        for key in (KEY, scoped):
            store.submit(lambda _, key=key: Decision(None, records=(KeyCreated(key),))).result()
        snapshot = store.snapshot
    (place.folder / "secret.key").unlink()
    with pytest.raises(OperatorError, match=r"restore a backup.*docs/operations\.md \(Backup and restore\)"):
        place.open()
    for statement in page.split(";"):
        if statement.strip() not in ("", "BEGIN", "COMMIT"):
            place.run(statement)
    with closing(place.open()) as store:
        assert (store.keys, store.snapshot) == ((), snapshot)
        assert store.check_history().broken is None
        store.submit(lambda _: Decision(None, records=(KeyCreated(scoped),))).result()
    with closing(place.open()) as store:
        assert store.keys == (scoped,)
