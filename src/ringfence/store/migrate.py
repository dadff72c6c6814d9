"""Brings the database to the newest format: a numbered SQL file for each step, run in one transaction with its number.

A database of a newer format than this program knows is refused and left alone. Servers of a shared database that still
run with an older format end themselves at their next look: each step adds a journal entry that they cannot read.
"""

import re
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Final

from ringfence.policy.errors import OperatorError
from ringfence.store.database import Database

_NUMBERED: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_NEW_META: Final = "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING"
SET_META: Final = "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
_JOURNAL: Final = "journal"
_TELL: Final = f"INSERT INTO {_JOURNAL} SELECT coalesce(max(number), 0) + 1, ?, ? FROM {_JOURNAL}"  # noqa: S608  our own words


def load_migrations() -> dict[int, str]:
    """The SQL of every step by its number, in ascending order."""
    found = {
        int(match[1]): entry.read_text(encoding="utf-8")
        for entry in files(__package__).joinpath("migrations").iterdir()
        if (match := _NUMBERED.fullmatch(entry.name))
    }
    return dict(sorted(found.items()))


def migrate(database: Database, migrations: dict[int, str], before: Callable[[], None] = lambda: None) -> None:
    """Brings the database to the newest of ``migrations``; calls ``before`` before it changes anything.

    Raises:
        OperatorError: the database has a newer format, or is not a store of ringfence.
    """
    present, newest = format_of(database), max(migrations)
    if present > newest:
        raise OperatorError(
            "opening the store",
            f"its format is {present}, this program knows formats up to {newest}: "
            "use the ringfence that wrote it, or a newer one",
        )
    if present < newest:
        before()
    may_run = database.is_shared and _JOURNAL in database.tables()
    for number, script in migrations.items():
        if number > present:
            _run_step(database, number, script, is_told=may_run)


def load_epoch(database: Database) -> str:
    """The random name of this store; revisions of stores with different epochs cannot be compared."""
    ((epoch,),) = database.query("SELECT value FROM meta WHERE name = 'epoch'")
    return str(epoch)


def format_of(database: Database) -> int:
    """The number of the newest step that was run; 0 for an empty database."""
    tables = database.tables()
    if not tables:
        return 0
    if "meta" not in tables:
        raise OperatorError("opening the store", "the database is none of ringfence's: name another one")
    return max((int(value) for (value,) in database.query("SELECT value FROM meta WHERE name = 'format'")), default=0)


def _run_step(database: Database, number: int, script: str, *, is_told: bool) -> None:
    database.begin()
    try:
        if format_of(database) < number:  # else another server has just done it
            database.define(_statements(script))
            database.write([(_NEW_META, [("epoch", secrets.token_hex(16))]), (SET_META, [("format", str(number))])])
            if is_told:
                database.write([(_TELL, [("migration", f'"format {number}"')])])
        database.commit()
    except BaseException:
        database.rollback()
        raise


def _statements(script: str) -> Iterator[str]:
    """The script's statements one by one, because ``executescript`` would commit between them."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
