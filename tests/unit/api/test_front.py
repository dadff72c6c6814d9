"""The outermost frame: ids, one log line, and nothing revealed when something breaks."""

import asyncio
import logging

import pytest

from ringfence.api.exchange import Ends, Request, Response
from ringfence.api.front import Front
from ringfence.log import ManyLines
from waiting import wait_until


def request():
    return Request("POST", b"/v2/x?a=1", "/v2/x", {}, Ends(("192.0.2.9", 5), None))


def run(app):
    """The answer of a framed app, whether it is one at once or one that is waited for."""

    async def main():
        front = Front(app)
        answer = front(request())
        answered = answer if isinstance(answer, Response) else await answer
        front.end()
        return answered

    return asyncio.run(main())


def at_once(_):
    return Response()


async def later(_):
    await asyncio.sleep(0)
    return Response()


def breaking(_):
    raise RuntimeError("the secret is s3cr3t")


async def breaking_later(_):
    await asyncio.sleep(0)
    raise RuntimeError("the secret is s3cr3t")


def lines(caplog):
    """The fields of the requests' lines."""
    return [fields for record in caplog.records if isinstance(record, ManyLines) for _, _, fields in record.rows]


def header(response, name):
    return dict(line.split(": ", 1) for line in response.head.decode().splitlines())[name]


@pytest.mark.parametrize("app", [at_once, later])
def test_an_answer_has_an_id_of_its_own_and_a_date(app):
    first, second = run(app), run(app)
    assert len(header(first, "x-request-id")) == 16
    assert header(first, "x-request-id") != header(second, "x-request-id")
    assert header(first, "date").endswith("GMT")


@pytest.mark.parametrize("app", [breaking, breaking_later])
def test_what_breaks_is_answered_without_a_word_of_it_and_logged_once_under_the_id(app, caplog):
    caplog.set_level(logging.INFO)
    answer = run(app)
    assert answer.status == 500
    assert b"s3cr3t" not in answer.data
    [error] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert header(answer, "x-request-id") in error.message
    assert "s3cr3t" in str(error.exc_info[1])
    [line] = lines(caplog)
    assert line["status"] == 500
    assert line["request_id"] == header(answer, "x-request-id")


@pytest.mark.parametrize("app", [at_once, later])
def test_the_log_line_says_who_what_and_how_long(app, caplog):
    caplog.set_level(logging.INFO)
    run(app)
    [line] = lines(caplog)
    assert line["ms"] >= 0
    assert {name: line[name] for name in ("method", "path", "status", "caller", "address")} == {
        "method": "POST",
        "path": "/v2/x?a=1",
        "status": 200,
        "caller": None,
        "address": "192.0.2.9",
    }


def test_the_lines_of_requests_come_together_behind_their_answers(caplog):
    caplog.set_level(logging.INFO)

    async def main():
        front = Front(at_once)
        assert all(front(request()).status == 200 for _ in range(2))
        assert not caplog.records
        await asyncio.to_thread(wait_until, lambda: caplog.records)

    asyncio.run(main())
    assert len(lines(caplog)) == 2
    assert len(caplog.records) == 1


def test_a_request_that_is_not_answered_has_its_line_when_the_loop_ends(caplog):
    caplog.set_level(logging.INFO)

    async def never(_):
        await asyncio.Event().wait()

    async def main():
        task = asyncio.ensure_future(Front(never)(request()))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())
    assert [line["status"] for line in lines(caplog)] == [0]
