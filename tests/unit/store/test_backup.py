"""A backup of either database brings back the same store in either, in a new life."""

import asyncio
import shutil
import stat
from uuid import uuid4

import pytest

from places import KINDS, Place, postgres_place
from ringfence.control.plane import ControlPlane
from ringfence.policy.errors import Invalid, OperatorError
from ringfence.store import Decision, KeyCreated, Store
from ringfence.store.backup import dump
from ringfence.store.copies import back_up, bring_back, move
from ringfence.store.place import place_of
from unit.store.test_store import AUDIT, KEY, _all_of, creating, everything, writing

EMPTY_URL = "postgresql://nobody@127.0.0.1:1/none"


def filled(place):
    """A store with something in every table; what it holds in memory, and its epoch."""
    start, facts, _ = everything()
    store = place.open()
    store.submit(lambda snapshot: _all_of(start, snapshot)).result()
    for fact in facts:
        store.submit(writing([fact])).result()
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


@pytest.mark.parametrize("damage", ["cut", "changed", "foreign"])
def test_a_damaged_backup_is_refused_and_leaves_nothing(place, target, tmp_path, damage):
    filled(place)
    file = tmp_path / "backup"
    back_up(place.folder, file)
    lines = file.read_bytes().splitlines(keepends=True)
    changed = b"".join(lines).replace(b"described", b"DESCRIBED")
    file.write_bytes({"cut": b"".join(lines[:-1]), "changed": changed, "foreign": b"theirs"}[damage])
    folder, url = target
    with pytest.raises((OperatorError, Invalid)):
        bring_back(file, folder, url)
    shutil.rmtree(folder)
    folder.mkdir()
    file.write_bytes(b"".join(lines))
    assert bring_back(file, folder, url)


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


def test_an_unreachable_target_says_so(tmp_path):
    filled(Place(tmp_path))
    with pytest.raises(OperatorError, match="moving"):
        move(tmp_path, EMPTY_URL)
