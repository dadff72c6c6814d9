"""Rules that last for a time: deleted when it is up, by whoever is there, and once."""

import asyncio
from dataclasses import replace

from desk import tcp
from places import Place
from ringfence.control.deadlines import Deadlines
from ringfence.policy.commands import AddRule, Attach, CreateGroup
from ringfence.store import HistoryQuery
from unit.control.test_plane import H1, QUICK, PlayedClock, opened, owner, played, with_host
from waiting import wait_until

HOUR = 3600


async def open_for(plane, lasts_s, peer="0.0.0.0/0"):
    """The id of a group with one rule that lasts so long."""
    group = (await plane.execute(CreateGroup("web"), owner(plane))).group
    await plane.execute(AddRule(group, tcp(peer), lasts_s), owner(plane))
    return group


def rules(plane, group):
    return plane.snapshot.groups[group].rules


async def expiries(plane):
    return [line for line in await plane.history.read(HistoryQuery()) if line.action == "RuleExpired"]


@played
async def test_a_rule_is_deleted_when_its_time_is_up_and_its_host_is_told(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, clock=clock) as plane:
        vm = await with_host(plane)
        group = await open_for(plane, HOUR)
        await plane.execute(Attach(group, vm), owner(plane))
        [rule] = rules(plane, group)
        assert rule.expires_at == int(clock.now_s()) + HOUR
        clock.moment_s += HOUR - 1
        await plane._deadlines.meet()
        assert plane.view(H1).rules[group] == (rule,)
        clock.moment_s += 1
        await asyncio.to_thread(wait_until, lambda: not rules(plane, group))  # by the server's own tick
        assert plane.view(H1).rules[group] == ()
        [line] = await expiries(plane)
        assert line.actor == "operator"
        assert line.subject == f"group web: rule {rule.id} deleted: ingress tcp/22 from 0.0.0.0/0"
        assert plane.operations(plane.owners.first.id, 1)[0].hosts == {H1}


@played
async def test_a_rule_whose_time_ended_while_no_server_ran_is_gone_before_one_serves(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, clock=clock) as plane:
        group = await open_for(plane, HOUR)
    async with opened(tmp_path, clock=clock) as plane:
        assert rules(plane, group)[0].expires_at == int(clock.now_s()) + HOUR
    clock.moment_s += HOUR
    async with opened(tmp_path, clock=clock) as plane:
        assert rules(plane, group) == ()
        assert len(await expiries(plane)) == 1


@played
async def test_who_asks_for_an_equal_rule_gets_the_one_that_is_there_for_as_long_as_anybody_asked(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, clock=clock) as plane:
        vm = await with_host(plane)
        group = await open_for(plane, HOUR)
        await plane.execute(Attach(group, vm), owner(plane))
        [rule] = rules(plane, group)
        for lasts_s, wanted_s in ((HOUR // 2, HOUR), (2 * HOUR, 2 * HOUR), (None, None), (HOUR, None)):
            operation = await plane.execute(AddRule(group, tcp("0.0.0.0/0"), lasts_s), owner(plane))
            assert operation.hosts == frozenset()  # nothing else is allowed by it
            [same] = rules(plane, group)
            assert same.id == rule.id
            assert same.expires_at == (None if wanted_s is None else int(clock.now_s()) + wanted_s)
        clock.moment_s += 3 * HOUR
        await plane._deadlines.meet()
        assert rules(plane, group) == (rule,)


@played
async def test_a_rule_is_deleted_in_time_though_the_history_cannot_be_tidied(tmp_path):
    clock, settings = PlayedClock(), replace(QUICK, keep_history_s=24 * HOUR, operation_timeout_s=0.2)
    async with opened(tmp_path, settings, clock) as plane:

        async def tidied():
            before_s = plane.history._due_s
            await asyncio.to_thread(wait_until, lambda: plane.history._due_s > before_s)

        await tidied()
        await plane.execute(CreateGroup("db"), owner(plane))
        Place(tmp_path).run("CREATE TRIGGER kept BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'kept'); END")
        clock.moment_s += 48 * HOUR
        await tidied()
        group = await open_for(plane, HOUR)
        clock.moment_s += HOUR
        await asyncio.to_thread(wait_until, lambda: not rules(plane, group))
        assert len(await expiries(plane)) == 1


@played
async def test_what_is_due_is_done_once_even_if_two_see_it(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, clock=clock) as plane:
        await open_for(plane, 1)
        clock.moment_s += 1
        stale = plane.snapshot
        other = Deadlines(  # as another server that has not heard of it
            lambda: stale, plane.past, plane._change, plane._now_s, clock.monotonic_s
        )
        await plane._deadlines.meet()
        await other.meet()
        assert len(await expiries(plane)) == 1
