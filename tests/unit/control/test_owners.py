"""Keys and organisations on a real store: scopes, rotation, limits, all of it there again after a restart."""

import asyncio
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from desk import cidr, tcp
from ringfence.control.actor import Actor, Role, operator_of
from ringfence.control.keys import KeyWish
from ringfence.control.plane import ControlPlane
from ringfence.control.settings import Settings
from ringfence.policy.commands import (
    AddInstance,
    AddRule,
    AddSource,
    Attach,
    CreateGroup,
    DeleteGroup,
    DeleteRule,
    Detach,
    InstanceClaim,
    RemoveSource,
)
from ringfence.policy.errors import Denied, Invalid, NotFound, QuotaReached
from ringfence.policy.quota import Quota
from ringfence.policy.values import GroupId, InstanceId, KeyId, RuleId, Visibility
from ringfence.store import HistoryQuery


class PlayedClock:
    def __init__(self):
        self.moment_s = 1_000_000.0

    def now_s(self):
        return self.moment_s

    def monotonic_s(self):
        return self.moment_s


@asynccontextmanager
async def opened(folder, clock):
    plane = await ControlPlane.open(folder, Settings(settle_wait_s=0.01, keep_history_s=400 * 86400), clock)
    try:
        yield plane
    finally:
        await plane.close()


@pytest.fixture
def played(tmp_path):
    """Runs `test(open)`, where `async with open() as plane` opens the same folder each time, at `clock`'s time."""

    def run(test):
        clock = PlayedClock()
        asyncio.run(test(lambda: opened(tmp_path, clock), clock))

    return run


def actor_of(key):
    return Actor(key.organisation, key.id, key.role, scope=key.scope)


def test_a_key_limited_to_a_group_changes_that_one_alone(played):
    async def test(open_plane, _):
        async with open_plane() as plane:
            owner = actor_of(await plane.owners.create_key(KeyWish()))
            web, app = [(await plane.execute(CreateGroup(name), owner)).group for name in ("web", "app")]
            vm = InstanceId(uuid4())
            await plane.execute(AddInstance(InstanceClaim("vm", vm, ())), owner)
            key = await plane.owners.create_key(KeyWish("ci", Role.OPERATOR, ("web",)))
        async with open_plane() as plane:
            kept = plane.owners.key(key.id)
            assert kept == key
            limited = actor_of(kept)
            for command in (AddRule(web, tcp(app)), AddSource(web, cidr("10.0.0.0/8")), Attach(web, vm)):
                await plane.execute(command, limited)
            forbidden = (
                CreateGroup("third"),
                DeleteGroup(app),
                AddRule(app, tcp(web)),
                DeleteRule(app, RuleId(uuid4())),
                AddSource(app, cidr("10.0.0.0/8")),
                RemoveSource(app, cidr("10.0.0.0/8")),
                Attach(app, vm),
                Detach(app, vm),
            )
            before = plane.snapshot
            for command in forbidden:
                with pytest.raises(Denied, match=r"limited to groups|may change group web only, not app"):
                    await plane.execute(command, limited)
            with pytest.raises(NotFound):  # what is not there is not told apart from what may not be changed
                await plane.execute(DeleteGroup(GroupId(uuid4())), limited)
            assert plane.snapshot is before

    played(test)


@pytest.mark.parametrize(
    "wish",
    [
        KeyWish(role=Role.OWNER, groups=("default",)),
        KeyWish(role=Role.OPERATOR, groups=("nothing",)),
        KeyWish(role=Role.OPERATOR, groups=("everybodys",)),
    ],
    ids=["of an owner", "of nothing", "of a public group"],
)
def test_a_scope_that_cannot_be_is_refused(played, wish):
    async def test(open_plane, _):
        async with open_plane() as plane:
            public = CreateGroup("everybodys", visibility=Visibility.PUBLIC)
            await plane.execute(public, operator_of(plane.owners.first.id))
            with pytest.raises(Invalid):
                await plane.owners.create_key(wish)
            assert plane.owners.keys.of() == []

    played(test)


def test_a_key_that_is_revoked_while_it_is_rotated_stays_revoked(played):
    async def test(open_plane, _):
        async with open_plane() as plane:
            for _ in range(5):
                key = await plane.owners.create_key(KeyWish())
                turned = plane.owners.rotate_key(key.id, 60), plane.owners.revoke_key(key.id)
                rotated, revoked = await asyncio.gather(*turned, return_exceptions=True)
                assert revoked is None
                assert plane.owners.key(key.id) is None, rotated

    played(test)


def test_both_secrets_sign_until_the_overlap_ends_across_restarts_too(played):
    async def test(open_plane, clock):
        async with open_plane() as plane:
            old = await plane.owners.create_key(KeyWish("ci"))
            new = await plane.owners.rotate_key(old.id, 3600)
            assert new.secret != old.secret
            assert plane.owners.key(old.id).secrets(clock.now_s()) == (new.secret, old.secret)
        clock.moment_s += 3599
        async with open_plane() as plane:
            assert plane.owners.key(old.id).secrets(clock.now_s()) == (new.secret, old.secret)
            clock.moment_s += 1
            assert plane.owners.key(old.id).secrets(clock.now_s()) == (new.secret,)
            newest = await plane.owners.rotate_key(old.id, 0)
            assert plane.owners.key(old.id).secrets(clock.now_s()) == (newest.secret,)
            with pytest.raises(NotFound):
                await plane.owners.rotate_key(KeyId("EXOnone"), 0)

    played(test)


def test_of_keys_that_are_made_or_rotated_at_once_each_counts(played):
    async def test(open_plane, clock):
        async with open_plane() as plane:
            owners = plane.owners
            await owners.limit("default", {Quota.KEYS: 3})
            asked = await asyncio.gather(*(owners.create_key(KeyWish()) for _ in range(64)), return_exceptions=True)
            refused = [one for one in asked if isinstance(one, QuotaReached)]
            made = [one for one in asked if one not in refused]
            assert (len(made), len(refused)) == (3, 61)
            rotated = await asyncio.gather(*(owners.rotate_key(made[0].id, 60) for _ in range(2)))
            assert {key.secret for key in rotated} == {*owners.key(made[0].id).secrets(clock.now_s())}

    played(test)


def test_limits_and_organisations_are_there_again_and_removed_ones_are_not(played):
    async def test(open_plane, _):
        async with open_plane() as plane:
            await plane.owners.create("acme")
            gone = await plane.owners.create("gone")
            key = await plane.owners.create_key(KeyWish(), "gone")
            await plane.owners.limit("acme", {Quota.KEYS: 0, Quota.HOSTS: 7})
            await plane.owners.limit("acme", {Quota.HOSTS: None})
            with pytest.raises(QuotaReached):
                await plane.owners.create_key(KeyWish(), "acme")
            await plane.owners.remove("gone")
            kept = plane.snapshot
        async with open_plane() as plane:
            assert plane.snapshot == kept
            assert [one.name for one in plane.snapshot.organisations.values()] == ["default", "acme"]
            assert plane.owners.named("acme").limits == {Quota.KEYS: 0}
            assert plane.owners.key(key.id) is None
            assert (await plane.owners.create("gone")).id != gone.id

    played(test)


def test_time_takes_old_secrets_and_old_history_from_the_disk(played):
    async def test(open_plane, clock):
        async with open_plane() as plane:
            key = await plane.owners.create_key(KeyWish("ci"))
            await plane.owners.rotate_key(key.id, 3600)
            clock.moment_s += 500 * 86400
            await plane.owners.create("acme")
            await plane.history.tidy(clock.monotonic_s())
            assert [line.action for line in await plane.history.read(HistoryQuery())] == ["CreateOrganisation"]
            assert (await plane.history.check()).broken is None
            await plane.history.tidy(clock.monotonic_s())
        async with open_plane() as plane:
            assert plane.owners.key(key.id).previous is None

    played(test)
