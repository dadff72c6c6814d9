"""The data folder: made private, held by one process at a time, with the key that seals secrets.

Input: a path. Output: an open lock, the seal key. Every refusal is an ``OperatorError`` that says what to do.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ringfence.policy.errors import OperatorError

DATABASE: Final = "ringfence.sqlite"
KEY_SIZE_BYTES: Final = 32

_LOCK: Final = "lock"
_SEAL_KEY: Final = "secret.key"
_OTHERS: Final = 0o077  # permission bits of everybody but the owner


class FolderHeld(OperatorError):
    """Another process has the folder open; a client speaks to that process instead."""


@dataclass(slots=True)
class Lock:
    """The hold on a folder; it ends with ``release`` or with the process, however that dies."""

    descriptor: int

    def release(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def hold_folder(folder: Path) -> Lock:
    """The folder, made with mode 0700 when absent, held against every other process.

    Raises:
        FolderHeld: when another process holds it.
        OperatorError: when it cannot be made or written.
    """
    with explained(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
    """The path of the database file, made with mode 0600 before SQLite would make it with another."""
    with explained(folder):
        path = folder / DATABASE
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return path


def load_seal_key(folder: Path, *, may_create: bool) -> bytes:
    """The key that seals the secrets of the store; made with mode 0400 when ``may_create`` and absent.

    systemd's credential of its name (``LoadCredentialEncrypted=secret.key:...``) goes before the folder's file, so that
    the key need not lie beside what it seals (systemd.exec(5)).

    Raises:
        OperatorError: when it is missing from a store that has secrets, readable by others, or not 32 bytes.
    """
    path = _credential() or folder / _SEAL_KEY
    with explained(path.parent):
        if not path.exists():
            if not may_create:
                raise OperatorError(
                    f"reading {path}", "it is missing, and without it the API keys are lost: restore it from a backup"
                )
            write_whole(path, secrets.token_bytes(KEY_SIZE_BYTES), mode=0o400)
        if path.parent == folder and path.stat().st_mode & _OTHERS:
            raise OperatorError(f"reading {path}", f"others may read it: revoke all keys, or chmod 400 {path}")
        key = path.read_bytes()
    if len(key) != KEY_SIZE_BYTES:
        raise OperatorError(f"reading {path}", f"expected {KEY_SIZE_BYTES} bytes, found {len(key)}: restore it")
    return key


def _credential() -> Path | None:
    """The key as systemd hands it to its unit; who may read it there is systemd's affair (an access list)."""
    given = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(given) / _SEAL_KEY if given else None
    return path if path is not None and path.exists() else None


def save_seal_key(folder: Path, key: bytes) -> None:
    """Puts the key of a restored store into its folder.

    Raises:
        OperatorError: when another key is there.
    """
    path = folder / _SEAL_KEY
    with explained(folder):
        if not path.exists():
            write_whole(path, key, mode=0o400)
        elif path.read_bytes() != key:
            raise OperatorError(f"writing {path}", "another key is there: name a folder without one")


def write_whole(path: Path, content: bytes, *, mode: int) -> None:
    """The file has this content and mode, also after a crash, or is as it was: written beside, synced, then renamed."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    beside.rename(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
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
