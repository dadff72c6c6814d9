"""What the store needs of a database, whichever it is; ``sqlite.py`` and ``postgresql.py`` are the two that there are.

The SQL of the store is the same for both: marks are ``?``, an upsert is ``ON CONFLICT``, a row that others refer to is
found again by what is in it, never by its row id. A driver's own errors do not leave these modules.
"""

from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, Protocol

Values = tuple[Any, ...]


class DatabaseFault(Exception):
    """The database cannot do it now, in its own words: full, locked, damaged, away."""


class Hindered(DatabaseFault):
    """Nothing says that what is stored is damaged: it is locked, full, read-only, or not permitted."""


class Unreachable(Hindered):
    """There is no connection to the database, and none could be made."""


class Unsuitable(DatabaseFault):
    """Nothing is damaged, but the store cannot use this database."""


class ConstraintBroken(DatabaseFault):
    """The database refused rows that contradict its constraints: a defect of what was decided."""


class InDoubt(DatabaseFault):
    """The connection was lost in a commit: it may have been made or not."""


class Ear(Protocol):
    """Hears when another server has committed; has a connection of its own."""

    def wait(self, timeout_s: float) -> str | None:
        """What was told at the newest commit of anybody; None after ``timeout_s`` without one.

        Raises:
            DatabaseFault: when it cannot listen.
        """

    def close(self) -> None:
        """Ends the connection."""


class Question(Protocol):
    """For an event loop: ``ask``, and then ``hear`` as often as ``fileno`` is readable, until there is an answer.

    One at a time. Who was told a ``DatabaseFault`` can only close it.
    """

    fileno: int

    def ask(self) -> None:
        """Sends the question; does not wait."""

    def hear(self) -> int | None:
        """The answer; None as long as not all of it is there."""

    def close(self) -> None:
        """Ends its connection."""


class Database(Protocol):
    """One open connection; used by one thread at a time. Every method but ``close`` may raise ``DatabaseFault``."""

    name: str  # for people: a path, or a URL without secrets
    is_shared: bool  # whether other servers may write too

    def listen(self) -> Ear:
        """An ear on a shared database."""

    def question(self, sql: str) -> Question:
        """One to a shared database, over a connection of its own; may be asked for from any thread."""

    def query(self, sql: str, values: Values = ()) -> Generator[Values, None, None]:
        """The rows of a SELECT, one by one; who stops early closes it."""

    def begin(self) -> None:
        """Begins the transaction of the one writer; ends one that was left open."""

    def begin_reading(self) -> None:
        """Begins a transaction that sees one moment and keeps nobody from writing; ``rollback`` ends it."""

    def define(self, statements: Iterable[str]) -> None:
        """Runs the statements of a migration inside the transaction; they are in SQLite's dialect."""

    def write(self, runs: Iterable[tuple[str, list[Values]]]) -> None:
        """Runs each statement once for each of its rows, in order, inside the transaction."""

    def commit(self, news: str = "") -> None:
        """Returns when everything since ``begin`` is on stable storage. A shared database's ears are told ``news``."""

    def rollback(self) -> None:
        """Ends the transaction without a trace; raises nothing."""

    def tables(self) -> set[str]:
        """The names of all tables."""

    def columns(self, table: str) -> list[str]:
        """The names of a table's columns, in order."""

    def check(self) -> None:
        """Raises ``DatabaseFault`` when what is there is damaged, as far as this database can tell."""

    def settle_positions(self) -> None:
        """After rows came with positions of their own: new ones go on behind them."""

    def scrub(self, table: str) -> None:
        """Outside of a transaction: what rows of ``table`` were before is overwritten, as far as the database can."""

    def discard(self) -> None:
        """Takes away all tables of a database that was empty before; one in a file goes with its file."""

    def close(self) -> None:
        """Ends the connection."""


class OpenDatabase(Protocol):
    """How a store gets the database that belongs to its folder."""

    def __call__(self, folder: Path) -> Database: ...
