"""Seals all secrets with a new key, in one transaction, for when somebody may know the old key.

Input: the data folder of a server that is stopped. Output: the number of API keys. Other servers of the same database
can then no longer unseal the secrets, and end themselves.
"""

import secrets
from contextlib import closing
from pathlib import Path
from uuid import UUID

from ringfence.policy.errors import OperatorError
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import OrganisationId, Revision
from ringfence.store.copies import explained_faults, held, require_store
from ringfence.store.database import Database
from ringfence.store.decision import AuditLine, Decision, KeyRotated, StoredKey
from ringfence.store.follow import Follower
from ringfence.store.history import load_chain
from ringfence.store.load import load_keys
from ringfence.store.migrate import load_migrations, migrate
from ringfence.store.place import place_of
from ringfence.store.rows import Rows
from ringfence.store.save import save_decision
from ringfence.store.seal_key import (
    KEY_SIZE_BYTES,
    add_mark,
    find_credential,
    find_seal_key,
    offer_seal_key,
    settle_seal_key,
)


def reseal(folder: Path, *, actor: str, now_s: int) -> int:
    """Seals every secret with a new key and makes it the folder's. Returns the number of API keys.

    When killed at any moment, either the old key and secrets are in force or the new ones; it can be run again.

    Raises:
        FolderHeld: a server runs.
        OperatorError: the key is systemd's rather than the folder's, or the database refuses.
    """
    require_store(folder)
    if path := find_credential():
        raise OperatorError(f"resealing {folder}", f"its key is {path}, which systemd owns: see docs/operations.md")
    with held(folder), explained_faults(f"resealing {folder}"), closing(place_of(folder)(folder)) as database:
        migrate(database, load_migrations())
        old, new = find_seal_key(database, folder), secrets.token_bytes(KEY_SIZE_BYTES)
        settle_seal_key(folder, old)
        keys = load_keys(database, old)
        offer_seal_key(folder, new)
        _seal_anew(database, keys, new, actor=actor, now_s=now_s)
        settle_seal_key(folder, new)
        database.scrub("api_key")
        return len(keys)


def _seal_anew(database: Database, keys: tuple[StoredKey, ...], new: bytes, *, actor: str, now_s: int) -> None:
    """Also writes to the journal, and to the history of the first organisation, in the same transaction.

    There is none yet where the first server was killed right after it had made the store.
    """
    database.begin()
    ((revision, first),) = database.query(
        "SELECT coalesce(max(number), 0), (SELECT id FROM organisation ORDER BY position LIMIT 1) FROM revision"
    )
    audit = AuditLine(OrganisationId(UUID(first)), now_s, actor, "Reseal", f"{len(keys)} keys") if first else None
    decision = Decision(None, records=tuple(map(KeyRotated, keys)), audit=audit)
    follower, rows = Follower(database, new), Rows()
    follower.begin_here()
    save_decision(rows, decision, Snapshot(Revision(revision)), seal_key=new, chain=load_chain(database))
    follower.note(rows, [decision])
    if database.is_shared:
        add_mark(rows, new)
    database.write(rows.runs())
    database.commit()
