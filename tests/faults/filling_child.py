"""Run as a program inside a mount namespace: fills the small disk under a control plane, frees it, and says what held.

Its rows are in SQLite or in a database of a real PostgreSQL, of which a second argument says what is on that disk: its
``tables`` or its ``log`` of writes (pg_wal). Prints one JSON object on stdout.
"""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from io import StringIO
from pathlib import Path

import psycopg

from postgres import Postgres, running_postgres
from ringfence.control.actor import Actor, Role
from ringfence.control.plane import ControlPlane
from ringfence.policy.commands import CreateGroup
from ringfence.policy.errors import Busy
from ringfence.policy.model import Operation
from ringfence.store import writer
from ringfence.store.place import remember

Doubted = asyncio.Future[Operation]

LOG = StringIO()  # callers are not told what is full

TRIES = 2000
DOUBT_S = 10.0  # a write that has no answer by then gets it when the database is back
AWAY_S = 60.0  # how long a database that ended may take until it is written again


async def write_until_busy(plane: ControlPlane, actor: Actor, label: str) -> tuple[set[str], str, dict[str, Doubted]]:
    """The acknowledged names, why the store became busy, and by its name the write whose answer was lost, if any."""
    acknowledged: set[str] = set()
    doubted: dict[str, Doubted] = {}
    for number in range(TRIES):
        name = f"{label}-{number}"
        writing = asyncio.ensure_future(plane.execute(CreateGroup(name, "x" * 250), actor))
        done, _ = await asyncio.wait({writing}, timeout=None if doubted else DOUBT_S)
        if not done:
            doubted[name] = writing
            continue
        if isinstance(error := writing.exception(), Busy):
            return acknowledged, str(error), doubted
        acknowledged.add(name)
    return acknowledged, "", doubted


async def made(doubted: dict[str, Doubted]) -> set[str]:
    """The names of those that their callers were told to be there in the end."""
    outcomes = await asyncio.gather(*doubted.values(), return_exceptions=True)
    return {name for name, outcome in zip(doubted, outcomes, strict=True) if not isinstance(outcome, Busy)}


async def write_again(plane: ControlPlane, actor: Actor, within_s: float) -> bool:
    """Whether writing goes on by itself."""
    deadline_s = time.monotonic() + within_s
    while True:
        try:
            await plane.execute(CreateGroup("again"), actor)
        except Busy:
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(0.1)
        else:
            return True


def fill(path: Path) -> None:
    """Takes every free byte of the disk."""
    with path.open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            return


def names(plane: ControlPlane) -> set[str]:
    return {group.name for group in plane.snapshot.groups.values()}


async def main(folder: Path, ending: Postgres | None = None) -> dict[str, bool]:
    """``ending``: the database, if it ends when the disk is full; then it is started anew, as systemd would."""
    plane = await ControlPlane.open(folder / "store")
    actor = Actor(plane.owners.first.id, "EXOtest", Role.OWNER)
    await plane.execute(CreateGroup("before"), actor)
    fill(folder / "ballast")
    acknowledged, why, doubted = await write_until_busy(plane, actor, "full")
    reasons = ("No space left", "full", "connection", "server closed")
    held = {
        "said_why": "nothing was applied" in why and any(reason in LOG.getvalue() for reason in reasons),
        "reads_went_on": names(plane) == {"default", "before", *acknowledged},
    }
    if ending:
        await asyncio.to_thread(ending.process.wait, AWAY_S)
    (folder / "ballast").unlink()
    if ending:
        await asyncio.to_thread(ending.start)
    is_again = await write_again(plane, actor, AWAY_S if ending else 0.0)
    acknowledged |= await made(doubted)
    more, still_busy = {"again"}, False
    for number in range(20):
        try:
            await plane.execute(CreateGroup(f"after-{number}"), actor)
            more.add(f"after-{number}")
        except Busy:
            still_busy = True
    held["recovered"] = is_again and not still_busy
    wanted, revision = names(plane), plane.snapshot.revision
    await plane.close()
    plane = await ControlPlane.open(folder / "store")
    held["kept"] = names(plane) == wanted == {"default", "before", *acknowledged, *more}
    held["same_revision"] = plane.snapshot.revision == revision
    await plane.close()
    return held


@contextmanager
def tables_on(folder: Path):
    """A PostgreSQL whose tables are on the small disk, and its log of writes elsewhere: it goes on."""
    with running_postgres() as server, psycopg.connect(server.url("postgres"), autocommit=True) as operator:
        (folder / "tables").mkdir()
        operator.execute(f"CREATE TABLESPACE small LOCATION '{folder / 'tables'}'")
        operator.execute("CREATE DATABASE small TABLESPACE small")
        remember(folder / "store", server.url("small"))
        yield None


@contextmanager
def log_on(folder: Path):
    """A PostgreSQL whose log of writes is on the small disk, in files of 1 MB: it ends when there is no room."""
    with running_postgres("--waldir", str(folder / "log"), "--wal-segsize=1") as server:
        remember(folder / "store", server.database())
        yield server


def run(folder: Path, on: Callable[[Path], AbstractContextManager[Postgres | None]] | None) -> dict[str, bool]:
    if on is None:
        return asyncio.run(main(folder))
    (folder / "store").mkdir(mode=0o700)
    with on(folder) as ending:
        return asyncio.run(main(folder, ending))


if __name__ == "__main__":
    logging.basicConfig(stream=LOG)
    writer.IN_DOUBT_S = 0.5  # how long others wait behind a write whose answer was lost
    on = {"tables": tables_on, "log": log_on}
    sys.stdout.write(json.dumps(run(Path(sys.argv[1]), on[sys.argv[2]] if len(sys.argv) > 2 else None)))
