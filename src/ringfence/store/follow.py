"""How the servers of one shared database follow each other: by a journal of what each commit changed.

Each server writes what the others need to know into the transaction of its commit, under the next number; the writers'
lock keeps the numbers in the order of commits. SQLite has one server and no journal. Used in the writer's thread.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from ringfence.policy.errors import OperatorError
from ringfence.policy.facts import apply_facts
from ringfence.policy.snapshot import Snapshot
from ringfence.store.database import Database, Values
from ringfence.store.decision import Decision, StoredKey
from ringfence.store.journal import Entry, decode_entries, encode_entries, entry_of
from ringfence.store.load import load_keys
from ringfence.store.rows import Part, Rows

KEPT: Final = 20_000  # commits, some minutes of a busy day; a server that missed more must be restarted

_INSERT: Final = "INSERT INTO journal (number, author, entries) VALUES (?, ?, ?)"
NEWEST: Final = "SELECT coalesce(max(number), 0) FROM journal"
_PRUNED_EVERY: Final = 500
_SINCE: Final = (
    "SELECT number, author, CASE WHEN number > ? THEN entries END FROM journal WHERE number >= ? ORDER BY number"
)


class Lost(OperatorError):
    """This server cannot follow the others any more: what it missed is no longer in the journal, or unreadable."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A decision of another server: the snapshots before and after it, and all keys if it changed any."""

    entry: Entry
    before: Snapshot
    after: Snapshot
    keys: tuple[StoredKey, ...] | None


class Follower:
    """Brings this server's memory up to date with the commits of others, and journals its own."""

    def __init__(self, database: Database, seal_key: bytes) -> None:
        self._database = database
        self._seal_key = seal_key
        self._author = uuid4().hex
        self._number = 0
        self._newest_author = ""  # of the commit of that number
        self._noted = 0
        self.hear: Callable[[Followed], None] = lambda _: None

    @property
    def number(self) -> int:
        """The number of the newest commit that is in memory."""
        return self._number

    def begin_here(self) -> None:
        """Starts from the newest commit, as of the transaction in which everything is loaded."""
        if self._database.is_shared:
            for number, author in self._database.query(
                "SELECT number, author FROM journal ORDER BY number DESC LIMIT 1"
            ):
                self._number, self._newest_author = number, author

    def catch_up(self, snapshot: Snapshot) -> Snapshot:
        """``snapshot`` with what others have committed since; ``hear`` is called with each of their decisions.

        Raises:
            Lost: some of it is no longer in the journal or cannot be read, or memory differs from the database.
        """
        if self._database.is_shared:
            news = list(self._news())
            changed = any(entry.changes_keys for _, _, entries in news for entry in entries)
            keys = self._load_keys() if changed else None
            for number, author, entries in news:
                for entry in entries:
                    snapshot = self._follow(entry, snapshot, keys)
                self._number, self._newest_author = number, author
        return snapshot

    def _load_keys(self) -> tuple[StoredKey, ...]:
        try:
            return load_keys(self._database, self._seal_key)
        except OperatorError as error:
            raise Lost(
                "following the other servers",
                "the secrets were sealed anew: copy secret.key from the server that did it, and start this one",
            ) from error

    def note(self, rows: Rows, decisions: list[Decision[object]]) -> None:
        """Adds a journal entry to ``rows`` with what others must know of ``decisions``."""
        self._noted = self._number
        if not self._database.is_shared:
            return
        entries = [entry for decision in decisions if (entry := entry_of(decision)) is not None]
        if not entries and not rows:
            return
        number = self._noted = self._number + 1
        rows.add(_INSERT, (number, self._author, encode_entries(entries)), Part.JOURNAL)
        if number % _PRUNED_EVERY == 0:
            rows.add("DELETE FROM journal WHERE number <= ?", (number - KEPT,), Part.JOURNAL)

    def committed(self) -> None:
        """To be called when what ``note`` added is on stable storage."""
        if self._noted > self._number:
            self._number, self._newest_author = self._noted, self._author

    @property
    def news(self) -> str:
        """What other servers are notified with at the commit that was noted last: its number and author."""
        return f"{self._noted} {self._author}"

    def knows(self, news: str) -> bool:
        """Whether the commit of ``news`` is this server's own, or in memory already. May be called in any thread."""
        number, _, author = news.partition(" ")
        return author == self._author or (number.isdigit() and int(number) <= self._number)

    def was_committed(self) -> bool:
        """Whether a commit whose answer was lost was made. Waits for the lock, which that commit held until its end."""
        self._database.begin()
        found = list(self._database.query("SELECT author FROM journal WHERE number = ?", (self._number + 1,)))
        self._database.rollback()
        return found == [(self._author,)]

    def _news(self) -> Iterator[tuple[int, str, list[Entry]]]:
        rows = self._database.query(_SINCE, (self._number, self._number))
        if self._number:
            self._require_known(next(rows, None))
        for expected, (number, author, text) in enumerate(rows, self._number + 1):
            if number != expected:
                raise _missed()
            try:
                yield number, author, decode_entries(text)
            except (ValueError, TypeError, KeyError) as error:
                raise Lost(
                    "following the other servers", f"one of them runs another ringfence ({error!r}): install the same"
                ) from error

    def _require_known(self, row: Values | None) -> None:
        """``row`` is the commit from which what is new is counted, as the database has it."""
        if row is None or row[:2] != (self._number, self._newest_author):
            if row is not None and row[0] > self._number:
                raise _missed()
            raise Lost(
                "following the other servers",
                "the database has gone back to an earlier state, as by a restore or the failover to a replica that had "
                "not everything: start this one anew, and see docs/operations.md, The database",
            )

    def _follow(self, entry: Entry, before: Snapshot, keys: tuple[StoredKey, ...] | None) -> Snapshot:
        after = before
        if entry.revision is not None:
            after = apply_facts(before, entry.facts, revision=entry.revision)
        self.hear(Followed(entry, before, after, keys if entry.changes_keys else None))
        return after


def _missed() -> Lost:
    return Lost("following the other servers", f"more than {KEPT} commits were missed: start this one anew")
