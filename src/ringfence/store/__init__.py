"""Durable storage: a data folder with the database (or the URL of one), the key that seals secrets, and a lock.

Everything written goes through one writer that groups commits; everything read comes from an immutable snapshot in
memory. This package decides nothing: what to write is handed in as a ``Decision``. It knows nothing of HTTP or agents.
"""

from ringfence.store.database import DatabaseFault, Question
from ringfence.store.decision import (
    AuditLine,
    Committed,
    Decide,
    Decision,
    HostSaid,
    HostsSeen,
    KeyCreated,
    KeyRevoked,
    KeyRotated,
    OperationSettled,
    Record,
    StoredKey,
    Tidied,
    next_revision,
)
from ringfence.store.folder import FolderHeld
from ringfence.store.follow import Followed, Lost
from ringfence.store.history import Checked, HistoryLine, HistoryQuery
from ringfence.store.load import MAX_OPERATIONS, StoredOperation
from ringfence.store.place import has_store, place_of, remember
from ringfence.store.store import Store

__all__ = [
    "MAX_OPERATIONS",
    "AuditLine",
    "Checked",
    "Committed",
    "DatabaseFault",
    "Decide",
    "Decision",
    "FolderHeld",
    "Followed",
    "HistoryLine",
    "HistoryQuery",
    "HostSaid",
    "HostsSeen",
    "KeyCreated",
    "KeyRevoked",
    "KeyRotated",
    "Lost",
    "OperationSettled",
    "Question",
    "Record",
    "Store",
    "StoredKey",
    "StoredOperation",
    "Tidied",
    "has_store",
    "next_revision",
    "place_of",
    "remember",
]
