"""Small files of the agent: read whole, replaced whole and durably, watched by their stamp, locked."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NewType, Protocol

from ringfence.policy.errors import OperatorError

Stamp = NewType("Stamp", tuple[int, int, int])  # modification time in ns, inode, size: equal only if untouched
_OPEN: Final = os.O_NONBLOCK | os.O_CLOEXEC  # a pipe that nobody holds must not hold up the agent
_MOST_BYTES: Final = 300 << 20  # of a file that is read, more than any view: a larger one is something else's
_OTHERS: Final = 0o077  # the permissions of group and others


class FilesDoor(Protocol):
    """Each method raises ``OperatorError`` naming the file and what the system answered."""

    def read(self, path: Path) -> bytes | None:
        """The whole content; None when there is no such file."""
        ...

    def replace(self, path: Path, content: bytes) -> None:
        """Replaces the content, owner-only and durably: even after a power cut the file has the old or the new one.

        Makes the folder if need be.
        """
        ...

    def append(self, path: Path, content: bytes, *, most_bytes: int | None) -> None:
        """Appends to the file, owner-only. If it would exceed ``most_bytes``, it is renamed to ``NAME.1`` first.

        The file is opened by its name each time, so that one that was moved away is started anew.
        """
        ...

    def stamp(self, path: Path) -> Stamp | None:
        """A value that stays equal while the file is untouched; None when there is no such file."""
        ...


class SystemFiles:
    def remove(self, path: Path) -> None:
        """Removes a file, if it is there."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OperatorError(f"remove {path}", error.strerror or str(error)) from error

    def read(self, path: Path) -> bytes | None:
        try:
            return _read(path)[0]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OperatorError(f"read {path}", error.strerror or str(error)) from error

    def replace(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(path, content)
        except OSError as error:
            raise OperatorError(f"write {path}", error.strerror or str(error)) from error

    def append(self, path: Path, content: bytes, *, most_bytes: int | None) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if most_bytes is not None and path.exists() and path.stat().st_size + len(content) > most_bytes:
                path.replace(path.with_name(f"{path.name}.1"))
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _OPEN, 0o600)
            try:
                _append(descriptor, content)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise OperatorError(f"write {path}", error.strerror or str(error)) from error

    def stamp(self, path: Path) -> Stamp | None:
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OperatorError(f"look at {path}", error.strerror or str(error)) from error
        return Stamp((found.st_mtime_ns, found.st_ino, found.st_size))


def read_secret(path: Path) -> bytes | None:
    """The content of a file that only its owner may read; None when there is no such file. Raises ``OperatorError``."""
    try:
        content, mode = _read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OperatorError(f"read {path}", _reason(error, path.parent)) from error
    if mode & _OTHERS:
        raise OperatorError(f"read {path}", f"others may read this secret; run: chmod 600 {path}")
    return content


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Holds the folder for this process alone; raises ``OperatorError`` at once when another one holds it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = _open_lock(folder / "agent.lock")
    except OSError as error:
        raise OperatorError(f"open {folder}", _reason(error, folder)) from error
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _reason(error: OSError, folder: Path) -> str:
    reason = error.strerror or str(error)
    if isinstance(error, PermissionError) and os.geteuid() == 0:  # as in the unit, which has no right to others' files
        return f"{reason}: it is another user's, as after a copy; run: chown -R root: {folder}"
    return reason


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # rules are enforced all the same


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OperatorError(
            f"lock {folder}", "another agent runs with this folder; stop it or give this one its own --data"
        ) from error


def _read(path: Path) -> tuple[bytes, int]:
    """The content, and the mode."""
    descriptor = os.open(path, os.O_RDONLY | _OPEN)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if found.st_size > _MOST_BYTES:
            raise OSError(errno.EFBIG, f"it has {found.st_size >> 20} MiB, which no file of an agent has")
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            content = opened.read(found.st_size + 1)
        if len(content) > found.st_size:  # one that tells no size may have no end
            raise OSError(errno.EAGAIN, f"there is more in it than its {found.st_size} bytes")
        return content, found.st_mode
    finally:
        os.close(descriptor)


def _append(descriptor: int, content: bytes) -> None:
    """All of the content, or nothing: half a line on a full disk would spoil the next one."""
    before = os.fstat(descriptor).st_size
    written = 0
    try:
        while written < len(content):
            written += os.write(descriptor, content[written:])
    except OSError:
        if written:
            with suppress(OSError):  # of a pipe, nothing can be taken back
                os.ftruncate(descriptor, before)
        raise


def _replace(path: Path, content: bytes) -> None:
    """Write aside, sync, rename, sync the folder: at every moment the old or the new content is there whole."""
    aside = path.with_name(f".{path.name}.new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        written = 0
        while written < len(content):
            written += os.write(descriptor, content[written:])
        os.fsync(descriptor)
    except OSError:
        with suppress(OSError):
            aside.unlink()  # a disk that is full has room for something else
        raise
    finally:
        os.close(descriptor)
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
