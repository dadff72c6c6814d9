"""Which database belongs to a data folder: SQLite in it, or the PostgreSQL that its file ``database`` names.

The file is written when a server first gets a URL, so that every command on the folder opens the same database, and
none creates an empty SQLite beside it.
"""

from functools import partial
from pathlib import Path
from typing import Final

from ringfence.policy.errors import OperatorError
from ringfence.store.database import Database, OpenDatabase
from ringfence.store.folder import DATABASE, explained, write_whole
from ringfence.store.sqlite import open_sqlite

_NAME: Final = "database"


def place_of(folder: Path, url: str | None = None) -> OpenDatabase:
    """How to open the folder's database; ``url`` names the one to use if the folder has none yet.

    Raises:
        OperatorError: when the folder has another database already.
        Invalid: ``url`` is none of PostgreSQL's, or holds a password, which is then said nowhere.
    """
    known = remembered(folder)
    if url is None:
        return open_sqlite if known is None else partial(open_postgresql, known)
    _check_url(url)
    if known not in (None, url):
        raise OperatorError(
            f"opening {folder}", f"its database is {known}: leave --database out, or name another --data"
        )
    if known is None and (folder / DATABASE).exists():
        raise OperatorError(
            f"opening {folder}", f"it holds a SQLite database: ringfence server move --data {folder} --to {url}"
        )
    return partial(open_postgresql, url)


def has_store(folder: Path) -> bool:
    """Whether a store was ever made in the folder."""
    return (folder / DATABASE).exists() or (folder / _NAME).exists()


def remembered(folder: Path) -> str | None:
    """The URL of the folder's PostgreSQL; None when its database is SQLite, or it has none yet."""
    path = folder / _NAME
    return path.read_text().strip() if path.exists() else None


def remember(folder: Path, url: str) -> None:
    """Makes ``url`` the folder's database, durably: otherwise an old SQLite file might be served after a crash."""
    with explained(folder):
        write_whole(folder / _NAME, f"{url}\n".encode(), mode=0o600)


def open_postgresql(url: str, _folder: Path) -> Database:
    """The database that ``url`` names; ``Invalid`` when it is none of PostgreSQL's, or holds a password."""
    from ringfence.store.postgresql import PostgresDatabase  # noqa: PLC0415  libpq is loaded when it is used

    return PostgresDatabase(_check_url(url))


def _check_url(url: str) -> str:
    from ringfence.store.postgresql import check_url  # noqa: PLC0415  as above

    return check_url(url)
