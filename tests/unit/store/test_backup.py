"""A backup of either database brings back the same store in either, in a new life."""

import asyncio
import gc
import re
import shutil
import stat
from contextlib import closing
from uuid import uuid4

import psycopg
import pytest

from places import KINDS, Place, postgres_place
from ringfence.control.plane import ControlPlane
from ringfence.policy.errors import Invalid, OperatorError
from ringfence.store import Decision, KeyCreated, Store
from ringfence.store.backup import dump
from ringfence.store.copies import back_up, bring_back, move
from ringfence.store.place import place_of, remember, remembered
from unit.store.test_store import AUDIT, KEY, creating, everything, write_all

EMPTY_URL = "postgresql://nobody@127.0.0.1:1/none"


def filled(place):
    """A store with something in every table; what it holds in memory, and its epoch."""
    start, facts, _ = everything()
    store = place.open()
    write_all(store, start, facts)
    store.submit(lambda _: Decision(None, records=(KeyCreated(KEY),), audit=AUDIT)).result()
    snapshot, epoch = store.snapshot, store.epoch
    store.close()
    return snapshot, epoch


@pytest.fixture(params=KINDS)
def target(request, tmp_path):
    """A folder, and the URL of the database that a store is to be restored into."""
    folder = tmp_path / "target"
    return folder, request.getfixturevalue("postgres").database() if request.param == "postgresql" else None


def test_a_backup_brings_back_the_same_store_with_its_keys_in_a_new_epoch(place, target, tmp_path):
    snapshot, epoch = filled(place)
    file = tmp_path / "backup"
    assert back_up(place.folder, file) == file.stat().st_size
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    folder, url = target
    counts = bring_back(file, folder, url)
    assert counts["rule"][0] == sum(len(group.rules) for group in snapshot.groups.values())
    store = Store.open(folder, place_of(folder))
    try:
        assert store.snapshot == snapshot
        assert store.keys == (KEY,)
        assert store.epoch != epoch
        assert store.check_history().broken is None
        assert store.submit(creating("later")).result().snapshot.revision == snapshot.revision + 1
    finally:
        store.close()


def test_moving_makes_postgresql_the_folders_database(postgres, tmp_path):
    snapshot, epoch = filled(Place(tmp_path))
    url = postgres.database()
    move(tmp_path, url)

    async def opened():
        plane = await ControlPlane.open(tmp_path)
        found = plane.snapshot, plane.epoch
        await plane.close()
        return found

    found, new_epoch = asyncio.run(opened())
    assert found == snapshot
    assert new_epoch != epoch
    assert (tmp_path / "database").read_text().strip() == url
    with pytest.raises(OperatorError, match="no SQLite database"):
        move(tmp_path, url)


def test_a_target_that_is_not_empty_is_refused_and_left_alone(postgres, tmp_path):
    snapshot, _ = filled(Place(tmp_path))
    taken = postgres_place(tmp_path / "other", postgres.database()) if (tmp_path / "other").mkdir() is None else None
    theirs, _ = filled(taken)
    url = (tmp_path / "other" / "database").read_text().strip()
    with pytest.raises(OperatorError, match="not empty"):
        move(tmp_path, url)
    assert not (tmp_path / "database").exists()
    for place, wanted in ((Place(tmp_path), snapshot), (taken, theirs)):
        store = place.open()
        assert store.snapshot == wanted
        store.close()


DAMAGES = {
    "cut": lambda whole: whole[: whole.rindex(b'{"rows"')],
    "changed": lambda whole: whole.replace(b"described", b"DESCRIBED"),
    "foreign": lambda _: b"theirs",
    "another key": lambda whole: re.sub(rb'"seal-key":"..', b'"seal-key":"AA', whole, count=1),
    "no key": lambda whole: whole.replace(b"seal-key", b"seal-kez", 1),
    "no octets": lambda whole: whole.replace(b'{"base64":"', b'{"base64":"!', 1),
    "no table": lambda whole: whole.replace(b'{"table":"rule"', b'{"tabke":"rule"', 1),
    "large number": lambda whole: re.sub(rb"(?<=\[)\d+(?=,)", b"%d" % (1 << 70), whole, count=1),
    "no text": lambda whole: whole.replace(b"described", b"descr\xffbed", 1),
}


def refused_and_then_taken(source, target, damage):
    """A damaged backup is refused and leaves nothing; into the same place the whole one goes."""
    filled(source)
    folder, url = target
    file = folder.with_name("backup")
    back_up(source.folder, file)
    whole = file.read_bytes()
    file.write_bytes(DAMAGES[damage](whole))
    assert file.read_bytes() != whole
    with pytest.raises((OperatorError, Invalid), match=f"{re.escape(str(file))}|what came back differs"):
        bring_back(file, folder, url)
    shutil.rmtree(folder)
    folder.mkdir()
    file.write_bytes(whole)
    assert bring_back(file, folder, url)


@pytest.mark.parametrize("damage", ["cut", "changed", "foreign"])
def test_a_damaged_backup_is_refused_and_leaves_nothing(place, target, damage):
    refused_and_then_taken(place, target, damage)


@pytest.mark.parametrize("damage", ["another key", "no key", "no octets", "no table", "large number", "no text"])
def test_a_backup_is_refused_whatever_of_it_was_damaged(tmp_path, damage):
    refused_and_then_taken(Place(tmp_path / "source"), (tmp_path / "target", None), damage)


def test_a_backup_that_fails_leaves_no_file_that_looks_like_one(tmp_path):
    filled(Place(tmp_path))
    (tmp_path / "secret.key").rename(tmp_path / "elsewhere")
    with pytest.raises(OperatorError, match="it is missing"):
        back_up(tmp_path, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "secret.key")
    assert back_up(tmp_path, tmp_path / "backup")


def test_a_folder_with_another_key_is_refused_and_the_database_stays_empty(target, tmp_path):
    filled(Place(tmp_path / "source"))
    back_up(tmp_path / "source", tmp_path / "backup")
    folder, url = target
    folder.mkdir()
    (folder / "secret.key").write_bytes(bytes(32))
    with pytest.raises(OperatorError, match="another key is there"):
        bring_back(tmp_path / "backup", folder, url)
    (folder / "secret.key").unlink()
    assert bring_back(tmp_path / "backup", folder, url)


def test_a_backup_sees_one_moment_while_the_server_writes(place):
    filled(place)
    store = place.open()
    reader = place.open_database(place.folder)
    lines = dump(reader, lambda: bytes(32))
    first = [next(lines) for _ in range(3)]
    store.submit(creating(f"meanwhile-{uuid4()}")).result()
    rest = b"".join([*first, *lines])
    reader.close()
    store.close()
    assert b"meanwhile" not in rest


def test_the_folders_database_is_named_whole_or_not_at_all(tmp_path):
    remember(tmp_path, "postgresql://old")
    (tmp_path / "before").hardlink_to(tmp_path / "database")
    remember(tmp_path, "postgresql://new")
    assert remembered(tmp_path) == "postgresql://new"
    assert "old" in (tmp_path / "before").read_text()  # it was replaced, and never half written


def test_an_unreachable_target_says_so(tmp_path):
    filled(Place(tmp_path))
    with pytest.raises(OperatorError, match="moving"):
        move(tmp_path, EMPTY_URL)


@pytest.mark.filterwarnings("error:Exception ignored in. <generator")
def test_a_database_that_is_another_roles_is_refused_in_words_and_the_store_is_closed(postgres, tmp_path):
    filled(Place(tmp_path))
    url = postgres.database()
    with closing(psycopg.connect(url, autocommit=True)) as owner:
        owner.execute("CREATE ROLE stranger LOGIN")
        owner.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # as it is by default since PostgreSQL 15
    try:
        with pytest.raises(OperatorError, match=r"permission denied for schema public.*ALTER DATABASE . OWNER TO"):
            move(tmp_path, re.sub(r"//[^@/]*@", "//stranger@", url))
    finally:
        with closing(psycopg.connect(url, autocommit=True)) as owner:
            owner.execute("DROP ROLE stranger")
    gc.collect()  # what was left open would complain
    assert remembered(tmp_path) is None
