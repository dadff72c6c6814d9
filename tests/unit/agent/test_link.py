"""The connection is tried again, soon after it was good and later the longer it is bad, and one line is logged."""

import asyncio
import logging
from collections import Counter
from random import Random

from fake_server import FakeServer
from ringfence.agent.client import HostRefused
from ringfence.agent.link import LONGEST_PAUSE_S, Pauses, follow
from views import view


class Sleeps:
    """A clock that notes every pause, and ends the test after so many."""

    def __init__(self, server, script):
        self.pauses = []
        self._script = script
        self._server = server

    async def sleep(self, seconds):
        self.pauses.append(seconds)
        step = self._script[len(self.pauses) - 1] if len(self.pauses) <= len(self._script) else "end"
        if step == "end":
            raise asyncio.CancelledError
        self._server.down = step == "down"


def _follow(script, caplog, refusal=None):
    """The pauses of a connection that breaks after each view while the server is up, and what was offered."""
    offered, claims = [], []

    async def run():
        server = FakeServer()
        server.publish(view(1))
        server.down = script[0] == "down"
        clock = Sleeps(server, script[1:])

        async def connected():
            claims.append(server.down)
            if refusal:
                raise refusal if isinstance(refusal, Exception) else refusal(len(claims))
            await server.claim(_Nothing)

        def offer(found):
            offered.append(found.view.revision)
            asyncio.get_running_loop().call_soon(server.stop)

        try:
            await follow(server, clock, Pauses(lambda: 1.0), connected=connected, offer=offer)
        except asyncio.CancelledError:
            return clock.pauses

    with caplog.at_level(logging.INFO, "ringfence.agent"):
        pauses = asyncio.run(run())
    return pauses, offered, len(claims)


class _Nothing:
    instances = ()


def test_pauses_grow_while_the_server_is_away_and_begin_anew_when_it_was_there(caplog):
    pauses, offered, claims = _follow(["down", "down", "down", "up", "down"], caplog)
    assert pauses == [0.25, 0.5, 1, 0.25, 0.5]
    assert offered == [1]
    assert claims == 5


def test_an_hour_without_the_server_is_one_line_of_log(caplog):
    _follow(["down"] * 10, caplog)
    assert [record.message for record in caplog.records] == ["no connection to the server; the rules in force stay"]


def test_a_host_that_the_server_does_not_know_is_told_so(caplog):
    _follow(["up"] * 3, caplog, HostRefused("PUT /x", "the server refuses this host: who are you?"))
    assert [record.message for record in caplog.records] == [
        "the server refuses this host: who are you?; the rules in force stay"
    ]


def test_a_thousand_agents_whose_server_was_away_come_back_spread_over_seconds():
    chance, back_s = Random(1), []
    for _ in range(1000):
        pauses, at_s = Pauses(chance.random), 0.0
        while at_s < 5.0:
            at_s += pauses.take()
        back_s.append(at_s)
    busiest = max(Counter(int(at_s * 10) for at_s in back_s).values())
    assert busiest < 100  # in a tenth of a second
    assert max(back_s) < 5.0 + LONGEST_PAUSE_S


def test_a_clock_that_is_wrong_is_one_line_though_the_seconds_differ(caplog):
    _follow(["up"] * 5, caplog, lambda n: HostRefused("PUT /x", f"the signature expired {86000 + n} s ago"))
    assert [record.message for record in caplog.records] == [
        "the signature expired 86001 s ago; the rules in force stay"
    ]
