"""The door to SQLite: how a connection is opened, and how its errors are told apart.

A test that wants a commit to fail hands another ``Connect`` to the store.
"""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

Connect = Callable[[Path], sqlite3.Connection]

BUSY_TIMEOUT_S: Final = 1.0  # how long a commit waits for a foreign process that locks the file

_WAL_LIMIT_BYTES: Final = 64 * 2**20


def connect(path: Path) -> sqlite3.Connection:
    """A connection on which a commit returns only when it is on stable storage (WAL, synchronous FULL).

    Transactions are ours to begin and end (no isolation level). It may be handed from thread to thread, one at a time.
    """
    return configure(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False))


def configure(connection: sqlite3.Connection) -> sqlite3.Connection:
    """``connection`` with the settings that durability and integrity rest on (sqlite.org/pragma.html)."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
    return connection


def rollback(connection: sqlite3.Connection) -> None:
    """Ends the transaction, if SQLite has not ended it already: it does so itself when the disk is full.

    Raises nothing: what cannot be rolled back now is tried again before the next transaction.
    """
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
