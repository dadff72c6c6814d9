"""Backup, restore and move of a store, as the command line offers them: the files and folders around ``backup.py``.

Input: data folders, files, URLs. Output: tallies of what was copied. Every refusal says what to do.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ringfence.policy.errors import Invalid, OperatorError
from ringfence.store.backup import Tallies, dump, restore
from ringfence.store.database import Database, DatabaseFault
from ringfence.store.folder import DATABASE, hold_folder, sync_folder
from ringfence.store.place import has_store, open_postgresql, place_of, remember, remembered
from ringfence.store.seal_key import find_seal_key, save_seal_key
from ringfence.store.sqlite import open_sqlite


def back_up(folder: Path, file: Path) -> int:
    """Writes the store of ``folder`` into a new ``file`` of mode 0600; servers may run. Returns its size in bytes."""
    require_store(folder)
    with explained_faults(f"writing {file}"), closing(place_of(folder)(folder)) as database:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as opened:
                opened.writelines(dump(database, lambda: find_seal_key(database, folder)))
                opened.flush()
                os.fsync(descriptor)
                size_bytes = opened.tell()
        except BaseException:
            file.unlink()  # half a backup might be mistaken for a whole one, and would be in the way of the next
            raise
        sync_folder(file.parent)
        return size_bytes


def bring_back(file: Path, folder: Path, url: str | None) -> Tallies:
    """Restores a backup into a folder without a store, or into an empty PostgreSQL, which becomes the folder's."""
    with file.open("rb") as lines, held(folder), explained_faults(f"restoring {file}"):
        if has_store(folder):
            raise OperatorError(f"restoring into {folder}", "a store is there already: name another folder")
        if url is not None:
            return _into_postgresql(url, folder, lines)
        try:
            with closing(open_sqlite(folder)) as database:
                return _restore(database, folder, lines)
        except BaseException:
            for left in folder.glob(f"{DATABASE}*"):
                left.unlink()
            raise


def move(folder: Path, url: str) -> Tallies:
    """Copies the SQLite store of ``folder`` into an empty PostgreSQL, checks it, and makes that the folder's database.

    The SQLite file stays where it is, unused.
    """
    if remembered(folder) is not None or not has_store(folder):
        raise OperatorError(f"moving {folder}", "there is no SQLite database in it that is in use: check --data")
    with (
        held(folder),
        explained_faults(f"moving {folder}"),
        closing(open_sqlite(folder)) as source,
        closing(dump(source, lambda: find_seal_key(source, folder))) as lines,  # before the database that it reads
    ):
        return _into_postgresql(url, folder, lines)


def _into_postgresql(url: str, folder: Path, lines: Iterable[bytes]) -> Tallies:
    with closing(open_postgresql(url, folder)) as database:
        database.check()
        found = _restore(database, folder, lines)
    remember(folder, url)
    return found


def _restore(database: Database, folder: Path, lines: Iterable[bytes]) -> Tallies:
    key, found = restore(database, lines)
    try:
        save_seal_key(folder, key)
    except BaseException:
        database.discard()
        raise
    return found


def require_store(folder: Path) -> None:
    """Raises ``OperatorError`` when there is none in the folder."""
    if not has_store(folder):
        raise OperatorError(f"opening {folder}", "no ringfence store is there: check --data")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Locks the folder against other processes."""
    lock = hold_folder(folder)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def explained_faults(step: str) -> Iterator[None]:
    """Turns what the database or the system refuses into an ``OperatorError`` about ``step``."""
    try:
        yield
    except DatabaseFault as error:
        raise OperatorError(step, str(error)) from error
    except Invalid as error:  # of the lines of a backup
        raise Invalid(f"{step}: {error}") from error
    except FileExistsError as error:
        raise OperatorError(step, "it is there already: a backup is a new file") from error
    except OSError as error:
        raise OperatorError(step, error.strerror or str(error)) from error
