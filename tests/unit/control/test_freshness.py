"""Reads wait for what other servers committed, but not for a database that does not answer."""

import asyncio
from concurrent.futures import Future

import pytest

from ringfence.control.freshness import Freshness
from ringfence.policy.errors import Busy


class Asked:
    """A shared store that keeps the questions, to be answered by the test."""

    is_shared = True

    def __init__(self):
        self.questions = []
        self.unheard_s = 0.0

    def refresh(self):
        question = Future()
        question.set_running_or_notify_cancel()
        self.questions.append(question)
        return question


def test_one_reader_waits_for_a_silent_database_and_the_next_ask_when_it_has_answered(monkeypatch):
    monkeypatch.setattr("ringfence.control.freshness.FRESH_S", 0.01)

    async def read():
        store = Asked()
        freshness = Freshness(store, 30.0, lambda _: None)
        for _ in range(3):
            await freshness.reach()
        assert len(store.questions) == 1
        store.questions[0].set_exception(Busy("away"))
        await freshness.reach()
        assert len(store.questions) == 2

    asyncio.run(read())


def test_a_reader_waits_for_the_answer():
    async def read():
        store = Asked()
        reading = asyncio.ensure_future(Freshness(store, 30.0, lambda _: None).reach())
        await asyncio.sleep(0)
        assert not reading.done()
        store.questions[0].set_result(None)
        await reading

    asyncio.run(read())


def test_who_has_not_heard_of_the_others_for_longer_than_it_may_answer_alone_does_nothing_for_anybody():
    store = Asked()
    freshness = Freshness(store, 30.0, lambda _: None)
    store.unheard_s = 29.9
    freshness.require()
    store.unheard_s = 30.1
    with pytest.raises(Busy, match="nothing was done, because this server has not heard from its database for 30 s"):
        freshness.require()
