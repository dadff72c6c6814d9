"""One connection, over a real socket pair: bodies within their limits, answers in order, and who leaves or dawdles."""

import asyncio
import json
import logging
import socket
from contextlib import asynccontextmanager

import pytest

from ringfence.api.connection import MAX_HEAD_BYTES, MOST_WAITING, Connection, Open
from ringfence.api.exchange import BodyLimits, Response
from ringfence.api.front import Front

LIMITS = BodyLimits(size_bytes=10, time_s=0.05)


class Echo:
    """Answers with method, path and body; a POST after a turn of the loop, and later than that while ``held``."""

    limits = LIMITS

    def __init__(self):
        self.asked = []
        self.held = None

    def __call__(self, request):
        self.asked.append((request.method, request.path, request.body))
        response = Response(200, b"%b %b" % (request.path.encode(), request.body))
        return self._later(response) if request.method == "POST" else response

    async def _later(self, response):
        if self.held is not None:
            await self.held.wait()
        return response

    def refuse(self, _, answer):
        return answer


@asynccontextmanager
async def connected(app, holds=None):
    """``holds``: how many octets the kernel takes of what is not read yet."""
    loop, opened = asyncio.get_running_loop(), Open()
    ours, theirs = socket.socketpair()
    if holds is not None:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, holds)
    await loop.connect_accepted_socket(lambda: Connection(app, opened), ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    try:
        yield reader, writer, opened
    finally:
        writer.close()
        for connection in list(opened.connections):
            connection.close()


async def answer_of(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    headers = dict(line.split(": ", 1) for line in head[1:-1])
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))


def post(body, *headers):
    return b"\r\n".join((b"POST /a HTTP/1.1", b"host: h", *headers, b"", b"")) + body


def chunks(*pieces):
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


CHUNKED = b"transfer-encoding: chunked"
played = pytest.mark.parametrize("pieces", [1, 5, 1000])


async def send(writer, data, pieces=1):
    step = max(1, len(data) // pieces)
    for start in range(0, len(data), step):
        writer.write(data[start : start + step])
        await asyncio.sleep(0)


async def until(predicate):
    while not predicate():  # noqa: ASYNC110  what the connection does is no event
        await asyncio.sleep(0)


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


def run(main):
    return asyncio.run(asyncio.wait_for(main, 20))


@played
def test_answers_come_in_the_order_of_requests_whatever_each_takes(pieces):
    async def main():
        app = Echo()
        async with connected(app) as (reader, writer, _):
            one = post(b"ab", b"content-length: 2") + b"GET /b HTTP/1.1\r\nhost: h\r\n\r\n"
            await send(writer, one + post(chunks(b"c", b"d") + b"0\r\n\r\n", CHUNKED) + one, pieces)
            found = [(await answer_of(reader))[2] for _ in range(5)]
        assert found == [b"/a ab", b"/b ", b"/a cd", b"/a ab", b"/b "]

    run(main())


def test_more_requests_in_one_piece_than_others_may_be_kept_waiting_for_are_refused():
    async def main():
        app = Echo()
        async with connected(app) as (reader, writer, _):
            await send(writer, b"GET /b HTTP/1.1\r\nhost: h\r\n\r\n" * (MOST_WAITING + 2))
            assert [(await answer_of(reader))[0] for _ in range(MOST_WAITING + 1)] == [200] * MOST_WAITING + [503]
            assert await reader.read() == b""
        assert len(app.asked) == MOST_WAITING

    run(main())


def test_nothing_is_asked_or_read_on_while_an_answer_is_waited_for():
    async def main():
        app = Echo()
        app.held = asyncio.Event()
        async with connected(app) as (reader, writer, opened):
            await send(writer, post(b"ab", b"content-length: 2") + b"GET /b HTTP/1.1\r\nhost: h\r\n\r\n")
            await until(lambda: opened.tasks)
            [connection] = opened.connections
            assert len(app.asked) == 1
            assert not connection._transport.is_reading()
            app.held.set()
            assert (await answer_of(reader))[2] == b"/a ab"
            assert (await answer_of(reader))[2] == b"/b "
            assert connection._transport.is_reading()

    run(main())


@pytest.mark.parametrize("more", [b"\0garbage", b"GET / HTTP/1.1\r\n\r\n"], ids=["no request", "no host"])
def test_what_is_refused_behind_a_request_does_not_cost_it_its_answer(more):
    async def main():
        app = Echo()
        app.held = asyncio.Event()
        async with connected(app) as (reader, writer, opened):
            await send(writer, post(b"ab", b"content-length: 2") + more)
            await until(lambda: opened.tasks)
            app.held.set()
            status, headers, body = await answer_of(reader)
            assert (status, headers["connection"], body) == (200, "close", b"/a ab")
            assert await reader.read() == b""

    run(main())


@pytest.mark.parametrize("headers", [b"close", b"Upgrade ,\tClose\r\nupgrade: h2c"], ids=["alone", "with upgrade"])
def test_nothing_is_answered_behind_a_request_that_closes(headers):
    async def main():
        app = Echo()
        async with connected(app) as (reader, writer, _):
            await send(writer, post(b"ab", b"content-length: 2", b"connection: " + headers) + post(b""))
            status, answered, _ = await answer_of(reader)
            assert (status, answered["connection"]) == (200, "close")
            assert await reader.read() == b""
        assert app.asked == [("POST", "/a", b"ab")]

    run(main())


@pytest.mark.parametrize(
    "data",
    [
        post(b"", b"content-length: 11"),
        post(chunks(b"x" * 11), CHUNKED),
        post(chunks(b"x" * 6, b"x" * 6), CHUNKED),
    ],
)
def test_a_body_that_is_or_will_be_too_large_is_refused_before_its_end(data):
    async def main():
        app = Echo()
        async with connected(app) as (reader, writer, _):
            await send(writer, data)
            status, _, body = await answer_of(reader)
        assert (status, app.asked) == (413, [])
        assert json.loads(body)["message"] == "expected a body of at most 10 bytes"

    run(main())


def test_a_connection_goes_on_behind_a_body_that_was_refused():
    async def main():
        app = Echo()
        async with connected(app) as (reader, writer, _):
            await send(writer, post(b"x" * 11, b"content-length: 11") + post(b"ab", b"content-length: 2"))
            assert [(await answer_of(reader))[0] for _ in range(2)] == [413, 200]
        assert app.asked == [("POST", "/a", b"ab")]

    run(main())


@played
def test_what_follows_a_body_adds_nothing_to_its_headers(pieces):
    async def main():
        headers = []

        def asked(request):
            headers.append(request.headers)
            return Response(200)

        asked.limits = LIMITS
        async with connected(asked) as (reader, writer, _):
            ends = b"0\r\nx-forwarded-for: 203.0.113.1\r\nauthorization: x\r\n\r\n"
            await send(writer, post(chunks(b"c") + ends, CHUNKED, b"x-forwarded-for: 192.0.2.1") * 2, pieces)
            assert [(await answer_of(reader))[0] for _ in range(2)] == [200, 200]
        assert headers == [{b"host": b"h", CHUNKED[:17]: b"chunked", b"x-forwarded-for": b"192.0.2.1"}] * 2

    run(main())


@pytest.mark.parametrize("piece", [b"x" * 999 + b": y\r\n", b"x" * 999], ids=["many", "one"])
def test_trailers_without_end_are_refused(piece):
    async def main():
        app = Echo()
        app.limits = BodyLimits(time_s=20)
        async with connected(app) as (reader, writer, opened):
            await send(writer, post(chunks(b"c") + b"0\r\n", CHUNKED))
            await until(lambda: opened.connections)
            sent_bytes = 0
            while opened.connections and sent_bytes < 2 * MAX_HEAD_BYTES:
                sent_bytes += len(piece)
                await send(writer, piece)
                await turns(5)  # all of it is read before there is more: else the answer would be lost
            assert not opened.connections
            assert (await answer_of(reader))[0] == 431

    run(main())


def test_a_body_that_does_not_come_is_given_up_and_the_connection_with_it():
    async def main():
        app = Echo()
        async with connected(app) as (reader, writer, _):
            await send(writer, post(b"x", b"content-length: 2"))
            status, headers, _ = await answer_of(reader)
            assert (status, headers["connection"], app.asked) == (408, "close", [])
            assert await reader.read() == b""

    run(main())


def test_a_caller_that_leaves_in_the_middle_gets_nothing_and_nothing_is_done_but_a_line_in_the_log(caplog):
    async def main():
        app = Echo()
        async with connected(Front(app, LIMITS)) as (_, writer, opened):
            await send(writer, post(b"x", b"content-length: 2"))
            [connection] = opened.connections
            await until(lambda: connection._reading)
            writer.close()
            await until(lambda: not opened.connections)
        assert app.asked == []
        [(_, _, line)] = caplog.records[-1].rows
        assert (line["status"], line["why"]) == (0, "the caller left before the body was whole")

    caplog.set_level(logging.INFO)
    run(main())


def test_who_asks_for_permission_to_send_a_body_gets_it_unless_it_is_too_large():
    async def main():
        async with connected(Echo()) as (reader, writer, _):
            await send(writer, post(b"", b"content-length: 2", b"expect: 100-continue"))
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await send(writer, b"ab")
            assert (await answer_of(reader))[2] == b"/a ab"
            await send(writer, post(b"", b"content-length: 11", b"expect: 100-continue"))
            assert (await answer_of(reader))[0] == 413

    run(main())


def test_a_caller_that_reads_nothing_is_asked_for_nothing_more():
    async def main():
        app = Echo()
        async with connected(app) as (reader, writer, opened):
            [connection] = opened.connections
            connection.pause_writing()
            await send(writer, b"GET /b HTTP/1.1\r\nhost: h\r\n\r\n" * 3)
            await until(lambda: len(connection._due) == 3)
            assert app.asked == []
            connection.resume_writing()
            assert [(await answer_of(reader))[0] for _ in range(3)] == [200] * 3

    run(main())


@pytest.mark.parametrize("asked", [1, 3])
def test_a_caller_that_never_reads_is_cut_off_whatever_else_it_asked_for(monkeypatch, asked):
    monkeypatch.setattr("ringfence.api.connection.KEEP_ALIVE_S", 0.05)

    async def main():
        async with connected(Echo()) as (_, writer, opened):
            [connection] = opened.connections
            connection.pause_writing()
            await send(writer, b"GET /b HTTP/1.1\r\nhost: h\r\n\r\n" * asked)
            await until(lambda: not opened.connections)

    run(main())


@pytest.mark.parametrize("more", [b"", b"connection: close\r\n"])
def test_a_caller_that_does_not_read_the_end_of_an_answer_is_cut_off(monkeypatch, more):
    monkeypatch.setattr("ringfence.api.connection.KEEP_ALIVE_S", 0.05)

    class Long(Echo):
        def __call__(self, _):
            return Response(200, bytes(40_000))  # fewer than make a transport call it full

    async def main():
        async with connected(Long(), holds=4096) as (_, writer, opened):
            writer.transport.pause_reading()
            await send(writer, b"GET /b HTTP/1.1\r\nhost: h\r\n%b\r\n" % more)
            await until(lambda: not opened.connections)

    run(main())


def test_a_server_that_ends_lets_an_answer_go_out_and_closes_what_is_idle():
    async def main():
        app = Echo()
        app.held = asyncio.Event()
        async with connected(app) as (reader, writer, opened):
            [connection] = opened.connections
            await send(writer, post(b"ab", b"content-length: 2"))
            await until(lambda: opened.tasks)
            connection.end()
            app.held.set()
            status, headers, _ = await answer_of(reader)
            assert (status, headers["connection"]) == (200, "close")
        async with connected(Echo()) as (reader, _, opened):
            [connection] = opened.connections
            connection.end()
            assert await reader.read() == b""

    run(main())


def test_an_idle_connection_is_closed_after_a_while_and_not_before(monkeypatch):
    monkeypatch.setattr("ringfence.api.connection.KEEP_ALIVE_S", 0.05)

    async def main():
        async with connected(Echo()) as (reader, writer, _):
            for _ in range(3):
                await send(writer, b"GET /b HTTP/1.1\r\nhost: h\r\n\r\n")
                assert (await answer_of(reader))[0] == 200
            assert await reader.read() == b""

    run(main())


def test_a_connection_that_is_taken_hears_nothing_more_and_ends_when_who_took_it_breaks():
    class Taking(Echo):
        def __call__(self, request):
            self.asked.append(request.upgrade.protocol)
            request.upgrade.take().write(b"yours")
            return Response(self.status)

    async def main(status):
        app = Taking()
        app.status = status
        async with connected(app) as (reader, writer, opened):
            await send(writer, b"GET /f HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: Feed\r\n\r\n")
            assert await reader.readexactly(5) == b"yours"
            assert (app.asked, opened.connections) == (["feed"], set())
            if status == 500:
                assert await reader.read() == b""
            else:
                writer.write(b"GET /b HTTP/1.1\r\nhost: h\r\n\r\n")
                await asyncio.sleep(0)
                assert app.asked == ["feed"]

    run(main(101))
    run(main(500))
