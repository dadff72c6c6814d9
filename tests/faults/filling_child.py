"""Run as a program inside a mount namespace: fills the small disk under a control plane, frees it, and says what held.

Its rows are in SQLite or, with a second argument, in a database of a real PostgreSQL whose tables are on that disk.
Prints one JSON object on stdout.
"""

import asyncio
import json
import sys
from contextlib import contextmanager
from pathlib import Path

import psycopg

from postgres import running_postgres
from ringfence.control.actor import Actor, Role
from ringfence.control.plane import ControlPlane
from ringfence.policy.commands import CreateGroup
from ringfence.policy.errors import Busy
from ringfence.store.place import remember

TRIES = 2000


async def write_until_busy(plane: ControlPlane, actor: Actor, label: str) -> tuple[set[str], str]:
    """The acknowledged names, and why the store became busy."""
    acknowledged = set()
    for number in range(TRIES):
        name = f"{label}-{number}"
        try:
            await plane.execute(CreateGroup(name, "x" * 250), actor)
        except Busy as error:
            return acknowledged, str(error)
        acknowledged.add(name)
    return acknowledged, ""


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


async def main(folder: Path) -> dict[str, bool]:
    plane = await ControlPlane.open(folder / "store")
    actor = Actor(plane.owners.first.id, "EXOtest", Role.OWNER)
    await plane.execute(CreateGroup("before"), actor)
    fill(folder / "ballast")
    acknowledged, why = await write_until_busy(plane, actor, "full")
    held = {
        "said_why": "nothing was applied" in why and ("No space left" in why or "full" in why),
        "reads_went_on": names(plane) == {"default", "before", *acknowledged},
    }
    (folder / "ballast").unlink()
    more, still_busy = set(), False
    for number in range(20):
        try:
            await plane.execute(CreateGroup(f"after-{number}"), actor)
            more.add(f"after-{number}")
        except Busy:
            still_busy = True
    held["recovered"] = not still_busy
    wanted, revision = names(plane), plane.snapshot.revision
    await plane.close()
    plane = await ControlPlane.open(folder / "store")
    held["kept"] = names(plane) == wanted == {"default", "before", *acknowledged, *more}
    held["same_revision"] = plane.snapshot.revision == revision
    await plane.close()
    return held


@contextmanager
def tables_on(folder: Path):
    """A PostgreSQL whose log of writes is elsewhere: a database whose own disk is full ends, and stays down."""
    with running_postgres() as server, psycopg.connect(server.url("postgres"), autocommit=True) as operator:
        (folder / "tables").mkdir()
        operator.execute(f"CREATE TABLESPACE small LOCATION '{folder / 'tables'}'")
        operator.execute("CREATE DATABASE small TABLESPACE small")
        remember(folder / "store", server.url("small"))
        yield


def run(folder: Path, *, on_postgresql: bool) -> dict[str, bool]:
    if not on_postgresql:
        return asyncio.run(main(folder))
    (folder / "store").mkdir(mode=0o700)
    with tables_on(folder):
        return asyncio.run(main(folder))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(Path(sys.argv[1]), on_postgresql=len(sys.argv) > 2)))
