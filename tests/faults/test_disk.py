"""A full disk, and files that were damaged: writers wait, readers go on, and half a policy is never served."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from counts import count
from desk import OPERATOR, ORGANISATION
from postgres import missing
from ringfence.control.use_cases import found_organisation
from ringfence.policy.errors import OperatorError
from ringfence.policy.facts import GroupCreated, apply_facts
from ringfence.policy.model import Group
from ringfence.store import AuditLine, Decision, Store, next_revision
from ringfence.store.folder import DATABASE

CHILD = Path(__file__).with_name("filling_child.py")
READ_ONLY_CHILD = CHILD.with_name("read_only_child.py")
FLIPS = count(reduced=20, stated=400)
CUTS = count(reduced=20, stated=400)
GROUPS = 30


def test_a_full_disk_makes_writers_busy_and_they_recover_by_themselves(tmp_path):
    held = filled(tmp_path, "2m")
    assert held == dict.fromkeys(held, True)


@pytest.mark.long
def test_a_full_disk_under_postgresql_makes_writers_busy_and_they_recover_by_themselves(tmp_path):
    if why := missing():
        pytest.skip(why)
    held = filled(tmp_path, "12m", "tables")
    assert held == dict.fromkeys(held, True)


@pytest.mark.long
def test_a_full_disk_under_the_log_of_postgresql_ends_it_and_all_goes_on_when_it_is_started_anew(tmp_path):
    if why := missing():
        pytest.skip(why)
    held = filled(tmp_path, "32m", "log")
    assert held == dict.fromkeys(held, True)


@pytest.mark.long
def test_a_disk_that_turns_read_only_makes_writers_busy_and_reads_go_on(tmp_path):
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists() or shutil.which("mkfs.ext4") is None:
        pytest.skip("no permission, or no programs, to make a disk of a file (a loop device with ext4)")
    command = ["unshare", "--mount", sys.executable, READ_ONLY_CHILD, tmp_path]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60, env=_environment())  # noqa: S603  ours
    assert done.returncode == 0, done.stderr.decode()
    held = json.loads(done.stdout)
    assert held == dict.fromkeys(held, True)


def _environment():
    return {**os.environ, "PYTHONPATH": str(CHILD.parent.parent)}


def filled(folder, size, *more):
    """What held when the disk under a store was filled and freed."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:  # noqa: S607
        pytest.skip("no permission to make a mount namespace for a small disk")
    script = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift && exec "$2" "$3" "$1" $4'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", size, folder, sys.executable, CHILD, *more]
    done = subprocess.run(command, capture_output=True, check=False, timeout=110, env=_environment())  # noqa: S603  our own program
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """A folder as a crash leaves it: every group in a commit of its own, all of them still in the write-ahead log."""
    folder = tmp_path_factory.mktemp("live")
    store = Store.open(folder)
    store.submit(found_organisation(ORGANISATION, OPERATOR.organisation, 1000)).result()
    for number in range(GROUPS):
        store.submit(creating(number)).result()
    image = tmp_path_factory.mktemp("crashed") / "image"
    shutil.copytree(folder, image)
    store.close()
    return image


def creating(number):
    def decide(snapshot):
        revision = next_revision(snapshot)
        group = Group(_id(number), ORGANISATION, str(number))
        facts = (GroupCreated(group),)
        audit = AuditLine(ORGANISATION, 1000, "EXOtest", "CreateGroup", group.name)
        return Decision(None, facts=facts, after=apply_facts(snapshot, facts, revision=revision), audit=audit)

    return decide


def _id(number):
    return type(ORGANISATION)(int=0x10000 + number)


def opened(image, tmp_path, name, damage):
    """The groups that a damaged copy of the folder shows, oldest first; None when it refuses to open."""
    copy = tmp_path / name
    shutil.copytree(image, copy)
    damage(copy)
    try:
        store = Store.open(copy)
    except OperatorError:
        return None
    names = [group.name for group in store.snapshot.groups.values()]
    store.close()
    shutil.rmtree(copy)
    return names


@pytest.mark.full
def test_a_cut_write_ahead_log_opens_to_an_earlier_state_that_was_whole(crashed, tmp_path):
    chance, wal = random.Random(1), f"{DATABASE}-wal"
    size_bytes = (crashed / wal).stat().st_size
    everything = ["default", *map(str, range(GROUPS))]
    seen = set()
    for number in range(CUTS):
        kept_bytes = chance.randrange(size_bytes)

        def cut(folder, kept_bytes=kept_bytes):
            with (folder / wal).open("r+b") as log:
                log.truncate(kept_bytes)

        names = opened(crashed, tmp_path, str(number), cut)
        if names is not None:  # refused when nothing at all is left
            assert names == everything[: len(names)]
            seen.add(len(names))
    assert len(seen) > 5


@pytest.mark.full
def test_a_flipped_byte_is_refused_or_harmless_and_never_a_crash(crashed, tmp_path):
    settled = tmp_path / "settled"
    shutil.copytree(crashed, settled)
    Store.open(settled).close()  # moves the log into the database file
    chance = random.Random(2)
    size_bytes = (settled / DATABASE).stat().st_size
    refused = 0
    for number in range(FLIPS):
        position = chance.randrange(size_bytes)

        def flip(folder, position=position):
            with (folder / DATABASE).open("r+b") as database:
                database.seek(position)
                byte = database.read(1)[0]
                database.seek(position)
                database.write(bytes([byte ^ 0x55]))

        refused += opened(settled, tmp_path, str(number), flip) is None
    assert refused > 0
