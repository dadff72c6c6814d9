"""The key that seals the secrets of a store: where it is stored, and which of two is valid while secrets are resealed.

Input: a data folder and its open database. Output: the key. Every refusal is an ``OperatorError`` that says what to do.

A new key is stored beside the one in use before any secret is sealed with it, and replaces it after all are: whenever a
process is killed, one of the two unseals every secret.

A database that several servers share holds a mark: a known word, sealed by the server that was the first to start. So
another one with another key is noticed before there is any secret that it cannot unseal.
"""

import os
import secrets
from pathlib import Path
from typing import Final

from ringfence.policy.errors import OperatorError
from ringfence.store.database import Database
from ringfence.store.folder import explained, sync_folder, write_whole
from ringfence.store.load import has_keys, load_keys
from ringfence.store.migrate import SET_META
from ringfence.store.rows import Rows
from ringfence.store.seal import seal, unseal

KEY_SIZE_BYTES: Final = 32

_NAME: Final = "secret.key"
_NEXT_NAME: Final = "secret.key.next"
MARK: Final = "seal"  # the name of a row of ``meta``, the word that is sealed in it, and its label
_OTHERS: Final = 0o077  # permission bits of everybody but the owner


def find_seal_key(database: Database, folder: Path) -> bytes:
    """The key that the secrets in ``database`` are sealed with; a store without secrets and mark gets a new one.

    systemd's credential of the same name (``LoadCredentialEncrypted=secret.key:...``, systemd.exec(5)) has precedence
    over the file in the folder, so that the key need not be stored beside what it seals.

    Raises:
        OperatorError: it is missing, readable by others, not 32 bytes long, or does not unseal the mark or the secrets.
    """
    path, following = find_credential() or folder / _NAME, folder / _NEXT_NAME
    with explained(path.parent):
        if not has_keys(database) and _read_mark(database) is None:
            if not path.exists():
                write_whole(path, secrets.token_bytes(KEY_SIZE_BYTES), mode=0o400)
            return _read(path)
        if not path.exists():
            raise OperatorError(
                f"reading {path}",
                "it is missing, and keys are lost without it: copy it from another server of the database, or restore "
                "a backup; where there is neither, see docs/operations.md (Backup and restore)",
            )
        key, candidate = _read(path), _read(following) if following.exists() else None
    if candidate is not None and _opens(database, candidate):
        return candidate
    _require_opening(database, key, path)
    return key


def settle_shared_key(database: Database, folder: Path) -> bytes:
    """As ``find_seal_key``; marks a shared database that has no mark yet. Of two servers, one does so before the other.

    SQLite needs none: its folder, the key in it, and the server that holds both are one.
    """
    if not database.is_shared or _read_mark(database) is not None:
        return find_seal_key(database, folder)
    database.begin()
    try:
        key, rows = find_seal_key(database, folder), Rows()
        if _read_mark(database) is None:
            add_mark(rows, key)
        database.write(rows.runs())
        database.commit()
    except BaseException:
        database.rollback()
        raise
    return key


def add_mark(rows: Rows, key: bytes) -> None:
    """Adds the mark that is sealed with ``key``, in place of any other."""
    rows.add(SET_META, (MARK, seal(key, MARK, label=MARK).hex()))


def find_credential() -> Path | None:
    """The file in which systemd passes the key to its unit, None without one; systemd controls who may read it."""
    given = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(given) / _NAME if given else None
    return path if path is not None and path.exists() else None


def require_no_seal_key(folder: Path, name: str) -> None:
    """A folder whose database ``name`` is empty has no key yet: else a server would begin anew where a store was lost.

    Raises:
        OperatorError: when one is there.
    """
    path = folder / _NAME
    if path.exists():
        raise OperatorError(
            f"opening {name}",
            f"it is empty or was missing, though {path} shows that a store was here: restore a backup into another "
            f"folder, or remove {path} to begin anew; the hosts keep enforcing what they have",
        )


def offer_seal_key(folder: Path, key: bytes) -> None:
    """Stores a new key beside the one in use."""
    with explained(folder):
        write_whole(folder / _NEXT_NAME, key, mode=0o400)


def settle_seal_key(folder: Path, key: bytes) -> None:
    """Makes ``key``, which unseals the secrets, the folder's only one. The caller must hold the folder's lock."""
    following = folder / _NEXT_NAME
    with explained(folder):
        if following.exists():
            if following.read_bytes() == key:
                following.rename(folder / _NAME)
            else:
                following.unlink()
            sync_folder(folder)


def save_seal_key(folder: Path, key: bytes) -> None:
    """Stores the key of a restored store in its folder.

    Raises:
        OperatorError: the folder has another key.
    """
    path = folder / _NAME
    with explained(folder):
        if not path.exists():
            write_whole(path, key, mode=0o400)
        elif path.read_bytes() != key:
            raise OperatorError(f"writing {path}", "another key is there: name a folder without one")


def _read(path: Path) -> bytes:
    if find_credential() != path and path.stat().st_mode & _OTHERS:
        raise OperatorError(f"reading {path}", f"others may read it: revoke all keys, or chmod 400 {path}")
    key = path.read_bytes()
    if len(key) != KEY_SIZE_BYTES:
        raise OperatorError(f"reading {path}", f"expected {KEY_SIZE_BYTES} bytes, found {len(key)}: restore it")
    return key


def _read_mark(database: Database) -> bytes | None:
    for (value,) in database.query("SELECT value FROM meta WHERE name = ?", (MARK,)):
        return bytes.fromhex(value)
    return None


def _require_opening(database: Database, key: bytes, path: Path) -> None:
    mark = _read_mark(database)
    if mark is not None:
        try:
            unseal(key, mark, label=MARK)
        except OperatorError as error:
            raise OperatorError(
                f"reading {path}",
                f"another server has sealed {database.name} with another key: copy the key from a server where it was "
                f"sealed anew, or from the one that was started first, to {path}, mode 0400",
            ) from error
    load_keys(database, key)


def _opens(database: Database, key: bytes) -> bool:
    try:
        _require_opening(database, key, Path(_NEXT_NAME))
    except OperatorError:
        return False
    return True
