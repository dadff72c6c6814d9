"""kill -9 of PostgreSQL under eight writers: what was acknowledged is there, what was refused is not; it recovers."""

import asyncio
import random
import time
from contextlib import suppress

import psycopg
import pytest

from counts import count
from places import postgres_place
from ringfence.control.actor import Actor, Role
from ringfence.control.plane import ControlPlane
from ringfence.control.settings import Settings
from ringfence.policy.commands import CreateGroup
from ringfence.policy.errors import Busy
from ringfence.policy.quota import UNLIMITED, Quota

WRITERS = 8
ROUNDS = count(reduced=3, stated=30)
AWAY_S = 30.0  # how long writing may stay refused after the database is back
DOUBT_S = 2.0  # a commit whose answer was lost keeps all callers waiting for the truth, and nobody is refused


class Crowd:
    """Eight writers of groups, each name tried until it is acknowledged."""

    def __init__(self, plane):
        self.plane = plane
        self.acknowledged = []
        self.refused = 0
        self.doubts = 0
        self.revisions = []
        self.stopping = False

    async def write(self, writer):
        actor = Actor(next(iter(self.plane.snapshot.organisations)), f"w{writer}", Role.OWNER)
        number = 0
        while not self.stopping:
            try:
                operation = await self.plane.execute(CreateGroup(f"{writer}-{number}"), actor)
            except Busy:  # it was not applied: the same name must be free, or the next try is a conflict
                self.refused += 1
                await asyncio.sleep(0.02)
                continue
            self.acknowledged.append(f"{writer}-{number}")
            self.revisions.append(operation.revision)
            number += 1

    async def more_than(self, count):
        await self.wait(lambda: len(self.acknowledged) > count, "writing did not go on by itself")

    async def refused_or_in_doubt(self, known):
        with suppress(AssertionError):
            await self.wait(lambda: self.refused > known, "in doubt", within_s=DOUBT_S)
        self.doubts += self.refused == known

    async def wait(self, is_so, failure, within_s=AWAY_S):
        deadline_s = time.monotonic() + within_s
        while not is_so():
            assert time.monotonic() < deadline_s, failure
            await asyncio.sleep(0.01)


@pytest.mark.full
@pytest.mark.timeout(1500)
def test_kill_9_of_postgresql_among_eight_writers_loses_nothing_and_reads_go_on(own_postgres, tmp_path):
    place = postgres_place(tmp_path, own_postgres.database())
    crowd = asyncio.run(_storm(own_postgres, place))
    assert crowd.refused + crowd.doubts >= ROUNDS
    assert len(set(crowd.revisions)) == len(crowd.revisions)
    store = place.open()
    names = {group.name for group in store.snapshot.groups.values()}
    store.close()
    assert names == {"default", *crowd.acknowledged}
    ((revisions, newest, operations),) = place.rows(
        "SELECT (SELECT count(*) FROM revision), (SELECT max(number) FROM revision), (SELECT count(*) FROM operation)"
    )
    assert revisions == newest == len(names) + 1
    assert operations == len(crowd.acknowledged)


async def _storm(postgres, place):
    chance = random.Random(11)
    plane = await ControlPlane.open(place.folder, Settings(settle_wait_s=0.0))
    await plane.owners.limit(plane.owners.first.name, {Quota.GROUPS: UNLIMITED})
    crowd = Crowd(plane)
    writers = [asyncio.create_task(crowd.write(writer)) for writer in range(WRITERS)]
    for _ in range(ROUNDS):
        await crowd.more_than(len(crowd.acknowledged) + chance.randrange(5, 100))
        await asyncio.to_thread(postgres.kill)
        refused, known = crowd.refused, len(crowd.acknowledged)
        await crowd.refused_or_in_doubt(refused)
        before_s = time.monotonic()
        await plane.fresh()
        assert time.monotonic() - before_s < 10
        assert len(plane.snapshot.groups) >= known
        await asyncio.to_thread(postgres.start)
        await crowd.more_than(len(crowd.acknowledged))
    crowd.stopping = True
    await asyncio.gather(*writers)
    await plane.close()
    return crowd


def test_a_database_that_is_read_only_for_a_while_makes_writers_busy_and_they_recover(postgres, tmp_path, caplog):
    url = postgres.database()
    asyncio.run(_read_only(postgres_place(tmp_path, url), url))
    assert "read-only" in caplog.text


async def _read_only(place, url):
    plane = await ControlPlane.open(place.folder, Settings(settle_wait_s=0.0))
    actor = Actor(plane.owners.first.id, "EXOtest", Role.OWNER)
    with psycopg.connect(url, autocommit=True) as operator:
        (name,) = operator.execute("SELECT current_database()").fetchone()
        operator.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ringfence'")
        with pytest.raises(Busy):  # its connection was ended
            await plane.execute(CreateGroup("refused"), actor)
        with pytest.raises(Busy, match="nothing was applied"):
            await plane.execute(CreateGroup("refused"), actor)
        await plane.fresh()
        assert [group.name for group in plane.snapshot.groups.values()] == ["default"]
        operator.execute(f"ALTER DATABASE {name} RESET ALL")
    await plane.execute(CreateGroup("refused"), actor)
    await plane.close()
