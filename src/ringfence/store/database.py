"""What the store needs of a database; ``sqlite.py`` and ``postgresql.py`` implement it.

The SQL of the store is the same for both: placeholders are ``?``, an upsert is ``ON CONFLICT``, and a row that others
refer to is found by its content, never by its row id. The drivers' own exceptions do not leave these two modules.
"""

from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, Protocol

Values = tuple[Any, ...]


class DatabaseFault(Exception):
    """The database cannot do what was asked now, with its own message: full, locked, damaged, unreachable."""


class Hindered(DatabaseFault):
    """The database is locked, full, read-only or not permitted; nothing suggests that what is stored is damaged."""


class Unreachable(Hindered):
    """There is no connection to the database, and none could be made."""


class Absent(Unreachable):
    """The database does not run, by its own word or because nobody listens where it was: nobody can commit now."""


class Unsuitable(DatabaseFault):
    """Nothing is damaged, but the store cannot use this database."""


class ConstraintBroken(DatabaseFault):
    """The database refused rows that violate its constraints: a defect in the code that decided them."""


class InDoubt(DatabaseFault):
    """The connection was lost during a commit, which may have been made or not."""


class Ear(Protocol):
    """Is notified when another server commits; has a connection of its own."""

    def wait(self, timeout_s: float) -> str | None:
        """The ``news`` of the newest commit of any server; None after ``timeout_s`` without a commit.

        Raises:
            DatabaseFault: when it cannot listen.
        """

    def close(self) -> None:
        """Ends the connection."""


class Question(Protocol):
    """For an event loop: call ``ask``, and then ``hear`` whenever ``fileno`` is readable, until there is an answer.

    One question at a time. After a ``DatabaseFault`` it can only be closed.
    """

    fileno: int

    def ask(self) -> None:
        """Sends the question; does not wait."""

    def hear(self) -> int | None:
        """The answer, None while it is not complete."""

    def close(self) -> None:
        """Ends its connection."""


class Database(Protocol):
    """One open connection; used by one thread at a time. Every method but ``close`` may raise ``DatabaseFault``."""

    name: str  # for people: a path, or a URL without secrets
    is_shared: bool  # whether other servers may write too

    def listen(self) -> Ear:
        """A new ``Ear`` on a shared database."""

    def question(self, sql: str) -> Question:
        """A ``Question`` to a shared database over a connection of its own; may be called in any thread."""

    def query(self, sql: str, values: Values = ()) -> Generator[Values, None, None]:
        """The rows of a SELECT, one by one; whoever stops reading early must close the generator."""

    def begin(self) -> None:
        """Begins the writer's transaction, after rolling back one that was left open."""

    def begin_reading(self) -> None:
        """Begins a transaction that reads a consistent snapshot and blocks no writer; ``rollback`` ends it."""

    def define(self, statements: Iterable[str]) -> None:
        """Runs the statements of a migration, which are in SQLite's dialect, within the transaction."""

    def write(self, runs: Iterable[tuple[str, list[Values]]]) -> None:
        """Runs each statement for each of its rows, in order, within the transaction."""

    def commit(self, news: str = "") -> None:
        """Returns when everything since ``begin`` is on stable storage. The ears of a shared database get ``news``."""

    def rollback(self) -> None:
        """Undoes the transaction; raises nothing."""

    def tables(self) -> set[str]:
        """The names of all tables."""

    def columns(self, table: str) -> list[str]:
        """The names of a table's columns, in order."""

    def check(self) -> None:
        """Raises ``DatabaseFault`` if the stored data are damaged, as far as this database can tell."""

    def settle_positions(self) -> None:
        """Makes new rows continue behind the highest ``position``, after rows were inserted with explicit ones."""

    def scrub(self, table: str) -> None:
        """Erases former contents of ``table`` from the disk, as far as the database can; outside of a transaction."""

    def discard(self) -> None:
        """Drops all tables of a database that was empty before; SQLite leaves that to the owner of its file."""

    def close(self) -> None:
        """Ends the connection."""


class OpenDatabase(Protocol):
    """Opens the database that belongs to a data folder."""

    def __call__(self, folder: Path) -> Database: ...
