"""When the agent reports, and what."""

import asyncio
from ipaddress import ip_network

import pytest

from fake_doors import FakeClock
from fake_server import FakeServer
from ringfence.agent.report import Reporter
from ringfence.nft import ForeignChain
from ringfence.policy.errors import OperatorError
from ringfence.policy.local import Failsafe
from ringfence.policy.values import Protocol
from ringfence.wire.feed import Report

CHAIN = ForeignChain("ip", "filter", "FORWARD", "forward", 0, policy_drops=True, drops=False)


def reported(body):
    """Runs ``body(reporter, server, is_due)`` in a loop."""

    async def run():
        clock, server = FakeClock(), FakeServer()
        reporter = Reporter(server, clock)

        async def is_due(passed_s=0.0):
            waiting = asyncio.ensure_future(reporter.wait())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            clock.advance(passed_s)
            for _ in range(5):
                await asyncio.sleep(0)
            due = waiting.done()
            waiting.cancel()
            return due

        await body(reporter, server, is_due)

    return lambda: asyncio.run(run())


@reported
async def _quiet(_reporter, _server, is_due):
    assert not await is_due()
    assert not await is_due(14)
    assert await is_due(15)


@reported
async def _problems(reporter, _server, is_due):
    reporter.set_problem("kernel", "it broke")
    assert await is_due()
    reporter.set_problem("kernel", "it broke")
    assert not await is_due()
    reporter.set_problem("kernel", None)
    assert await is_due()


@reported
async def _applied(reporter, _server, is_due):
    reporter.set_applied(4)
    assert await is_due()
    reporter.set_applied(4)
    assert await is_due()


@reported
async def _foreign(reporter, server, is_due):
    reporter.set_foreign((CHAIN,))
    assert await is_due()
    reporter.set_foreign((CHAIN,))
    assert not await is_due()
    await reporter.send()
    reporter.set_foreign(())
    assert await is_due()
    await reporter.send()
    assert [report.foreign for report in server.reports] == [(CHAIN,), ()]


@reported
async def _failsafe(reporter, server, is_due):
    ports = (Failsafe(Protocol.TCP, 22, (ip_network("192.0.2.0/24"),)),)
    reporter.set_failsafe(ports)
    assert await is_due()
    reporter.set_failsafe(ports)
    assert not await is_due()
    await reporter.send()
    assert server.reports == [Report(None, None, failsafe=ports)]


@reported
async def _text(reporter, server, _is_due):
    reporter.set_applied(4)
    reporter.set_problem("kernel", "two")
    reporter.set_problem("inventory", "one")
    await reporter.send()
    reporter.set_problem("inventory", None)
    reporter.set_problem("kernel", None)
    await reporter.send()
    assert server.reports == [Report(4, "one; two"), Report(4, None)]


@reported
async def _lost(reporter, server, _is_due):
    answers = iter(
        [OperatorError("report", "closed"), None, OperatorError("report", "a"), OperatorError("report", "b")]
    )

    async def report(_):
        if error := next(answers):
            raise error

    server.report = report
    await reporter.send()
    with pytest.raises(OperatorError, match="b"):
        await reporter.send()


def test_without_news_a_report_is_due_every_fifteen_seconds():
    _quiet()


def test_a_new_problem_is_due_at_once_and_an_old_one_is_not():
    _problems()


def test_an_applied_revision_is_due_at_once_though_it_is_the_same_again():
    _applied()


def test_other_programs_chains_that_drop_are_told_when_they_are_others_than_before():
    _foreign()


def test_failsafe_ports_are_told_when_they_are_others_than_before():
    _failsafe()


def test_problems_stand_in_a_stable_order_and_are_cleared_one_by_one():
    _text()


def test_a_report_that_was_lost_is_sent_once_more_and_no_more():
    _lost()
