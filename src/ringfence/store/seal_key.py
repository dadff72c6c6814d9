"""The key that seals the secrets of a store: where it is stored, and which of two is valid while secrets are resealed.

Input: a data folder and its open database. Output: the key. Every refusal is an ``OperatorError`` that says what to do.

A new key is stored beside the one in use before any secret is sealed with it, and replaces it after all are: whenever a
process is killed, one of the two unseals every secret.
"""

import os
import secrets
from pathlib import Path
from typing import Final

from ringfence.policy.errors import OperatorError
from ringfence.store.database import Database
from ringfence.store.folder import explained, sync_folder, write_whole
from ringfence.store.load import has_keys, load_keys

KEY_SIZE_BYTES: Final = 32

_NAME: Final = "secret.key"
_NEXT_NAME: Final = "secret.key.next"
_OTHERS: Final = 0o077  # permission bits of everybody but the owner


def find_seal_key(database: Database, folder: Path) -> bytes:
    """The key that the secrets in ``database`` are sealed with; a store without secrets gets a new one.

    systemd's credential of the same name (``LoadCredentialEncrypted=secret.key:...``, systemd.exec(5)) has precedence
    over the file in the folder, so that the key need not be stored beside what it seals.

    Raises:
        OperatorError: it is missing, readable by others, not 32 bytes long, or does not unseal the secrets.
    """
    path, following = find_credential() or folder / _NAME, folder / _NEXT_NAME
    with explained(path.parent):
        if not has_keys(database):
            if not path.exists():
                write_whole(path, secrets.token_bytes(KEY_SIZE_BYTES), mode=0o400)
            return _read(path)
        if not path.exists():
            raise OperatorError(
                f"reading {path}",
                "it is missing, and keys are lost without it: copy it from another server of the database, or a backup",
            )
        key, candidate = _read(path), _read(following) if following.exists() else None
    if candidate is not None and _opens(database, candidate):
        return candidate
    load_keys(database, key)
    return key


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


def _opens(database: Database, key: bytes) -> bool:
    try:
        load_keys(database, key)
    except OperatorError:
        return False
    return True
