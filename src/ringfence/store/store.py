"""The store as the other rooms see it: opened on a folder, read by a property, changed by decisions.

Opening either gives a valid state or refuses with an ``OperatorError`` that says what to do; it never serves half a
policy.
"""

import sqlite3
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ringfence.policy.errors import Invalid, OperatorError
from ringfence.policy.model import Snapshot
from ringfence.policy.values import HostName, Revision
from ringfence.store.decision import Committed, Decide, StoredKey
from ringfence.store.driver import Connect, connect
from ringfence.store.folder import Lock, hold_folder, load_seal_key, prepare_database
from ringfence.store.load import Loaded, StoredOperation, has_keys, load
from ringfence.store.migrate import load_epoch, load_migrations, migrate
from ringfence.store.writer import Writer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Opened:
    connection: sqlite3.Connection
    seal_key: bytes
    epoch: str
    loaded: Loaded


class Store:
    """One data folder, held by this process from ``open`` to ``close``."""

    def __init__(self, lock: Lock, opened: _Opened) -> None:
        self._lock = lock
        self._loaded = opened.loaded
        self._writer = Writer(opened.connection, opened.loaded.snapshot, seal_key=opened.seal_key)
        self.epoch = opened.epoch  # the random name of this store's life, in which its revisions count

    @classmethod
    def open(cls, folder: Path, connect_with: Connect = connect) -> "Store":
        """The store in ``folder``, made when there is none. O(rows): checked whole and read whole.

        Raises:
            FolderHeld: when another process has it open.
            OperatorError: when it is damaged, of a newer format, or cannot be read or written.
        """
        lock = hold_folder(folder)
        try:
            return cls(lock, _open_database(folder, connect_with))
        except BaseException:
            lock.release()
            raise

    @property
    def snapshot(self) -> Snapshot:
        """The newest committed snapshot."""
        return self._writer.snapshot

    @property
    def wanted(self) -> Mapping[HostName, Revision]:
        """As it was when the store was opened: the newest revision that touched each host."""
        return self._loaded.wanted

    @property
    def keys(self) -> tuple[StoredKey, ...]:
        """As they were when the store was opened."""
        return self._loaded.keys

    @property
    def operations(self) -> tuple[StoredOperation, ...]:
        """As they were when the store was opened: all pending ones and the newest of the others, oldest first."""
        return self._loaded.operations

    def submit(self, decide: Decide[T]) -> Future[Committed[T]]:
        """Has ``decide`` called with the newest snapshot, in the writer's thread, and what it decides committed."""
        return self._writer.submit(decide)

    def close(self) -> None:
        """Writes what was submitted and gives the folder back."""
        self._writer.close()
        self._lock.release()


def _open_database(folder: Path, connect_with: Connect) -> _Opened:
    path = prepare_database(folder)
    try:
        connection = connect_with(path)
    except sqlite3.Error as error:
        raise _damaged(path, error) from error
    try:
        _check(connection, path)
        migrate(connection, load_migrations())
        seal_key = load_seal_key(folder, may_create=not has_keys(connection))
        return _Opened(connection, seal_key, load_epoch(connection), load(connection, seal_key))
    except (sqlite3.Error, ValueError, TypeError, Invalid) as error:
        connection.close()
        raise _damaged(path, error) from error
    except BaseException:
        connection.close()
        raise


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Pages, indexes and references; SQLite itself checks none of them on its own (sqlite.org/pragma.html)."""
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise _damaged(path, verdict)
    if broken := connection.execute("PRAGMA foreign_key_check").fetchone():
        raise _damaged(path, f"a row of {broken[0]} refers to a row of {broken[2]} that is not there")


def _damaged(path: Path, reason: object) -> OperatorError:
    return OperatorError(
        f"opening {path}", f"{reason}; the hosts keep enforcing what they have: restore the folder from a backup"
    )
