"""A store as a file of JSON lines, written from either kind of database and restored into either.

The first line is a head: the format of the schema, and the seal key. Then follow the tables: a line with the columns,
and a line for each row. The last line has the number of rows and a hash for each table, independent of the order of
rows, to compare what was restored with what was there. No hash covers the seal key; restoring checks that it opens the
secrets. Whoever reads the file can read every secret.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final

import msgspec

from ringfence.policy.errors import Invalid, OperatorError
from ringfence.store.database import Database, Values
from ringfence.store.load import load_keys
from ringfence.store.migrate import format_of, load_migrations, migrate
from ringfence.store.seal_key import MARK

KIND: Final = "ringfence backup"

_NEWS: Final = "journal"  # how running servers follow each other; not backed up
_FIRST: Final = (
    "organisation",
    "host_set",
    "revision",
    "security_group",
    "host",
    "instance",
    "interface",
    "operation",
    "api_key",
)
_OWN: Final = frozenset({"epoch", "format", MARK})  # rows of ``meta`` that every database has of its own

Tallies = dict[str, list[object]]  # for each table: the number of rows, and the sum of their hashes in hexadecimal


class _Head(msgspec.Struct, rename="kebab"):
    kind: str
    format: int
    seal_key: bytes


class _Octets(msgspec.Struct):
    base64: bytes


class _Mark(msgspec.Struct):
    """The table and the columns of the rows that follow; in the last line ``rows``, the tallies of all tables."""

    table: str = ""
    columns: tuple[str, ...] = ()
    rows: Tallies | None = None


_Line = list[int | str | _Octets | None] | _Mark


class _Tally:
    """Counts rows and adds up their hashes; the order of rows makes no difference."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = defaultdict(int)
        self._sums: dict[str, int] = defaultdict(int)

    def add(self, table: str, row: bytes) -> None:
        self._counts[table] += 1
        self._sums[table] = (self._sums[table] + int.from_bytes(hashlib.sha256(row).digest())) % 2**256

    def result(self) -> Tallies:
        return {table: [count, f"{self._sums[table]:064x}"] for table, count in sorted(self._counts.items())}


def dump(database: Database, find_key: Callable[[], bytes]) -> Generator[bytes, None, None]:
    """The lines of a backup, all read in one transaction; others may write meanwhile. O(rows).

    ``find_key`` is called within that transaction, so that the key fits the secrets.
    """
    database.begin_reading()
    try:
        yield _encode(_Head(KIND, format_of(database), find_key()))
        tally = _Tally()
        for table in sorted(database.tables() - {_NEWS}, key=_place):
            columns = database.columns(table)
            yield _encode({"table": table, "columns": columns})
            for row in database.query(f"SELECT {', '.join(columns)} FROM {table}"):  # noqa: S608  our own words
                if table != "meta" or row[0] not in _OWN:
                    line = _encode([_Octets(value) if isinstance(value, bytes) else value for value in row])
                    tally.add(table, line)
                    yield line
        yield _encode({"rows": tally.result()})
    finally:
        database.rollback()


def restore(database: Database, lines: Iterable[bytes]) -> tuple[bytes, Tallies]:
    """Restores a backup into an empty database, all or nothing. Returns its seal key, and the checked tallies.

    The store keeps the epoch that the empty database was given, so that its revisions are never mistaken for revisions
    that were made after the backup.

    Raises:
        Invalid: the lines are not a whole backup, were damaged, or come from a newer ringfence.
        OperatorError: the database is not empty, or what was restored differs from the tallies of the backup.
    """
    if database.tables():
        raise OperatorError(f"restoring into {database.name}", "it is not empty: name an empty one")
    rest = iter(lines)
    head, migrations = _decode(next(rest, b""), _Head), load_migrations()
    if head.kind != KIND:
        raise Invalid("this is no backup of ringfence")
    if head.format > max(migrations):
        raise Invalid(f"it is of format {head.format}, this program knows {max(migrations)}: use a newer ringfence")
    try:
        migrate(database, {number: script for number, script in migrations.items() if number <= head.format})
        database.begin()
        wanted = _fill(database, rest)
        database.settle_positions()
        database.commit()
        found = _compared(database, head.seal_key, wanted)
        migrate(database, migrations)
        _require_opening(database, head.seal_key)
    except BaseException:
        database.rollback()
        database.discard()
        raise
    return head.seal_key, found


def _compared(database: Database, seal_key: bytes, wanted: Tallies) -> Tallies:
    """The tallies of what is in the database; an error unless they equal ``wanted``."""
    *_, last = dump(database, lambda: seal_key)
    found: Tallies = _decode(last, _Mark).rows
    if found != wanted:
        raise OperatorError(f"restoring into {database.name}", "what came back differs from the backup")
    return found


def _require_opening(database: Database, seal_key: bytes) -> None:
    try:
        load_keys(database, seal_key)
    except OperatorError as error:
        raise Invalid("the backup was damaged: its seal key does not open its secrets; use another one") from error


def _fill(database: Database, lines: Iterable[bytes]) -> Tallies:
    """Writes the rows, a table at a time. Returns the tallies of the last line."""
    sql, rows = "", list[Values]()
    for line in lines:
        found = _decode(line, _Line)
        if isinstance(found, list):
            rows.append(tuple(value.base64 if isinstance(value, _Octets) else value for value in found))
            continue
        if rows:
            database.write([(sql, rows)])
        if found.rows is not None:
            wanted: Tallies = found.rows
            return wanted
        marks = ", ".join("?" * len(found.columns))
        sql, rows = f"INSERT INTO {found.table} ({', '.join(found.columns)}) VALUES ({marks})", []  # noqa: S608  checked by the hash
    raise Invalid("the backup ends before its last line: it was cut")


def _place(table: str) -> tuple[int, str]:
    """The key to sort tables by: those that others refer to come first."""
    return (_FIRST.index(table) if table in _FIRST else len(_FIRST), table)


def _encode(line: object) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _decode(line: bytes, shape: Any) -> Any:
    try:
        return msgspec.json.decode(line, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid("this is no backup of ringfence, or it was cut or damaged") from error
