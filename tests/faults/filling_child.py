"""Run as a program inside a mount namespace: fills the small disk under a control plane, frees it, and says what held.

Prints one JSON object on stdout.
"""

import asyncio
import json
import sys
from pathlib import Path

from ringfence.control.actor import Actor, Role
from ringfence.control.plane import ControlPlane
from ringfence.policy.commands import CreateGroup
from ringfence.policy.errors import Busy

TRIES = 2000


async def write_until_busy(plane: ControlPlane, actor: Actor, label: str) -> tuple[set[str], bool]:
    """The acknowledged names, and whether the store became busy."""
    acknowledged = set()
    for number in range(TRIES):
        name = f"{label}-{number}"
        try:
            await plane.execute(CreateGroup(name, "x" * 250), actor)
        except Busy:
            return acknowledged, True
        acknowledged.add(name)
    return acknowledged, False


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
    acknowledged, became_busy = await write_until_busy(plane, actor, "full")
    held = {
        "became_busy": became_busy,
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


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(Path(sys.argv[1])))))
