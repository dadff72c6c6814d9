"""Encrypts secrets at rest by AES-256-GCM, with a key that is stored beside the database, not in it.

A label is authenticated with each secret, so that the secret of one row cannot be moved to another.
"""

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ringfence.policy.errors import OperatorError
from ringfence.store.decision import StoredKey

_NONCE_SIZE_BYTES: Final = 12


def label_of(key: StoredKey) -> str:
    """What a sealed secret is bound to: the identity and the rights of its key."""
    rights = "/".join((key.role, *sorted(map(str, key.scope or ()))))
    return f"{key.organisation}/{key.id}/{rights}"


def label_of_previous(key: StoredKey) -> str:
    """What the secret before a rotation is bound to: in addition, the time at which it ends."""
    return f"{label_of(key)}/until/{key.previous_until}"


def seal(key: bytes, secret: str, *, label: str) -> bytes:
    """``secret`` encrypted: a fresh nonce, then the ciphertext with its tag."""
    nonce = os.urandom(_NONCE_SIZE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret.encode(), label.encode())


def unseal(key: bytes, sealed: bytes, *, label: str) -> str:
    """The inverse of ``seal``.

    Raises:
        OperatorError: it was sealed with another key or label, or the sealed bytes were changed.
    """
    nonce, ciphertext = sealed[:_NONCE_SIZE_BYTES], sealed[_NONCE_SIZE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, label.encode()).decode()
    except (InvalidTag, ValueError) as error:
        raise OperatorError(
            f"reading the secret of {label}",
            "it was not sealed with the secret.key at hand (the folder's, or systemd's credential), or was changed "
            "since: copy the key from a server where it was sealed anew, or restore folder and key from one backup",
        ) from error
