"""The store as other packages use it: opened on a folder, read by properties, changed by decisions.

Opening it either gives a valid state or fails with an ``OperatorError`` that says what to do.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ringfence.policy.errors import Busy, Invalid, OperatorError
from ringfence.policy.facts import Fact
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import HostName, OrganisationId, Revision, RuleId
from ringfence.store.database import Database, DatabaseFault, Hindered, OpenDatabase, Question, Unsuitable
from ringfence.store.decision import Committed, Decide, StoredKey
from ringfence.store.folder import Lock, hold_folder
from ringfence.store.follow import NEWEST, Followed, Follower, Lost
from ringfence.store.history import (
    Checked,
    HistoryLine,
    HistoryQuery,
    check_history,
    read_births,
    read_history,
    read_undo,
)
from ringfence.store.listen import Listener
from ringfence.store.load import Loaded, StoredOperation, load
from ringfence.store.migrate import format_of, load_epoch, load_migrations, migrate
from ringfence.store.seal_key import require_no_seal_key, settle_seal_key, settle_shared_key
from ringfence.store.sqlite import open_sqlite
from ringfence.store.writer import Settle, Writer

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Opened:
    database: Database
    seal_key: bytes
    epoch: str
    loaded: Loaded
    follower: Follower


class Store:
    """One data folder, held by this process from ``open`` to ``close``."""

    def __init__(self, lock: Lock, opened: _Opened, open_reader: Callable[[], Database]) -> None:
        self._lock = lock
        self._open_reader = open_reader
        self._loaded = opened.loaded
        self._database = opened.database
        self._follower = opened.follower
        self._writer = Writer(opened.database, opened.follower, opened.loaded.snapshot, seal_key=opened.seal_key)
        self._listener = (
            Listener(opened.database, self.refresh, opened.follower.knows) if opened.database.is_shared else None
        )
        self.epoch = opened.epoch  # a random name; revisions of different epochs cannot be compared

    @classmethod
    def open(cls, folder: Path, open_database: OpenDatabase = open_sqlite) -> "Store":
        """The store of ``folder``, created if there is none. It is checked and read as a whole: O(rows).

        ``open_database`` opens the database; lock and seal key are in the folder whatever the database is.

        Raises:
            FolderHeld: another process has it open.
            OperatorError: it is damaged, has a newer format, or cannot be read or written.
        """
        lock = hold_folder(folder)
        try:
            return cls(lock, _open(folder, open_database), lambda: open_database(folder))
        except BaseException:
            lock.release()
            raise

    @property
    def snapshot(self) -> Snapshot:
        """The newest committed snapshot."""
        return self._writer.snapshot

    @property
    def wanted(self) -> Mapping[HostName, Revision]:
        """The newest revision that had touched each host when the store was opened."""
        return self._loaded.wanted

    @property
    def keys(self) -> tuple[StoredKey, ...]:
        """The API keys when the store was opened."""
        return self._loaded.keys

    @property
    def operations(self) -> tuple[StoredOperation, ...]:
        """The operations when the store was opened: all pending ones and the newest of the others, oldest first."""
        return self._loaded.operations

    def submit(self, decide: Decide[T]) -> Future[Committed[T]]:
        """Calls ``decide`` with the newest snapshot, in the writer's thread, and commits its decision."""
        return self._writer.submit(decide)

    def ask(self, decide: Decide[T], settle: Settle[T]) -> None:
        """As ``submit``, but calls ``settle`` with the outcome, in the writer's thread."""
        self._writer.ask(decide, settle)

    def read_history(self, wanted: HistoryQuery) -> list[HistoryLine]:
        """Lines of the history, read over a connection of its own, so that slow readers do not delay the writer."""
        with self._reader() as database:
            return read_history(database, wanted)

    def read_births(self) -> dict[RuleId, int]:
        """As ``history.read_births``."""
        with self._reader() as database:
            return read_births(database)

    def read_undo(self, organisation: OrganisationId, after: int, until: int) -> tuple[Fact, ...]:
        """As ``history.read_undo``."""
        with self._reader() as database:
            return read_undo(database, organisation, after, until)

    def check_history(self) -> Checked:
        """Whether the chain of the whole history is unbroken. O(lines)."""
        with self._reader() as database:
            return check_history(database)

    @contextmanager
    def _reader(self) -> Iterator[Database]:
        try:
            with closing(self._open_reader()) as database:
                yield database
        except DatabaseFault as error:
            _log.warning("%s cannot be read for the history: %s", self._database.name, error)
            raise Busy("the history cannot be read now: try again; the server's log says why") from error

    @property
    def is_shared(self) -> bool:
        """Whether other servers write to the same database."""
        return self._listener is not None

    @property
    def unheard_s(self) -> float:
        """For how long other servers may have committed without this one knowing, in seconds; 0 for SQLite."""
        return time.monotonic() - self._writer.heard_s if self.is_shared else 0.0

    @property
    def silent_s(self) -> float:
        """As ``unheard_s``, but no longer than since the database was seen not to run, when nobody can commit."""
        return min(self.unheard_s, time.monotonic() - self._writer.absent_s)

    def follow(self, hear: Callable[[Followed], None], lost: Callable[[Lost], None]) -> None:
        """From now on ``hear`` is told what other servers decided, in the writer's thread, in order.

        ``lost`` is told, in a thread of its own, when they cannot be followed any more: this one must be started anew.
        """
        self._follower.hear = hear
        if self._listener is not None:
            self._listener.start(lost)

    def refresh(self) -> Future[Committed[None]]:
        """Done when everything that others had committed is published here; ``Busy`` if the database cannot be read."""
        return self._writer.submit(None)

    @property
    def settled(self) -> int:
        """The number of the newest commit, here or elsewhere, of which those here were told who are to be."""
        return self._writer.settled

    def open_question(self) -> Question:
        """What the number of the newest commit is. Waits for the database; raises ``DatabaseFault``."""
        return self._database.question(NEWEST)

    def close(self) -> None:
        """Writes what was submitted, and releases the folder."""
        if self._listener is not None:
            self._listener.stop()
        self._writer.close()
        self._lock.release()


def _open(folder: Path, open_database: OpenDatabase) -> _Opened:
    try:
        database = open_database(folder)
    except DatabaseFault as error:
        raise _unopened(str(folder), error) from error
    try:
        with ThreadPoolExecutor(1) as beside:  # SQLite's check takes a quarter of a start, without the GIL
            checked = beside.submit(_check, folder, open_database)
            if not database.is_shared and format_of(database) == 0:
                require_no_seal_key(folder, database.name)
            migrate(database, load_migrations(), before=checked.result)
            seal_key = settle_shared_key(database, folder)
            opened = _load_all(database, seal_key)
            checked.result()
    except (DatabaseFault, ValueError, TypeError, Invalid) as error:
        database.close()
        raise _unopened(database.name, error) from error
    except BaseException:
        database.close()
        raise
    settle_seal_key(folder, seal_key)
    return opened


def _check(folder: Path, open_database: OpenDatabase) -> None:
    with closing(open_database(folder)) as database:
        database.check()


def _load_all(database: Database, seal_key: bytes) -> _Opened:
    """Loads a consistent state: while a shared database is read, no other server writes."""
    follower = Follower(database, seal_key)
    if database.is_shared:
        database.begin()
    try:
        follower.begin_here()
        return _Opened(database, seal_key, load_epoch(database), load(database, seal_key), follower)
    finally:
        database.rollback()


def _unopened(name: str, reason: Exception) -> OperatorError:
    """Only of what may be damaged it is said that a backup helps: it takes back what was acknowledged since."""
    match reason:
        case Hindered():
            advice = "mend that, then start anew"
        case Unsuitable():
            advice = "use another database"
        case _:
            advice = "restore the folder from a backup"
    return OperatorError(f"opening {name}", f"{reason}; the hosts keep enforcing what they have: {advice}")
