"""Secrets at rest: AES-256-GCM with a key that lies beside the database, not in it.

Input and output: bytes. The label is bound to the sealed bytes, so that one row's secret cannot be moved to another.
"""

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ringfence.policy.errors import OperatorError

_NONCE_SIZE_BYTES: Final = 12


def seal(key: bytes, secret: str, *, label: str) -> bytes:
    """``secret`` encrypted: a fresh nonce, then the ciphertext with its tag."""
    nonce = os.urandom(_NONCE_SIZE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret.encode(), label.encode())


def unseal(key: bytes, sealed: bytes, *, label: str) -> str:
    """The secret that ``seal`` was given.

    Raises:
        OperatorError: when the key is another, or the sealed bytes or the label were changed.
    """
    nonce, ciphertext = sealed[:_NONCE_SIZE_BYTES], sealed[_NONCE_SIZE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, label.encode()).decode()
    except (InvalidTag, ValueError) as error:
        raise OperatorError(
            f"reading the secret of {label}",
            "it was not sealed with this folder's secret.key, or was changed since: restore both from one backup",
        ) from error
