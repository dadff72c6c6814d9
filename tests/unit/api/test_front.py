"""The outermost frame: ids, limits, one log line, and nothing revealed when something breaks."""

import asyncio
import json
import logging

import pytest

from ringfence.api.front import BodyLimits, front

SCOPE = {
    "type": "http",
    "method": "POST",
    "raw_path": b"/v2/x",
    "query_string": b"a=1",
    "headers": [],
    "client": ("192.0.2.9", 5),
}
GONE = {"type": "http.disconnect"}
STREAMED = (b"transfer-encoding", b"chunked")


def part(body, *, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


def run(app, messages, *, headers=(STREAMED,), limits=BodyLimits(size_bytes=10, time_s=0.05)):  # noqa: B008  frozen
    """Status and whole body of the answer, None when there was none."""
    coming = list(messages)
    sent = []

    async def receive():
        return coming.pop(0) if coming else await asyncio.Future()

    async def send(message):
        sent.append(message)

    asyncio.run(front(app, limits)({**SCOPE, "headers": list(headers)}, receive, send))
    if not sent:
        return None
    names = dict(sent[0]["headers"])
    return sent[0]["status"], names, b"".join(message["body"] for message in sent[1:])


async def echo(_, receive, send):
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def breaking(_, receive, __):
    await receive()
    raise RuntimeError("the secret is s3cr3t")


async def never(*_):
    raise AssertionError("the app was asked")


def test_the_body_reaches_the_app_in_one_piece_and_the_answer_has_an_id_and_a_date():
    status, headers, body = run(echo, [part(b"one", more=True), part(b"two")])
    assert (status, body) == (200, b"onetwo")
    assert len(headers[b"x-request-id"]) == 16
    assert headers[b"date"].endswith(b"GMT")


@pytest.mark.parametrize(
    ("headers", "messages"),
    [
        ([(b"content-length", b"11")], []),
        ([STREAMED], [part(b"x" * 11)]),
        ([STREAMED], [part(b"x" * 6, more=True), part(b"x" * 6, more=True)]),
    ],
)
def test_a_body_that_is_or_will_be_too_large_is_refused_before_its_end(headers, messages):
    status, _, body = run(never, messages, headers=headers)
    assert status == 413
    assert json.loads(body)["message"] == "expected a body of at most 10 bytes"


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"0")]])
def test_what_announces_no_body_is_not_waited_for(headers):
    status, _, body = run(echo, [], headers=headers)
    assert (status, body) == (200, b"")


def test_a_body_that_does_not_come_is_given_up():
    status, headers, _ = run(never, [part(b"x", more=True)])
    assert status == 408
    assert headers[b"connection"] == b"close"


def test_a_caller_that_leaves_in_the_middle_gets_nothing_and_nothing_is_done():
    assert run(never, [part(b"x", more=True), GONE]) is None


def test_what_breaks_is_answered_without_a_word_of_it_and_logged_once_under_the_id(caplog):
    caplog.set_level(logging.INFO)
    status, headers, body = run(breaking, [part(b"")])
    assert status == 500
    assert b"s3cr3t" not in body
    [error] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert headers[b"x-request-id"].decode() in error.message
    [line] = [record.fields for record in caplog.records if hasattr(record, "fields")]
    assert line["status"] == 500
    assert line["request_id"] == headers[b"x-request-id"].decode()


def test_the_log_line_says_who_what_and_how_long(caplog):
    caplog.set_level(logging.INFO)
    run(echo, [part(b"")])
    [line] = [record.fields for record in caplog.records]
    assert line["ms"] >= 0
    assert {name: line[name] for name in ("method", "path", "status", "caller", "address")} == {
        "method": "POST",
        "path": "/v2/x?a=1",
        "status": 200,
        "caller": None,
        "address": "192.0.2.9",
    }
