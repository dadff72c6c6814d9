"""Where a store under test keeps its rows: SQLite in its folder, or a database of a real PostgreSQL."""

import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ringfence.store import Store
from ringfence.store.database import DatabaseFault, InDoubt, OpenDatabase
from ringfence.store.place import remember
from ringfence.store.postgresql import PostgresDatabase
from ringfence.store.sqlite import open_sqlite

KINDS = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Place:
    """A store's folder and the way to its database."""

    folder: Path
    open_database: OpenDatabase = open_sqlite

    def open(self, open_database=None):
        return Store.open(self.folder, open_database or self.open_database)

    def rows(self, query):
        """What another connection sees."""
        database = self.open_database(self.folder)
        try:
            return [tuple(row) for row in database.query(query)]
        finally:
            database.close()

    def run(self, sql):
        """Something done behind the store's back."""
        database = self.open_database(self.folder)
        database.begin()
        database.write([(sql, [()])])
        database.commit()
        database.close()


def postgres_place(folder, url):
    remember(folder, url)
    return Place(folder, partial(_open, url))


def _open(url, _folder):
    return PostgresDatabase(url)


class Failing:
    """Opens databases whose commits fail while ``fails`` is set, as a full disk makes them.

    While ``is_away`` is set the answer of a commit is lost, whether or not it was made (``makes``), and nothing else is
    answered either, as of a database whose machine died.
    """

    def __init__(self, place):
        self._place = place
        self.fails = self.is_away = False
        self.makes = True
        self.committing = threading.Event()  # a commit has lost its answer
        self.asked = threading.Event()  # and what became of it was asked in vain

    def __call__(self, folder):
        database = self._place.open_database(folder)
        commit, begin = database.commit, database.begin

        def try_commit(news=""):
            if self.fails:
                raise DatabaseFault("database or disk is full")
            if not self.is_away or self.makes:
                commit(news)
            if self.is_away:
                database.rollback()
                self.committing.set()
                raise InDoubt("the connection was lost")

        def try_begin():
            if self.is_away and self.committing.is_set():
                self.asked.set()
                raise DatabaseFault("connection refused")
            begin()

        database.commit, database.begin = try_commit, try_begin
        return database
