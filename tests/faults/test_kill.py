"""kill -9 in the middle of eight writers: what was acknowledged is there, what was not is whole or absent."""

import asyncio
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from counts import count
from ringfence.control.plane import ControlPlane
from ringfence.policy.quota import UNLIMITED, Quota
from waiting import wait_until

PROGRAM = Path(__file__).with_name("group_writers.py")
WRITERS = 8
ROUNDS = count(reduced=5, stated=50)


class Run:
    """One life of the writers, and the lines that they were heard to say."""

    def __init__(self, folder, label):
        command = [sys.executable, PROGRAM, folder, label, str(WRITERS), "1000000"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603  ours
        self.lines = []
        self.reading = threading.Thread(target=lambda: self.lines.extend(self.process.stdout))
        self.reading.start()

    def kill_after(self, lines):
        try:
            wait_until(lambda: len(self.lines) >= lines or self.process.poll() is not None, 30)
        finally:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.reading.join()
        assert len(self.lines) >= lines, self.process.stderr.read().decode()
        return [line.decode().split() for line in self.lines if line.endswith(b"\n")]


@pytest.mark.full
@pytest.mark.timeout(600)
def test_kill_9_among_eight_writers_loses_no_acknowledged_write(place):
    chance = random.Random(7)
    acknowledged, newest = {}, 0
    asyncio.run(allow_any_number(place.folder))
    for number in range(ROUNDS):
        said = Run(place.folder, str(number)).kill_after(chance.randrange(1, 400))
        acknowledged.update({(what, name): int(revision) for what, name, revision in said})
        store = place.open()
        try:
            check_acknowledged(store.snapshot, acknowledged)
            assert store.snapshot.revision >= max(newest, *acknowledged.values())
            newest = store.snapshot.revision
            assert store.check_history().broken is None
        finally:
            store.close()
        check_whole(place)
    assert len(acknowledged) >= ROUNDS


async def allow_any_number(folder):
    plane = await ControlPlane.open(folder)
    await plane.owners.limit(plane.owners.first.name, {Quota.GROUPS: UNLIMITED})
    await plane.close()


def check_acknowledged(snapshot, acknowledged):
    by_name = {group.name: group for group in snapshot.groups.values()}
    for what, name in acknowledged:
        assert name in by_name, f"{what} {name} was acknowledged and is lost"
        assert what != "rule" or len(by_name[name].rules) == 1, f"the rule of {name} was acknowledged and is lost"


def check_whole(place):
    """Every change has its revision, its operation and its audit line, or nothing of it is there."""
    counted = Counter(dict(place.rows("SELECT action, count(*) FROM audit GROUP BY action")))
    ((groups, rules, revisions, newest, operations),) = place.rows(
        "SELECT (SELECT count(*) FROM security_group), (SELECT count(*) FROM rule), (SELECT count(*) FROM revision),"
        " (SELECT max(number) FROM revision), (SELECT count(*) FROM operation)"
    )
    assert counted == {"CreateOrganisation": 1, "SetLimits": 1, "CreateGroup": groups - 1, "AddRule": rules}
    assert revisions == newest == groups + rules + 1
    assert operations == groups - 1 + rules
