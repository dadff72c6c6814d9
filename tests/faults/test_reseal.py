"""The secrets sealed anew, and kill -9 meanwhile: the old key and what it opens are in force, or the new one."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import pytest

from places import Place, postgres_place
from ringfence.control.commits import Commits
from ringfence.policy.errors import OperatorError
from ringfence.store import Decision, FolderHeld, HistoryQuery, KeyCreated, KeyRotated, Lost
from ringfence.store.copies import back_up, bring_back
from ringfence.store.reseal import reseal
from ringfence.store.seal_key import find_credential
from unit.store.test_store import KEY, founded

ROTATED = replace(KEY, secret="n3w" * 9, previous=KEY.secret, previous_until=5000)

NEW_AFTER = {  # a call at which the process is killed, in their order; whether the new key is in force from then on
    "ringfence.store.reseal.load_chain": False,
    "ringfence.store.reseal.Follower.note": False,
    "DATABASE.commit": False,
    "ringfence.store.seal_key.sync_folder": True,
    "DATABASE.scrub": True,
}
DATABASES = {
    "sqlite": "ringfence.store.sqlite.SqliteDatabase",
    "postgresql": "ringfence.store.postgresql.PostgresDatabase",
}
CALLS = {"pwrite64": 8, "fdatasync": 1, "fsync": 1, "rename": 1, "unlink": 1, "ftruncate": 1}  # every how manieth


@pytest.fixture
def sealed(place):
    """A folder whose store has a key, with a secret of before its rotation."""
    store = founded(place)
    for record in (KeyCreated(KEY), KeyRotated(ROTATED)):
        store.submit(lambda _, record=record: Decision(None, records=(record,))).result()
    store.close()
    return place


def key_of(place):
    return (place.folder / "secret.key").read_bytes()


def keys_in(place):
    with closing(place.open()) as store:
        assert not (place.folder / "secret.key.next").exists()
        return store.keys


def test_the_secrets_stay_and_the_old_key_opens_none_of_them(sealed):
    old = key_of(sealed)
    assert reseal(sealed.folder, actor="operator", now_s=1_700_000_000) == 1
    assert keys_in(sealed) == (ROTATED,)
    new = key_of(sealed)
    assert new != old
    with closing(sealed.open()) as store:
        (line,) = store.read_history(HistoryQuery(limit=1, newest=True))
        assert (line.actor, line.action, line.subject) == ("operator", "Reseal", "1 keys")
        assert store.check_history().broken is None
    (sealed.folder / "secret.key").chmod(0o600)
    (sealed.folder / "secret.key").write_bytes(old)
    with pytest.raises(OperatorError, match="copy the key from a server where it was sealed anew"):
        sealed.open()


def test_a_store_without_an_organisation_yet_gets_a_new_key_too(place):
    place.open().close()
    old = key_of(place)
    assert reseal(place.folder, actor="operator", now_s=1_700_000_000) == 0
    assert keys_in(place) == ()
    assert key_of(place) != old


@pytest.mark.parametrize("new_place", ["sqlite"], indirect=True)  # PostgreSQL's files are its own
def test_what_the_old_key_had_sealed_is_nowhere_in_the_folder(sealed):
    (before,) = sealed.rows("SELECT sealed_secret, sealed_previous FROM api_key")
    reseal(sealed.folder, actor="operator", now_s=1_700_000_000)
    found = b"".join(path.read_bytes() for path in sealed.folder.iterdir())
    assert not any(bytes(one) in found for one in before)


@pytest.mark.parametrize("new_place", ["sqlite"], indirect=True)  # no database matters
def test_a_folder_in_use_is_left_alone(sealed):
    with closing(sealed.open()), pytest.raises(FolderHeld):
        reseal(sealed.folder, actor="operator", now_s=1_700_000_000)


@pytest.mark.parametrize("new_place", ["sqlite"], indirect=True)
def test_a_key_of_systemds_is_not_replaced_behind_its_back(sealed, tmp_path, monkeypatch):
    (tmp_path / "secret.key").write_bytes(key_of(sealed))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(OperatorError, match=f"its key is {find_credential()}, which systemd owns"):
        reseal(sealed.folder, actor="operator", now_s=1_700_000_000)
    assert keys_in(sealed) == (ROTATED,)


@pytest.mark.parametrize("new_place", ["postgresql"], indirect=True)
def test_another_server_of_the_database_ends_itself(sealed, tmp_path):
    shutil.copy(sealed.folder / "secret.key", tmp_path)
    other = postgres_place(tmp_path, (sealed.folder / "database").read_text().strip())
    with closing(other.open()) as store:
        reseal(sealed.folder, actor="operator", now_s=1_700_000_000)
        with pytest.raises(Lost, match=r"copy secret\.key from the server"):
            store.refresh().result()
    shutil.copy(sealed.folder / "secret.key", tmp_path)
    assert keys_in(other) == (ROTATED,)


@pytest.mark.parametrize("new_place", ["postgresql"], indirect=True)
def test_another_server_that_nobody_asks_ends_itself_too(sealed, tmp_path):
    shutil.copy(sealed.folder / "secret.key", tmp_path)
    other = postgres_place(tmp_path, (sealed.folder / "database").read_text().strip())

    async def serve(store):
        commits = Commits(store, publish=print)
        commits.follow(print)
        await asyncio.to_thread(reseal, sealed.folder, actor="operator", now_s=1_700_000_000)
        return await asyncio.wait_for(commits.failure, 20)

    with closing(other.open()) as store:
        assert "copy secret.key from the server" in str(asyncio.run(serve(store)))


@pytest.mark.parametrize("call", NEW_AFTER)
@pytest.mark.parametrize("new_place", ["sqlite", pytest.param("postgresql", marks=pytest.mark.full)], indirect=True)
def test_a_kill_at_any_step_leaves_the_old_key_or_the_new_one_in_force(sealed, tmp_path, monkeypatch, request, call):
    kind = request.node.callspec.params["new_place"]
    old = key_of(sealed)
    with monkeypatch.context() as patch:
        patch.setattr(call.replace("DATABASE", DATABASES[kind]), _die)
        _in_a_child(lambda: reseal(sealed.folder, actor="operator", now_s=1_700_000_000))
    back_up(sealed.folder, tmp_path / "backup")
    assert keys_in(sealed) == (ROTATED,)
    assert (key_of(sealed) != old) == NEW_AFTER[call]
    reseal(sealed.folder, actor="operator", now_s=1_700_000_000)
    assert keys_in(sealed) == (ROTATED,)
    bring_back(tmp_path / "backup", tmp_path / "restored", None)
    assert keys_in(Place(tmp_path / "restored")) == (ROTATED,)


def _die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def _in_a_child(work):
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("call", CALLS)
def test_a_kill_at_any_system_call_leaves_the_old_key_or_the_new_one_in_force(tmp_path, call):
    """Calls of that name, one run each, until a run comes to its end."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: apt install strace")
    number, is_killed = 1, True
    while is_killed:
        place = Place(tmp_path / str(number))
        with closing(founded(place)) as store:
            store.submit(lambda _: Decision(None, records=(KeyCreated(KEY),))).result()
        is_killed = _killed_at(call, number, place.folder)
        assert keys_in(place) == (KEY,)
        reseal(place.folder, actor="operator", now_s=1_700_000_000)
        assert keys_in(place) == (KEY,)
        number += CALLS[call]
        assert number < 300


def _killed_at(call, number, folder):
    inject = f"inject={call}:signal=KILL:when={number}"
    program = [sys.executable, "-m", "ringfence", "server", "reseal", "--data", folder]
    done = subprocess.run(  # noqa: S603  our own
        ["strace", "-f", "-e", f"trace={call}", "-e", inject, "-o", "/dev/null", *program],  # noqa: S607
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    if b"ptrace" in done.stderr:
        pytest.skip(f"no permission to trace: {done.stderr.decode().strip()}")
    assert done.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), done.stderr.decode()
    return done.returncode != 0
