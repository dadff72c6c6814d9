"""A clock that jumps by a day: timers and order stand above it, and what must end ends no later than it would have."""

import asyncio
import shutil

from ringfence.control.plane import ControlPlane
from ringfence.control.safety import Safety
from ringfence.policy.commands import Attach, CreateGroup
from ringfence.policy.model import OperationState
from unit.control.test_deadlines import HOUR, open_for, rules
from unit.control.test_plane import H1, QUICK, PlayedClock, opened, owner, played, with_host
from waiting import wait_until

DAY = 24 * HOUR


@played
async def test_a_clock_that_goes_back_a_day_puts_no_deadline_off(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, clock=clock) as plane:
        group = await open_for(plane, HOUR)
        safety = Safety(trial_s=60)
        await plane.execute(CreateGroup("tried"), owner(plane), safety=safety)
        await plane._deadlines.meet()
        clock.day_s -= DAY
        clock.moment_s += 59
        await plane._deadlines.meet()
        assert plane.owners.first.trial is not None
        clock.moment_s += 1
        await plane._deadlines.meet()
        assert plane.owners.first.trial is None
        assert rules(plane, group)
        clock.moment_s += HOUR - 60
        await plane._deadlines.meet()
        assert rules(plane, group) == ()


@played
async def test_a_clock_that_goes_ahead_a_day_brings_deadlines_early_and_nothing_else(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, clock=clock) as plane:
        vm = await with_host(plane)
        group = await open_for(plane, HOUR)
        operation, began_s = await plane.execute(Attach(group, vm), owner(plane)), clock.moment_s
        clock.day_s += DAY
        await plane._deadlines.meet()
        assert rules(plane, group) == ()
        for age_s, state in ((29, OperationState.PENDING), (30, OperationState.TIMEOUT)):
            clock.moment_s = began_s + age_s
            clock.day_s -= 2 * DAY
            plane._book.expire(clock.monotonic_s(), plane._presence.errors)
            assert plane.operation(operation.id, operation.organisation).state is state
            assert plane.status_of(H1).age_s == age_s


def test_servers_whose_clocks_differ_by_a_day_know_which_hosts_of_each_other_are_live(postgres, tmp_path):
    async def run():
        url, clocks = postgres.database(), (PlayedClock(), PlayedClock())
        clocks[1].day_s += DAY
        first = await ControlPlane.open(tmp_path / "a", QUICK, clocks[0], database=url)
        (tmp_path / "b").mkdir(mode=0o700)
        shutil.copy(tmp_path / "a" / "secret.key", tmp_path / "b")
        second = await ControlPlane.open(tmp_path / "b", QUICK, clocks[1], database=url)
        try:
            await with_host(first)
            await second.fresh()  # which knows the host from then on
            await asyncio.to_thread(wait_until, lambda: second.status_of(H1).age_s == 0.0)
            clocks[0].day_s -= 2 * DAY  # a clock that goes back keeps nobody from telling
            for clock in clocks:
                clock.moment_s += 40.0
            first.seen(H1)
            await asyncio.to_thread(wait_until, lambda: second.status_of(H1).age_s == 0.0)
        finally:
            await second.close()
            await first.close()

    asyncio.run(run())
