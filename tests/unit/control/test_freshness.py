"""Reads wait for what other servers committed, but not for a database that does not answer."""

import asyncio
import socket
from concurrent.futures import Future

import pytest

from ringfence.control.freshness import Freshness
from ringfence.policy.errors import Busy
from ringfence.store import DatabaseFault
from waiting import wait_until


class Asked:
    """A shared store that keeps what its writer is asked, to be answered by the test."""

    is_shared = True
    settled = 5

    def __init__(self, question=None):
        self.questions = []
        self.unheard_s = self.silent_s = 0.0
        self.question = question

    def refresh(self):
        question = Future()
        question.set_running_or_notify_cancel()
        self.questions.append(question)
        return question

    def open_question(self):
        if self.question is None:
            raise DatabaseFault("away")
        return self.question


class Newest:
    """A question that the test answers by ``tell``."""

    def __init__(self):
        self.teller, self.ear = socket.socketpair()
        self.fileno = self.ear.fileno()
        self.asked = 0

    def ask(self):
        self.asked += 1

    def hear(self):
        told = self.ear.recv(1)
        if not told:
            raise DatabaseFault("the connection is closed")
        return told[0]

    def tell(self, number):
        self.teller.send(bytes([number]))

    def close(self):
        self.teller.close()
        self.ear.close()


class Published:
    """Commits that count how often what was committed is made known."""

    def __init__(self):
        self.times = 0

    def publish(self):
        self.times += 1


def freshness_of(store):
    return Freshness(store, 30.0, Published())


async def until(predicate):
    """Beside the loop, which goes on meanwhile."""
    await asyncio.to_thread(wait_until, predicate)


async def watching():
    """A store whose question is open, and what asks it."""
    store = Asked(Newest())
    freshness = freshness_of(store)
    first = asyncio.ensure_future(freshness.reach())
    await until(lambda: store.questions)
    store.questions.pop().set_result(None)
    await first
    await until(lambda: freshness._lookout._question)
    return store, freshness


async def ask(store, freshness):
    """Somebody who reads, and has asked."""
    before = store.question.asked
    reading = asyncio.ensure_future(freshness.reach())
    await until(lambda: store.question.asked > before)
    assert not reading.done()
    return reading


def test_one_reader_waits_for_a_silent_database_and_the_next_ask_when_it_has_answered(monkeypatch):
    monkeypatch.setattr("ringfence.control.freshness.FRESH_S", 0.01)

    async def read():
        store = Asked()
        freshness = freshness_of(store)
        for _ in range(3):
            await freshness.reach()
        assert len(store.questions) == 1
        store.questions[0].set_exception(Busy("away"))
        await until(lambda: not freshness._is_overdue)
        await freshness.reach()
        assert len(store.questions) == 2

    asyncio.run(read())


def test_a_reader_waits_for_the_answer_and_who_comes_meanwhile_for_the_next():
    async def read():
        store = Asked()
        freshness = freshness_of(store)
        first = asyncio.ensure_future(freshness.reach())
        await until(lambda: store.questions)
        later = [asyncio.ensure_future(freshness.reach()) for _ in range(2)]
        await asyncio.sleep(0)
        later.pop().cancel()
        assert not first.done()
        store.questions[0].set_result(None)
        await first
        await until(lambda: len(store.questions) == 2)
        assert not later[0].done()
        store.questions[1].set_result(None)
        await later[0]

    asyncio.run(read())


def test_the_writer_is_asked_only_for_what_is_new():
    async def read():
        store, freshness = await watching()
        for settled in (5, 6):  # as it was when it was asked, and one more since
            reading = await ask(store, freshness)
            store.settled = settled
            store.question.tell(5)
            await reading
        assert (freshness._commits.times, store.questions) == (2, [])
        for number in (7, 5):  # something new, and a database that was set back
            reading = await ask(store, freshness)
            store.question.tell(number)
            await until(lambda: store.questions)
            assert not reading.done()
            store.questions.pop().set_result(None)
            await reading
        freshness.close()

    asyncio.run(read())


@pytest.mark.parametrize("how", ["silent", "ended"])
def test_a_question_that_gets_no_answer_is_the_writer_s(monkeypatch, how):
    monkeypatch.setattr("ringfence.control.lookout.SILENT_S", 0.01 if how == "silent" else 60)

    async def read():
        store, freshness = await watching()
        reading = await ask(store, freshness)
        if how == "ended":
            store.question.teller.close()
        await until(lambda: store.questions)
        assert store.question.ear.fileno() == -1
        store.questions[0].set_result(None)
        await reading

    asyncio.run(read())


def test_who_has_not_heard_of_the_others_for_longer_than_it_may_answer_alone_does_nothing_for_anybody():
    """While the database is seen not to run, it is not silent."""
    store = Asked()
    freshness = freshness_of(store)
    store.unheard_s = 29.9
    freshness.require()
    store.unheard_s = 30.1
    with pytest.raises(Busy, match="nothing was done, because this server has not heard from its database for 30 s"):
        freshness.require()
    assert freshness.is_cut_off


def test_a_database_that_is_silent_is_relied_on_for_a_second_and_feeds_stay_open():
    store = Asked()
    freshness = freshness_of(store)
    store.unheard_s = store.silent_s = 0.9
    freshness.require()
    store.unheard_s = store.silent_s = 1.1
    with pytest.raises(Busy, match="has not heard from its database for 1 s"):
        freshness.require()
    assert not freshness.is_cut_off


def test_an_answer_to_the_event_loop_is_as_good_as_one_to_a_writer_who_waits_for_the_lock():
    async def read():
        store, freshness = await watching()
        store.unheard_s = store.silent_s = 40.0
        with pytest.raises(Busy):
            freshness.require()
        reading = await ask(store, freshness)
        store.question.tell(5)
        await reading
        freshness.require()
        assert not freshness.is_cut_off
        freshness.close()

    asyncio.run(read())
