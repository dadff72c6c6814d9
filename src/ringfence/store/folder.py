"""The data folder: readable by its owner only, held by one process at a time, its files replaced atomically.

What root makes in it is its owner's: the server runs as that one, and could open nothing of it otherwise.

Every refusal is an ``OperatorError`` that says what to do.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ringfence.policy.errors import OperatorError

DATABASE: Final = "ringfence.sqlite"

_LOCK: Final = "lock"
_ROOT: Final = 0


class FolderHeld(OperatorError):
    """Another process has the folder open; a client can talk to that process instead."""


@dataclass(slots=True)
class Lock:
    """The lock on a folder; it ends with ``release`` or with the process, however that dies."""

    descriptor: int

    def release(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def hold_folder(folder: Path) -> Lock:
    """Locks the folder against every other process; makes it, with mode 0700, if it is absent.

    Raises:
        FolderHeld: when another process holds it.
        OperatorError: when it cannot be made or written.
    """
    with explained(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = _open_or_make(folder / _LOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise FolderHeld(
                f"opening {folder}", f"process {holder} holds its lock: speak to that server, or stop it first"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return Lock(descriptor)


def prepare_database(folder: Path) -> Path:
    """The path of the database file, which is made with mode 0600 if it is absent; SQLite would choose another mode."""
    with explained(folder):
        path = folder / DATABASE
        if not path.exists():  # an existing file may be readable without being writable
            os.close(_open_or_make(path))
        return path


def make_folder(path: Path) -> None:
    """Makes a folder of mode 0700 within the data folder, if it is absent."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        _leave_to_owner(descriptor, path.parent)
        os.close(descriptor)


def _open_or_make(path: Path) -> int:
    """A descriptor of the file, which is made with mode 0600 if it is absent."""
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        _leave_to_owner(descriptor, path.parent)
        return descriptor
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def _leave_to_owner(descriptor: int, folder: Path) -> None:
    """Gives what this process has just made to the owner of the folder that it is in; only root can, and need."""
    owner = folder.stat()
    if os.geteuid() == _ROOT != owner.st_uid:
        with suppress(OSError):  # root of a container without that right
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def write_whole(path: Path, content: bytes, *, mode: int) -> None:
    """Replaces the file atomically, even in a crash: writes a new one beside it, syncs that, and renames it."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        _leave_to_owner(descriptor, path.parent)
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    beside.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames and removals in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turns what the system refuses in the folder into an ``OperatorError`` that names the file."""
    try:
        yield
    except OSError as error:
        raise OperatorError(
            f"opening {folder}", f"{error.strerror}: {error.filename or folder}; check owner, mode and free space"
        ) from error
