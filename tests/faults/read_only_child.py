"""Run as a program inside a mount namespace: an ext4 turns read-only under a control plane, and says what held.

The kernel turns it so as it does when a disk fails (errors=remount-ro), with files open; it stays so until it is
mounted anew. Prints one JSON object on stdout.
"""

import asyncio
import json
import logging
import subprocess
import sys
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path

from ringfence.control.actor import Actor, Role
from ringfence.control.plane import ControlPlane
from ringfence.policy.commands import CreateGroup
from ringfence.policy.errors import Busy
from ringfence.store import HistoryQuery

IMAGE_BYTES = 40 << 20
LOG = StringIO()  # callers are not told what is wrong with the disk


def do(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603  our own


@contextmanager
def mounted(device: str, folder: Path):
    do("mount", "-o", "errors=remount-ro", device, str(folder))
    try:
        yield
    finally:
        do("umount", str(folder))


def break_disk(device: str) -> None:
    Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("1")


def names(plane: ControlPlane) -> set[str]:
    return {group.name for group in plane.snapshot.groups.values()}


async def fail(folder: Path, device: str) -> dict[str, bool]:
    plane = await ControlPlane.open(folder / "store")
    actor = Actor(plane.owners.first.id, "EXOtest", Role.OWNER)
    await plane.execute(CreateGroup("before"), actor)
    break_disk(device)
    why = ""
    try:
        await plane.execute(CreateGroup("refused"), actor)
    except Busy as error:
        why = str(error)
    lines = await plane.history.read(HistoryQuery())
    held = {
        "said_why": "nothing was applied" in why and "disk I/O error" in LOG.getvalue(),
        "reads_went_on": names(plane) == {"default", "before"},
        "history_is_read": lines[-1].subject.endswith(" before: group before created"),
    }
    await plane.close()
    return held


async def open_again(folder: Path) -> dict[str, bool]:
    plane = await ControlPlane.open(folder / "store")
    await plane.execute(CreateGroup("after"), Actor(plane.owners.first.id, "EXOtest", Role.OWNER))
    held = {"kept": names(plane) == {"default", "before", "after"}}
    await plane.close()
    return held


def run(folder: Path) -> dict[str, bool]:
    logging.basicConfig(stream=LOG)
    image, place = folder / "image", folder / "mounted"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    do("mkfs.ext4", "-q", str(image))
    device = do("losetup", "--find", "--show", str(image))
    try:
        with mounted(device, place):
            held = asyncio.run(fail(place, device))
        with suppress(subprocess.CalledProcessError):  # which says that it has mended something
            do("e2fsck", "-p", device)
        with mounted(device, place):
            return held | asyncio.run(open_again(place))
    finally:
        do("losetup", "--detach", device)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(Path(sys.argv[1]))))
