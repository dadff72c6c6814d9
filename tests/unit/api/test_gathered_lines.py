"""The log lines of one turn of the loop are one write; what is urgent, or from elsewhere, waits for nobody."""

import asyncio
import errno
import io
import logging
import os

import pytest

from ringfence.api.gathered_lines import GatheredLines


class Writes(io.StringIO):
    """What was written, call by call."""

    def __init__(self):
        super().__init__()
        self.each = []

    def write(self, text):
        self.each.append(text)
        return len(text)


@pytest.fixture
def writes():
    return Writes()


@pytest.fixture
def log(writes):
    log, handler = logging.getLogger("gathered"), GatheredLines(writes)
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    yield log
    log.removeHandler(handler)


def test_lines_of_one_turn_are_one_write(log, writes):
    async def play():
        log.info("one")
        log.info("two")
        assert writes.each == []
        await asyncio.sleep(0)
        log.info("three")
        await asyncio.sleep(0)

    asyncio.run(play())
    assert writes.each == ["one\ntwo\n", "three\n"]


def test_a_warning_does_not_wait_nor_overtake(log, writes):
    async def play():
        log.info("before")
        log.warning("now")
        assert writes.each == ["before\nnow\n"]

    asyncio.run(play())


def test_a_line_from_where_no_loop_runs_is_written_at_once(log, writes):
    log.info("one")
    assert writes.each == ["one\n"]


def test_a_log_that_cannot_be_written_breaks_nothing_and_says_later_how_much_is_missing(log, writes, monkeypatch):
    def refuse(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def play():
        with monkeypatch.context() as full:
            full.setattr(writes, "write", refuse)
            log.info("one")
            await asyncio.sleep(0)
            log.warning("two\nof two lines")
        log.info("three")
        await asyncio.sleep(0)
        log.warning("four")

    asyncio.run(play())
    lost = "3 lines of this log before here could not be written and are lost"
    assert writes.each == [f"{lost}\nthree\n", "four\n"]
