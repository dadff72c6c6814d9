"""SQLite, the default: one file in the data folder, written over one connection.

A test that wants a commit to fail gives the store a ``SqliteDatabase`` with a connection of its own.
"""

import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Final

from ringfence.store.database import ConstraintBroken, DatabaseFault, Ear, Hindered, Question, Values
from ringfence.store.folder import prepare_database

BUSY_TIMEOUT_S: Final = 1.0  # how long a commit waits while another process has the file locked

_WAL_LIMIT_BYTES: Final = 64 * 2**20
_JOINED: Final = (64, 16, 4, 1)  # how many rows one statement may insert
_VALUES: Final = " VALUES "


class SqliteDatabase:
    """A ``Database`` over a connection made by ``connect``."""

    is_shared = False

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.name = str(path)
        self._connection = connection
        self._path = path
        self._file = _file_at(path)

    def listen(self) -> Ear:
        raise DatabaseFault("nobody else writes to SQLite")

    def question(self, sql: str) -> Question:
        raise DatabaseFault(f"nobody else writes to SQLite: {sql}")

    def query(self, sql: str, values: Values = ()) -> Generator[Values, None, None]:
        with _translated():
            for row in self._connection.execute(sql, values):  # noqa: UP028  which would close a cursor of a closed file
                yield row

    def begin(self) -> None:
        self.rollback()  # what a failed rollback left
        if _file_at(self._path) != self._file:  # what is written now would be gone with the next start
            raise DatabaseFault(
                "the file was removed, replaced or closed to us: put it back, or stop the server and restore a backup"
            )
        with _translated():
            self._connection.execute("BEGIN IMMEDIATE")

    def begin_reading(self) -> None:
        with _translated():
            self._connection.execute("BEGIN")

    def settle_positions(self) -> None:
        """Nothing to do: SQLite continues behind the last row by itself."""

    def scrub(self, table: str) -> None:  # noqa: ARG002  the whole file is written anew
        with _translated():
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def discard(self) -> None:
        """Nothing to do: the caller, who made the file, removes it."""

    def define(self, statements: Iterable[str]) -> None:
        with _translated():
            for statement in statements:
                self._connection.execute(statement)

    def write(self, runs: Iterable[tuple[str, list[Values]]]) -> None:
        with _translated():
            for sql, rows in runs:
                for many, values in _joined(sql, rows):
                    self._connection.execute(many, values)

    def commit(self, news: str = "") -> None:  # noqa: ARG002  nobody listens
        with _translated():
            self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """SQLite itself ends a transaction when the disk is full. If this fails, the next ``begin`` does it."""
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def tables(self) -> set[str]:
        found = self.query("SELECT name FROM sqlite_schema WHERE type = 'table'")
        return {str(name) for (name,) in found if not str(name).startswith("sqlite_")}

    def columns(self, table: str) -> list[str]:
        return [str(name) for (name,) in self.query("SELECT name FROM pragma_table_info(?)", (table,))]

    def check(self) -> None:
        """Checks pages, indexes and references, which SQLite does only when asked to (sqlite.org/pragma.html)."""
        for (verdict,) in self.query("PRAGMA integrity_check(1)"):
            if verdict != "ok":
                raise DatabaseFault(verdict)
        for broken in self.query("PRAGMA foreign_key_check"):
            raise DatabaseFault(f"a row of {broken[0]} refers to a row of {broken[2]} that is not there")

    def close(self) -> None:
        self._connection.close()


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file is there, whatever is in it."""
    try:
        found = path.stat()
    except OSError:  # also when the folder is one no more, or is closed to us
        return None
    return found.st_dev, found.st_ino


def _joined(sql: str, rows: list[Values]) -> Iterator[tuple[str, Values]]:
    """Joins the rows of an INSERT into few statements, because each statement releases and retakes the GIL.

    There are few sizes, so that the statements are found in the connection's cache.
    """
    begin = 0
    for size in _JOINED if _VALUES in sql else (1,):
        while len(rows) - begin >= size:
            yield _many(sql, size), tuple(chain.from_iterable(rows[begin : begin + size]))
            begin += size


@lru_cache(maxsize=256)
def _many(sql: str, size: int) -> str:
    """The same string object each time, so that its hash is computed once. What follows the rows is said once."""
    before, values, rest = sql.partition(_VALUES)
    marks, conflict, action = rest.partition(" ON CONFLICT ")
    return f"{before}{values}{', '.join([marks] * size)}{conflict}{action}"


def open_sqlite(folder: Path) -> SqliteDatabase:
    """Opens the database file of ``folder``; creates it if there is none."""
    path = prepare_database(folder)
    with _translated():
        return SqliteDatabase(path, connect(path))


def connect(path: Path) -> sqlite3.Connection:
    """A connection on which a commit returns only when it is on stable storage (WAL, synchronous FULL).

    Transactions are begun and ended explicitly. Any thread may use it, one at a time.
    """
    return configure(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False))


def configure(connection: sqlite3.Connection) -> sqlite3.Connection:
    """``connection`` with the settings that durability and integrity rest on (sqlite.org/pragma.html)."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
    return connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.IntegrityError, OverflowError) as error:  # the second: a number of more than 64 bits
        raise ConstraintBroken(str(error)) from error
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # Python's own, of what is no text, have none
        kind = DatabaseFault if code == sqlite3.SQLITE_ERROR else Hindered  # as when a table is missing
        raise kind(str(error)) from error
    except sqlite3.Error as error:
        raise DatabaseFault(str(error)) from error
