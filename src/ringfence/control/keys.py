"""API keys: minted, held in memory to verify signatures, rotated, revoked.

A secret is 256 bits of the system's randomness. It cannot be hashed, because HMAC needs it; the store seals it.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ringfence.control.actor import Role
from ringfence.control.lookup import name_some
from ringfence.policy.errors import Busy, Invalid
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import GroupId, KeyId, OrganisationId, Visibility
from ringfence.store import StoredKey


@dataclass(frozen=True, slots=True)
class ApiKey:
    """``scope`` has the only groups that it may change, None for all. Times are in seconds since the epoch.

    ``previous`` is the secret before the last rotation, which signs until ``previous_until``.
    """

    id: KeyId
    secret: str
    organisation: OrganisationId
    role: Role
    name: str | None
    created_at: int
    scope: frozenset[GroupId] | None = None
    previous: str | None = None
    previous_until: int | None = None

    def secrets(self, now_s: float) -> tuple[str, ...]:
        """The secrets that are valid at that time, the newest first."""
        if self.previous is not None and self.previous_until is not None and now_s < self.previous_until:
            return (self.secret, self.previous)
        return (self.secret,)

    def __repr__(self) -> str:
        return f"ApiKey(id={self.id!r}, role={self.role.value!r})"  # a secret never reaches a log


class KeysChanged(Busy):
    """Another server has changed keys since it was looked which there are: look again."""


class KeyRing:
    """The keys that are valid now, in the order in which they were made.

    ``followed``: the keys as another server left them last; None as long as none has changed any.
    """

    def __init__(self, stored: Iterable[StoredKey]) -> None:
        self.followed: tuple[StoredKey, ...] | None = None
        self._keys = {key.id: _key_of(key) for key in stored}

    def follow(self, stored: tuple[StoredKey, ...]) -> None:
        """Replaces all keys by those that another server left."""
        self.followed = stored
        self._keys = {key.id: _key_of(key) for key in stored}

    def __getitem__(self, id_: KeyId) -> ApiKey:
        return self._keys[id_]

    def get(self, id_: KeyId) -> ApiKey | None:
        return self._keys.get(id_)

    def of(self, organisation: OrganisationId | None = None) -> list[ApiKey]:
        """The keys of one organisation, or all."""
        return [key for key in self._keys.values() if organisation in (None, key.organisation)]

    def put(self, key: ApiKey) -> None:
        """Adds a new key, or replaces a rotated one."""
        self._keys[key.id] = key

    def remove(self, id_: KeyId) -> None:
        self._keys.pop(id_, None)


@dataclass(frozen=True, slots=True)
class KeyWish:
    """A key as an operator wants it; ``groups`` are names of the only groups that it may change, none for all."""

    name: str | None = None
    role: Role = Role.OWNER
    groups: tuple[str, ...] = ()


def mint_api_key(
    organisation: OrganisationId, wish: KeyWish, scope: frozenset[GroupId] | None, *, now_s: int
) -> ApiKey:
    """A new key in Exoscale's form: clients accept any, but people recognise this one."""
    id_ = KeyId(f"EXO{secrets.token_hex(13)}")
    return ApiKey(id_, _mint_secret(), organisation, wish.role, wish.name, now_s, scope)


def rotate_api_key(key: ApiKey, *, overlap_s: int, now_s: int) -> ApiKey:
    """``key`` with a new secret; the last one stays valid for ``overlap_s``, the one before that no longer."""
    if not overlap_s:
        return replace(key, secret=_mint_secret(), previous=None, previous_until=None)
    return replace(key, secret=_mint_secret(), previous=key.secret, previous_until=now_s + overlap_s)


def resolve_scope(snapshot: Snapshot, organisation: OrganisationId, wish: KeyWish) -> frozenset[GroupId] | None:
    """The groups that the wanted key is limited to, None for no limit.

    Raises:
        Invalid: a name is not a group's, or the role is not operator: owners have no limit, readers change nothing.
    """
    if not wish.groups:
        return None
    if wish.role is not Role.OPERATOR:
        raise Invalid(f"a key limited to groups has the role operator, not {wish.role.value}", field="$.role")
    known = {
        group.name: group.id
        for group in snapshot.groups.values()
        if group.organisation == organisation and group.visibility is Visibility.PRIVATE
    }
    missing = set(wish.groups) - known.keys()
    if missing:
        raise Invalid(f"the organisation has no security group named {name_some(missing)}", field="$.groups")
    return frozenset(known[name] for name in wish.groups)


def stored_form(key: ApiKey) -> StoredKey:
    """``key`` as the store keeps it."""
    return StoredKey(
        id=key.id,
        organisation=key.organisation,
        name=key.name,
        role=key.role.value,
        secret=key.secret,
        created_at=key.created_at,
        scope=key.scope,
        previous=key.previous,
        previous_until=key.previous_until,
    )


def _mint_secret() -> str:
    return secrets.token_urlsafe(32)


def _key_of(stored: StoredKey) -> ApiKey:
    return ApiKey(
        id=stored.id,
        secret=stored.secret,
        organisation=stored.organisation,
        role=Role(stored.role),
        name=stored.name,
        created_at=stored.created_at,
        scope=stored.scope,
        previous=stored.previous,
        previous_until=stored.previous_until,
    )
