"""The control plane whole, on a real store, with hosts played by the test and a clock that moves when told."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import pytest

from desk import H1, H2, instance, tcp
from ringfence.control.actor import Actor, Role
from ringfence.control.keys import KeyWish
from ringfence.control.plane import ControlPlane
from ringfence.control.settings import Settings
from ringfence.policy.commands import (
    AddInstance,
    AddRule,
    Attach,
    ClaimInstances,
    CreateGroup,
    DeleteGroup,
    Edit,
)
from ringfence.policy.errors import Busy, Conflict, Denied, Invalid, NotFound
from ringfence.policy.lockout import parse_connection
from ringfence.policy.model import OperationState
from ringfence.store import FolderHeld
from ringfence.wire.feed import FeedReader, Report

END = ("192.0.2.1", 8443)
QUICK = Settings(settle_wait_s=0.01, operation_timeout_s=30.0)
PATIENT = Settings(settle_wait_s=5.0)


class PlayedClock:
    def __init__(self):
        self.moment_s = 1000.0
        self.day_s = 1_700_000_000.0  # what the time of day is beyond the moment; it may jump

    def now_s(self):
        return self.day_s + self.moment_s

    def monotonic_s(self):
        return self.moment_s


@asynccontextmanager
async def opened(folder, settings=QUICK, clock=None, database=None):
    plane = await ControlPlane.open(folder, settings, clock or PlayedClock(), database=database)
    try:
        yield plane
    finally:
        await plane.close()


def owner(plane, role=Role.OWNER):
    return Actor(plane.owners.first.id, "EXOowner", role, "192.0.2.7", "request-1")


async def with_host(plane, host=H1, number=1):
    """A live host with one instance; its instance's id."""
    await plane.enrolment.add_host(host, bytes([number] * 32))
    claimed = await plane.claim(host, ClaimInstances((instance(f"i-{host}", f"10.0.0.{number}"),)))
    plane.seen(host)
    return claimed.accepted[0][1]


class Watch:
    """Who follows h1: an asynchronous iterator of the views that the feed's lines lead to."""

    def __init__(self, plane, reader=None):
        self.lines = []
        self.reader = reader or FeedReader()
        self._views = asyncio.Queue()
        self.follower = plane.feed.follow(H1, self.reader.base, send=self._take, end=self._end)

    def _end(self):
        self._views.put_nowait(None)

    def _take(self, line):
        self.lines.append(line)
        self._views.put_nowait(self.reader.decode_line(line).view)

    def __aiter__(self):
        return self

    async def __anext__(self):
        view = await self._views.get()
        if view is None:
            raise StopAsyncIteration
        return view


def report(plane, host, applied, error, *, offered=None):
    """What a host says, that was sent what is wanted of it unless said otherwise."""
    plane.report(host, Report(applied, error), offered=plane.feed.wanted(host).revision if offered is None else offered)


async def ended(plane, operation):
    """The operation once it is pending no longer, or after five seconds."""
    await plane._book.wait(operation.id, 5.0)
    return plane.operation(operation.id, operation.organisation)


def played(test):
    """Runs an async test in a loop of its own."""

    def run(tmp_path):
        asyncio.run(test(tmp_path))

    run.__name__ = test.__name__
    return run


@played
async def test_a_fresh_store_has_one_organisation_with_the_group_default(tmp_path):
    async with opened(tmp_path) as plane:
        (default,) = plane.snapshot.groups.values()
        assert (default.name, default.organisation) == ("default", plane.owners.first.id)
        assert plane.snapshot.organisations[plane.owners.first.id].default_group == default.id
        assert plane.epoch


@played
async def test_everything_is_there_again_after_a_restart(tmp_path):
    async with opened(tmp_path) as plane:
        id_ = await with_host(plane)
        operation = await plane.execute(CreateGroup("web", "x"), owner(plane))
        await plane.execute(AddRule(operation.group, tcp(operation.group)), owner(plane))
        await plane.execute(Attach(operation.group, id_), owner(plane))
        kept, views, epoch = plane.snapshot, plane.view(H1), plane.epoch
    async with opened(tmp_path) as plane:
        assert (plane.snapshot, plane.view(H1), plane.epoch) == (kept, views, epoch)
        assert plane.operation(operation.id, operation.organisation) == operation


@played
async def test_a_removed_hosts_watch_ends_and_one_added_by_its_name_begins_anew(tmp_path):
    async with opened(tmp_path) as plane:
        await with_host(plane)
        report(plane, H1, plane.snapshot.revision, None)
        watch = Watch(plane)
        await anext(watch)
        await plane.enrolment.remove_host(H1)
        await plane.enrolment.add_host(H1, bytes([9] * 32))
        assert await anext(watch, None) is None
        assert [(one.applied, one.age_s) for one in plane.host_status()] == [(None, None)]
        assert plane.view(H1).endpoints == ()
        (left,) = plane.snapshot.instances.values()
        assert (left.host, left.bound_to, left.interfaces) == (None, None, ())
        kept = plane.snapshot
    async with opened(tmp_path) as plane:
        assert plane.snapshot == kept


@played
async def test_without_a_touched_host_an_operation_is_success_at_once_and_says_so(tmp_path):
    async with opened(tmp_path) as plane:
        operation = await plane.execute(CreateGroup("web"), owner(plane))
        assert operation.state is OperationState.SUCCESS
        assert operation.message == "stored; no host enforces it yet"
        assert operation.revision == plane.snapshot.revision == 2


@played
async def test_what_is_so_already_makes_no_revision_and_succeeds(tmp_path):
    async with opened(tmp_path) as plane:
        group = (await plane.execute(CreateGroup("web"), owner(plane))).group
        await plane.execute(AddRule(group, tcp("10.0.0.0/8")), owner(plane))
        before = plane.snapshot
        again = await plane.execute(AddRule(group, tcp("10.0.0.0/8")), owner(plane))
        assert (again.state, again.revision, again.group) == (OperationState.SUCCESS, None, group)
        assert plane.snapshot is before


@played
async def test_a_refused_command_changes_nothing_and_leaves_no_operation(tmp_path):
    async with opened(tmp_path) as plane:
        before = plane.snapshot
        with pytest.raises(Conflict):
            await plane.execute(CreateGroup("default"), owner(plane))
        with pytest.raises(Denied):
            await plane.execute(CreateGroup("web"), owner(plane, Role.READER))
        assert plane.snapshot is before


@played
async def test_what_is_tried_or_refused_leaves_one_line_of_snapshots_in_which_the_next_costs_what_it_changes(tmp_path):
    async with opened(tmp_path) as plane:
        made = await plane.execute(CreateGroup("web"), owner(plane))
        before = plane.snapshot
        edits = [Edit(CreateGroup(name), uuid4()) for name in ("one", "two")]
        tried = await plane.preview(edits, owner(plane))
        assert (len(tried.after.groups), plane.snapshot) == (len(before.groups) + 2, before)
        with pytest.raises(Conflict):
            await plane.change([*edits, Edit(CreateGroup("web"), uuid4())], owner(plane), action="Change")
        await plane.execute(AddRule(made.group, tcp("10.0.0.0/8")), owner(plane))
        assert plane.snapshot.groups.touched_since(before.groups) == {made.group}


@played
async def test_the_first_answer_is_success_when_the_touched_host_applies_in_time(tmp_path):
    async with opened(tmp_path, PATIENT) as plane:
        id_ = await with_host(plane)
        group = (await plane.execute(CreateGroup("web"), owner(plane))).group
        views = Watch(plane)
        await anext(views)
        asked = asyncio.create_task(plane.execute(Attach(group, id_), owner(plane)))
        view = await anext(views)
        await asyncio.wait([asked], timeout=0.05)
        assert not asked.done()
        report(plane, H1, view.revision, None)
        answer = await asked
        assert (answer.state, answer.hosts) == (OperationState.SUCCESS, {H1})


@played
async def test_a_late_success_is_seen_by_asking_again(tmp_path):
    async with opened(tmp_path) as plane:
        id_ = await with_host(plane)
        group = (await plane.execute(CreateGroup("web"), owner(plane))).group
        pending = await plane.execute(Attach(group, id_), owner(plane))
        assert pending.state is OperationState.PENDING
        report(plane, H1, pending.revision, None)
        assert plane.operation(pending.id, pending.organisation).state is OperationState.SUCCESS


@played
async def test_an_operation_fails_with_the_words_of_the_host_that_was_offered_it(tmp_path):
    async with opened(tmp_path) as plane:
        id_ = await with_host(plane)
        group = (await plane.execute(CreateGroup("web"), owner(plane))).group
        views = Watch(plane)
        old = (await anext(views)).revision
        pending = await plane.execute(Attach(group, id_), owner(plane))
        report(plane, H1, old, "from before", offered=old)
        assert plane.operation(pending.id, pending.organisation).state is OperationState.PENDING
        await anext(views)
        report(plane, H1, old, "no memory")
        failed = plane.operation(pending.id, pending.organisation)
        assert (failed.state, failed.message) == (OperationState.FAILURE, "h1: no memory")


@played
async def test_an_error_that_stands_already_does_not_fail_the_next_change(tmp_path):
    async with opened(tmp_path) as plane:
        id_ = await with_host(plane)
        group = (await plane.execute(CreateGroup("web"), owner(plane))).group
        views = Watch(plane)
        old = (await anext(views)).revision
        report(plane, H1, old, "instance spy is refused")
        pending = await plane.execute(Attach(group, id_), owner(plane))
        await anext(views)
        report(plane, H1, old, "instance spy is refused")
        report(plane, H1, pending.revision, "instance spy is refused")
        assert plane.operation(pending.id, pending.organisation).state is OperationState.SUCCESS


@played
async def test_an_operation_that_no_host_answers_times_out_thirty_seconds_after_its_commit(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, QUICK, clock) as plane:
        id_ = await with_host(plane)
        pending = await plane.execute(Attach(plane.snapshot.instances[id_].groups[0], id_), owner(plane))
        assert pending.revision is None
        group = (await plane.execute(CreateGroup("web"), owner(plane))).group
        pending = await plane.execute(Attach(group, id_), owner(plane))
        clock.moment_s += 30.0
        assert (await ended(plane, pending)).state is OperationState.TIMEOUT


@played
async def test_a_host_not_heard_for_45_seconds_is_offline_and_does_not_block(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, QUICK, clock) as plane:
        id_ = await with_host(plane)
        group = (await plane.execute(CreateGroup("web"), owner(plane))).group
        clock.moment_s += 45.0
        operation = await plane.execute(Attach(group, id_), owner(plane))
        assert operation.state is OperationState.SUCCESS
        assert operation.message == "stored; offline, to enforce it on return: h1"


@played
async def test_of_two_touched_hosts_only_the_live_one_is_waited_for(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, QUICK, clock) as plane:
        await with_host(plane, H2, 2)
        clock.moment_s += 45.0
        await with_host(plane)
        default = plane.snapshot.organisations[plane.owners.first.id].default_group
        pending = await plane.execute(AddRule(default, tcp("10.0.0.0/8")), owner(plane))
        assert (pending.state, pending.hosts) == (OperationState.PENDING, {H1, H2})
        report(plane, H1, pending.revision, None)
        settled = plane.operation(pending.id, pending.organisation)
        assert (settled.state, settled.message) == (
            OperationState.SUCCESS,
            "enforced; offline, to enforce it on return: h2",
        )


@played
async def test_a_pending_operation_and_its_hosts_survive_a_restart(tmp_path):
    async with opened(tmp_path) as plane:
        id_ = await with_host(plane)
        await with_host(plane, H2, 2)
        group = (await plane.execute(CreateGroup("web"), owner(plane))).group
        pending = await plane.execute(Attach(group, id_), owner(plane))
    async with opened(tmp_path) as plane:
        assert plane.operation(pending.id, pending.organisation) == pending
        report(plane, H2, pending.revision, None)
        assert plane.operation(pending.id, pending.organisation).state is OperationState.PENDING
        report(plane, H1, pending.revision, None)
        assert plane.operation(pending.id, pending.organisation).state is OperationState.SUCCESS
    async with opened(tmp_path) as plane:
        assert plane.operation(pending.id, pending.organisation).state is OperationState.SUCCESS


@played
async def test_a_pending_operation_times_out_after_a_restart_too(tmp_path):
    async with opened(tmp_path) as plane:
        id_ = await with_host(plane)
        group = (await plane.execute(CreateGroup("web"), owner(plane))).group
        pending = await plane.execute(Attach(group, id_), owner(plane))
    clock = PlayedClock()
    async with opened(tmp_path, QUICK, clock) as plane:
        clock.moment_s += 30.0
        assert (await ended(plane, pending)).state is OperationState.TIMEOUT


@played
async def test_an_operation_of_another_organisation_is_not_found(tmp_path):
    async with opened(tmp_path) as plane:
        operation = await plane.execute(CreateGroup("web"), owner(plane))
        with pytest.raises(NotFound):
            plane.operation(operation.id, operation.id)


@played
async def test_a_watch_starts_with_the_present_view_and_skips_what_it_was_too_slow_for(tmp_path):
    async with opened(tmp_path) as plane:
        id_ = await with_host(plane)
        views = Watch(plane)
        first = await anext(views)
        views.follower.pause()
        for name in ("a", "b", "c"):
            group = (await plane.execute(CreateGroup(name), owner(plane))).group
            last = await plane.execute(Attach(group, id_), owner(plane))
        assert len(views.lines) == 1
        views.follower.go_on()
        assert first.revision < last.revision == (await anext(views)).revision
        assert len(views.lines) == 2


@played
async def test_a_change_is_a_delta_that_makes_the_very_view_that_is_wanted(tmp_path):
    async with opened(tmp_path) as plane:
        id_ = await with_host(plane)
        views = Watch(plane)
        await anext(views)
        group = (await plane.execute(CreateGroup("web"), owner(plane))).group
        await plane.execute(Attach(group, id_), owner(plane))
        await plane.execute(AddRule(group, tcp(group)), owner(plane))
        assert [await anext(views) for _ in range(2)][-1] == plane.view(H1)
        assert all(b'"base"' in line and b'"view"' not in line for line in views.lines[1:])


@played
async def test_a_watch_that_holds_the_present_view_is_not_sent_it_again(tmp_path):
    async with opened(tmp_path) as plane:
        await with_host(plane)
        first = Watch(plane)
        again = Watch(plane, first.reader)
        assert b'"changes":[]' in again.lines[0]
        lines = []
        for known in ({"digest": 1}, {"epoch": "e2"}, {"revision": 10**6}):
            base = replace(first.reader.base, **known)
            plane.feed.follow(H1, base, send=lines.append, end=list)
        assert [b'"view"' in line for line in lines] == [True] * 3


@played
async def test_a_host_whose_agents_are_too_many_keeps_the_newest_of_them(tmp_path):
    async with opened(tmp_path) as plane:
        await with_host(plane)
        watches = [Watch(plane) for _ in range(5)]
        assert len([view async for view in watches[0]]) == 1
        assert plane.feed.count == 4


@played
async def test_two_agents_with_the_key_of_one_host_are_told_until_one_is_gone(tmp_path):
    async with opened(tmp_path) as plane:
        await with_host(plane)
        first, second = (
            plane.feed.follow(H1, None, send=lambda _: None, end=list, channel=parse_connection("its", end, END))
            for end in (("192.0.2.7", 4000), ("192.0.2.9", 4000))
        )
        for now_s, agent in ((0.0, first), (1.0, second), (2.0, first), (9.0, second)):
            agent.spoke(now_s)
            report(plane, H1, 1, "its own")
            assert plane.status_of(H1).error == "its own"  # a connection that broke may still bring what was under way
        for now_s, agent in ((15.0, first), (16.0, second)):
            agent.spoke(now_s)
            report(plane, H1, 1, "its own")
            error = plane.status_of(H1).error
            assert error.startswith("several agents have this host's key, at 192.0.2.7:4000 and 192.0.2.9:4000")
            assert error.endswith("its own")
        plane.feed.forget(second)
        first.spoke(30.0)
        Watch(plane)  # the agent connects anew
        report(plane, H1, 1, None)
        assert plane.status_of(H1).error is None


@played
async def test_a_watch_says_nothing_of_changes_that_do_not_touch_its_host(tmp_path):
    async with opened(tmp_path) as plane:
        await with_host(plane)
        views = Watch(plane)
        await anext(views)
        await plane.execute(CreateGroup("web"), owner(plane))
        assert len(views.lines) == 1


@played
async def test_a_watch_ends_when_the_plane_closes(tmp_path):
    async with opened(tmp_path) as plane:
        await with_host(plane)
        views = Watch(plane)
    assert len([view async for view in views]) == 1


@played
async def test_an_unknown_host_can_neither_watch_nor_claim(tmp_path):
    async with opened(tmp_path) as plane:
        with pytest.raises(NotFound, match="there is no host h1: add it with ringfence host add"):
            Watch(plane)
        with pytest.raises(NotFound):
            await plane.claim(H1, ClaimInstances(()))


@played
async def test_a_claim_answers_the_revision_of_the_hosts_view(tmp_path):
    async with opened(tmp_path) as plane:
        await plane.enrolment.add_host(H1, bytes(32))
        command = ClaimInstances((instance("web", "10.0.0.1"),))
        first = await plane.claim(H1, command)
        await plane.execute(CreateGroup("unrelated"), owner(plane))
        before = plane.snapshot
        again = await plane.claim(H1, command)
        assert (again, plane.snapshot) == (first, before)
        assert first.revision == plane.view(H1).revision


@played
async def test_host_status_says_what_is_wanted_applied_and_wrong(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, QUICK, clock) as plane:
        await with_host(plane)
        wanted = plane.view(H1).revision
        (status,) = plane.host_status()
        assert (status.host, status.wanted, status.applied, status.error) == (H1, wanted, None, None)
        clock.moment_s += 7
        report(plane, H1, wanted, "trouble")
        (status,) = plane.host_status()
        assert (status.applied, status.age_s, status.error) == (wanted, 7.0, "trouble")


@played
async def test_a_revision_that_this_store_has_not_made_counts_as_none(tmp_path):
    async with opened(tmp_path) as plane:
        await with_host(plane)
        report(plane, H1, plane.snapshot.revision + 100, None)
        assert plane.host_status()[0].applied is None


@played
async def test_a_key_is_valid_when_create_returns_and_gone_when_revoke_returns(tmp_path):
    async with opened(tmp_path) as plane:
        key = await plane.owners.create_key(KeyWish("laptop", Role.READER))
        assert plane.owners.key(key.id) == key
        assert len(key.secret) >= 43
    async with opened(tmp_path) as plane:
        assert plane.owners.keys.of() == [key]
        await plane.owners.revoke_key(key.id)
        assert plane.owners.key(key.id) is None
        with pytest.raises(NotFound):
            await plane.owners.revoke_key(key.id)
    async with opened(tmp_path) as plane:
        assert plane.owners.keys.of() == []


@played
async def test_no_secret_is_in_a_repr_or_on_disk(tmp_path):
    async with opened(tmp_path) as plane:
        key = await plane.owners.create_key(KeyWish("laptop"))
        added = await plane.enrolment.add_host(H1, None)
        assert key.secret not in repr(key)
        assert repr(added.private_key) not in repr(added)
    for path in tmp_path.iterdir():
        assert key.secret.encode() not in path.read_bytes()
        assert added.private_key not in path.read_bytes()


@played
async def test_a_host_key_is_made_when_none_is_given_and_kept_when_one_is(tmp_path):
    async with opened(tmp_path) as plane:
        made = await plane.enrolment.add_host(H1, None)
        given = await plane.enrolment.add_host(H2, bytes(32))
        assert (len(made.private_key), len(made.host.public_key)) == (32, 32)
        assert (given.private_key, plane.snapshot.hosts[H2].public_key) == (None, bytes(32))


@pytest.mark.parametrize(
    ("name", "key", "error"),
    [
        ("h1", bytes(32), Conflict),
        ("h,2", bytes(32), Invalid),
        ("", bytes(32), Invalid),
        ("h" * 64, bytes(32), Invalid),
        ("h2\n", bytes(32), Invalid),
        ("h2", bytes(31), Invalid),
    ],
)
def test_a_host_that_cannot_be_is_refused(tmp_path, name, key, error):
    async def test():
        async with opened(tmp_path) as plane:
            await plane.enrolment.add_host(H1, bytes(32))
            with pytest.raises(error):
                await plane.enrolment.add_host(name, key)
            assert list(plane.snapshot.hosts) == [H1]

    asyncio.run(test())


@played
async def test_a_second_process_cannot_open_the_folder(tmp_path):
    async with opened(tmp_path):
        with pytest.raises(FolderHeld, match="holds its lock"):
            await ControlPlane.open(tmp_path)
    async with opened(tmp_path):
        pass


@played
async def test_a_caller_that_hangs_up_does_not_keep_the_change_from_being_published(tmp_path):
    async with opened(tmp_path) as plane:
        id_ = await with_host(plane)
        group = (await plane.execute(CreateGroup("web"), owner(plane))).group
        views = Watch(plane)
        await anext(views)
        asked = asyncio.create_task(plane.execute(Attach(group, id_), owner(plane)))
        await asyncio.sleep(0)  # it has been handed to the store
        asked.cancel()
        view = await asyncio.wait_for(anext(views), 5)
        assert group in view.endpoints[0].groups


@played
async def test_a_defect_in_publishing_is_no_refusal_and_the_server_says_that_it_must_end(tmp_path):
    async with opened(tmp_path) as plane:
        plane._open = lambda *_, **__: {}["view"]
        operations = await asyncio.gather(*(plane.execute(CreateGroup(name), owner(plane)) for name in "ab"))
        assert [operation.state for operation in operations] == [OperationState.SUCCESS] * 2
        assert {group.name for group in plane.snapshot.groups.values()} == {"default", "a", "b"}
        assert "KeyError" in str(plane.failure.result())


@played
async def test_parallel_writers_lose_nothing_and_every_change_has_its_own_revision(tmp_path):
    async with opened(tmp_path) as plane:
        group = (await plane.execute(CreateGroup("web"), owner(plane))).group
        commands = [AddRule(group, tcp("10.0.0.0/8", port)) for port in range(1, 65)]
        operations = await asyncio.gather(*(plane.execute(command, owner(plane)) for command in commands))
        assert len(plane.snapshot.groups[group].rules) == 64
        assert sorted(operation.revision for operation in operations) == list(range(3, 67))


@played
async def test_one_of_two_racing_creates_of_a_name_conflicts(tmp_path):
    async with opened(tmp_path) as plane:
        both = (plane.execute(CreateGroup("web"), owner(plane)) for _ in range(2))
        outcomes = await asyncio.gather(*both, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes].count(Conflict) == 1


@played
async def test_a_declared_instance_refers_to_the_default_group(tmp_path):
    async with opened(tmp_path) as plane:
        operation = await plane.execute(AddInstance(instance("web", "10.0.0.1")), owner(plane))
        assert plane.snapshot.groups[operation.group].name == "default"


@played
async def test_a_closed_plane_applies_nothing_and_says_so(tmp_path):
    async with opened(tmp_path) as plane:
        pass
    with pytest.raises(Busy, match="the server is stopping; nothing was applied"):
        await plane.execute(
            DeleteGroup(plane.snapshot.organisations[plane.owners.first.id].default_group), owner(plane)
        )
