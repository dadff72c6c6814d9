"""API keys: made, kept in memory for the signature check, revoked.

A secret is 256 bits of the system's randomness. It cannot be hashed, because HMAC needs it; the store seals it.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from ringfence.control.actor import Role
from ringfence.policy.values import KeyId, OrganisationId
from ringfence.store import StoredKey


@dataclass(frozen=True, slots=True)
class ApiKey:
    """``created_at`` is in seconds since the epoch."""

    id: KeyId
    secret: str
    organisation: OrganisationId
    role: Role
    name: str | None
    created_at: int

    def __repr__(self) -> str:
        return f"ApiKey(id={self.id!r}, role={self.role.value!r})"  # a secret never reaches a log


class KeyRing:
    """The keys that are valid now, in the order in which they were made."""

    def __init__(self, stored: Iterable[StoredKey]) -> None:
        self._keys = {key.id: _key_of(key) for key in stored}

    def __getitem__(self, id_: KeyId) -> ApiKey:
        return self._keys[id_]

    def get(self, id_: KeyId) -> ApiKey | None:
        return self._keys.get(id_)

    def list(self) -> list[ApiKey]:
        return list(self._keys.values())

    def add(self, key: ApiKey) -> None:
        self._keys[key.id] = key

    def remove(self, id_: KeyId) -> None:
        self._keys.pop(id_, None)


def mint_api_key(organisation: OrganisationId, name: str | None, role: Role, *, now_s: int) -> ApiKey:
    """A fresh key, in the form of Exoscale's: clients take any, people recognise these."""
    id_ = KeyId(f"EXO{secrets.token_hex(13)}")
    return ApiKey(id_, secrets.token_urlsafe(32), organisation, role, name, now_s)


def stored_form(key: ApiKey) -> StoredKey:
    """``key`` as the store keeps it."""
    return StoredKey(key.id, key.organisation, key.name, key.role.value, key.secret, key.created_at)


def _key_of(stored: StoredKey) -> ApiKey:
    return ApiKey(stored.id, stored.secret, stored.organisation, Role(stored.role), stored.name, stored.created_at)
