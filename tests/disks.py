"""A disk of its own in a file, mounted, which can be made to hang as one that fails or a network's does."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_IMAGE_BYTES = 16 << 20


def missing() -> str | None:
    """Why no such disk can be made here."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        return "a disk of a file is mounted by root alone, with a loop device"
    return next((f"{name} is not installed" for name in ("mkfs.ext4", "fsfreeze") if shutil.which(name) is None), None)


@contextmanager
def mounted_disk(image: Path, place: Path) -> Iterator[None]:
    """An ext4 at ``place``. Raises ``CalledProcessError`` where the kernel does not let us."""
    with image.open("wb") as file:
        file.truncate(_IMAGE_BYTES)
    _do("mkfs.ext4", "-q", str(image))
    place.mkdir(mode=0o700, exist_ok=True)
    _do("mount", "-o", "loop", str(image), str(place))
    try:
        yield
    finally:
        _do("umount", str(place))


@contextmanager
def hanging(place: Path) -> Iterator[None]:
    """Whoever writes to the disk at ``place`` waits until the block ends."""
    _do("fsfreeze", "--freeze", str(place))
    try:
        yield
    finally:
        with suppress(subprocess.CalledProcessError):
            _do("fsfreeze", "--unfreeze", str(place))


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603  ours
