"""The feed's lines: views as they come, heartbeats in between, and an end on every side."""

import asyncio

from ringfence.api.agents import feed_lines
from ringfence.policy.values import Revision
from ringfence.policy.view import HostView
from ringfence.wire.feed import HEARTBEAT, decode_feed_line


async def forever():
    await asyncio.Future()


async def views_then_silence(*revisions):
    for revision in revisions:
        yield HostView(Revision(revision))
    await forever()


async def take(lines, count):
    return [await anext(lines) for _ in range(count)]


def test_views_come_as_they_are_and_heartbeats_when_there_are_none():
    async def use():
        lines = feed_lines(views_then_silence(1, 2), "e", 0.01, ends=(forever(),))
        return await take(lines, 4)

    *views, third, fourth = asyncio.run(use())
    assert [decode_feed_line(line).view.revision for line in views] == [1, 2]
    assert [third, fourth] == [HEARTBEAT, HEARTBEAT]


def test_the_feed_ends_when_one_of_its_ends_comes():
    async def use():
        gone = asyncio.Event()

        async def leave():
            await gone.wait()

        lines = feed_lines(views_then_silence(1), "e", 10, ends=(leave(), forever()))
        first = await anext(lines)
        gone.set()
        return first, [line async for line in lines]

    first, rest = asyncio.run(use())
    assert decode_feed_line(first).view.revision == 1
    assert rest == []


def test_the_feed_ends_with_its_views():
    async def two():
        yield HostView(Revision(1))

    async def use():
        return [line async for line in feed_lines(two(), "e", 10, ends=(forever(),))]

    assert len(asyncio.run(use())) == 1


def test_a_feed_that_nobody_listens_to_leaves_no_task_behind():
    async def use():
        closed = asyncio.Event()

        async def views():
            try:
                yield HostView(Revision(1))
                await forever()
            finally:
                closed.set()

        lines = feed_lines(views(), "e", 10, ends=(forever(), forever()))
        await anext(lines)
        await lines.aclose()
        assert closed.is_set()
        return len(asyncio.all_tasks())

    assert asyncio.run(use()) == 1
