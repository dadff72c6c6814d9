"""The database brought to the newest format: one numbered SQL file a step, each in one transaction with its number.

Input: an open connection. Output: the epoch of the store. A format newer than this program is refused untouched.
"""

import re
import secrets
import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from typing import Final

from ringfence.policy.errors import OperatorError
from ringfence.store.driver import rollback

_NUMBERED: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


def load_migrations() -> dict[int, str]:
    """The SQL of every step by its number, in order."""
    found = {
        int(match[1]): entry.read_text(encoding="utf-8")
        for entry in files(__package__).joinpath("migrations").iterdir()
        if (match := _NUMBERED.fullmatch(entry.name))
    }
    return dict(sorted(found.items()))


def migrate(connection: sqlite3.Connection, migrations: dict[int, str]) -> None:
    """Brings the database to the newest of ``migrations``.

    Raises:
        OperatorError: when the database is of a newer format, or no store of ringfence.
    """
    present, newest = _format_of(connection), max(migrations)
    if present > newest:
        raise OperatorError(
            "opening the store",
            f"its format is {present}, this program knows formats up to {newest}: "
            "use the ringfence that wrote it, or a newer one",
        )
    for number, script in migrations.items():
        if number > present:
            _run_step(connection, number, script)


def load_epoch(connection: sqlite3.Connection) -> str:
    """The random name of this store's life, in which its revisions count."""
    return str(connection.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()[0])


def _format_of(connection: sqlite3.Connection) -> int:
    tables = {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not tables:
        return 0
    if "meta" not in tables:
        raise OperatorError("opening the store", "the database is none of ringfence's: name another folder")
    found = connection.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
    return int(found[0]) if found else 0


def _run_step(connection: sqlite3.Connection, number: int, script: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _statements(script):
            connection.execute(statement)
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('epoch', ?)", (secrets.token_hex(16),))
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('format', ?)", (str(number),))
        connection.execute("COMMIT")
    except sqlite3.Error:
        rollback(connection)
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
