"""Organisations, their quotas and their keys, as the operator changes them and requests use them.

Lives in the event loop's thread. Writes go through the store's writer; keys are read from memory.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from ringfence.control.actor import Actor, operator_of
from ringfence.control.commits import Commits
from ringfence.control.held import decide_hold
from ringfence.control.ids import new_id
from ringfence.control.keys import ApiKey, KeyRing, KeysChanged, KeyWish, mint_api_key, resolve_scope, rotate_api_key
from ringfence.control.lookup import find_organisation
from ringfence.control.organisations import decide_end, decide_found, decide_limit
from ringfence.control.quotas import Usage, require_room_for_key, usage_of
from ringfence.control.use_cases import Asked, UseCases
from ringfence.policy.errors import NotFound
from ringfence.policy.model import Organisation
from ringfence.policy.quota import Quota
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import GroupId, KeyId, OrganisationId

_MOST_ATTEMPTS: Final = 20


@dataclass(frozen=True, slots=True)
class Owners:
    """``snapshot`` and ``asked`` are the plane's: the newest state, and who asks at what time.

    Keys are made and rotated one after the other: each by what the ones before left of the limit, and of the secrets.
    """

    snapshot: Callable[[], Snapshot]
    asked: Callable[[Actor], Asked]
    commits: Commits
    use_cases: UseCases
    keys: KeyRing
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def first(self) -> Organisation:
        """The organisation that a fresh store is born with: public groups are its."""
        return next(iter(self.snapshot().organisations.values()))

    def named(self, name: str | None) -> Organisation:
        """The organisation of that name, the first one for None; ``NotFound`` names those that there are."""
        return self.first if name is None else find_organisation(self.snapshot(), name)

    async def create(self, name: str) -> Organisation:
        """A new organisation, with its group ``default``."""
        id_, default = OrganisationId(new_id()), GroupId(new_id())
        asked = self.asked(operator_of(id_))
        decide = self.use_cases.change_organisation(
            asked, "CreateOrganisation", name, lambda snapshot: decide_found(snapshot, name, id_, default)
        )
        await self.commits.run(decide)
        return self.snapshot().organisations[id_]

    async def remove(self, name: str) -> None:
        """Removes an empty organisation; when this returns, its keys are refused."""
        organisation = self.named(name)
        asked = self.asked(operator_of(organisation.id))
        await self.commits.run(
            self.use_cases.change_organisation(
                asked,
                "RemoveOrganisation",
                name,
                lambda snapshot: decide_end(snapshot, find_organisation(snapshot, name)),
                revoked=tuple(key.id for key in self.keys.of(organisation.id)),
            )
        )

    async def limit(self, name: str, limits: Mapping[Quota, int | None]) -> None:
        """Sets limits of an organisation, all or none; None restores a default."""
        asked = self.asked(operator_of(self.named(name).id))
        subject = ", ".join(f"{quota.value}={'default' if n is None else n}" for quota, n in limits.items())
        await self.commits.run(
            self.use_cases.change_organisation(
                asked,
                "SetLimits",
                subject,
                lambda snapshot: tuple(
                    fact
                    for quota, n in limits.items()
                    for fact in decide_limit(find_organisation(snapshot, name), quota, n)
                ),
            )
        )

    async def hold(
        self, texts: Sequence[str], organisation: str | None = None, *, accept_failing: bool
    ) -> Organisation:
        """Replaces the assertions that no change of the organisation may break."""
        id_ = self.named(organisation).id
        await self.commits.run(
            self.use_cases.change_organisation(
                self.asked(operator_of(id_)),
                "SetAssertions",
                f"{len(texts)} assertions",
                lambda snapshot: decide_hold(
                    snapshot, snapshot.organisations[id_], texts, accept_failing=accept_failing
                ),
            )
        )
        return self.snapshot().organisations[id_]

    def usage(self, organisation: OrganisationId) -> tuple[Usage, ...]:
        """What the organisation uses of every quota."""
        snapshot = self.snapshot()
        return usage_of(snapshot, snapshot.organisations[organisation], len(self.keys.of(organisation)))

    async def create_key(self, wish: KeyWish, organisation: str | None = None) -> ApiKey:
        """A new API key of the organisation; it is valid when this returns."""
        async with self._turn:
            return await _until_alone(lambda: self._create_key(wish, organisation))

    async def rotate_key(self, id_: KeyId, overlap_s: int) -> ApiKey:
        """A key with a new secret, valid when this returns; the old one is valid for ``overlap_s`` seconds more."""
        async with self._turn:
            return await _until_alone(lambda: self._rotate_key(id_, overlap_s))

    async def revoke_key(self, id_: KeyId) -> None:
        """Ends a key; no request signed with it is accepted from the moment this returns."""
        key = self._known(id_)
        await self.commits.run(self.use_cases.revoke_key(id_, self.asked(operator_of(key.organisation))))

    def key(self, id_: KeyId) -> ApiKey | None:
        """A valid key, from memory; those of a removed organisation end with it, at the same moment."""
        key = self.keys.get(id_)
        return key if key is not None and key.organisation in self.snapshot().organisations else None

    async def _create_key(self, wish: KeyWish, organisation: str | None) -> ApiKey:
        owner = self.named(organisation)
        require_room_for_key(owner, len(self.keys.of(owner.id)))
        asked = self.asked(operator_of(owner.id))
        key = mint_api_key(owner.id, wish, resolve_scope(self.snapshot(), owner.id, wish), now_s=asked.now_s)
        await self.commits.run(self.use_cases.create_key(key, asked, self.keys))
        self.keys.put(key)
        return key

    async def _rotate_key(self, id_: KeyId, overlap_s: int) -> ApiKey:
        key = self._known(id_)
        asked = self.asked(operator_of(key.organisation))
        rotated = rotate_api_key(key, overlap_s=overlap_s, now_s=asked.now_s)
        await self.commits.run(self.use_cases.rotate_key(rotated, asked, self.keys))
        if self.keys.get(id_) is None:
            raise NotFound(f"API key {id_} was revoked meanwhile")
        self.keys.put(rotated)
        return rotated

    def _known(self, id_: KeyId) -> ApiKey:
        key = self.keys.get(id_)
        if key is None:
            raise NotFound(f"there is no API key {ascii(id_)[1:-1][:80]}")
        return key


async def _until_alone(change: Callable[[], Awaitable[ApiKey]]) -> ApiKey:
    """What ``change`` returns; it is decided anew as often as another server was first, which is known by then."""
    for _ in range(_MOST_ATTEMPTS):
        with suppress(KeysChanged):
            return await change()
    return await change()
