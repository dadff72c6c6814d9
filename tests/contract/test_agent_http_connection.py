"""One HTTP connection of the agent: to servers that answer in every way of HTTP, and in some that are none."""

import asyncio
import re
import ssl
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta

import pytest

from ringfence.agent.doors import http_connection
from ringfence.agent.doors.http_connection import Answer, Place, open_connection
from ringfence.agent.http import open_client, reason_of, trust
from ringfence.api.authority import SERVER_LIFE, authority_of

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ringfence-feed\r\n\r\n"


@asynccontextmanager
async def _serving(path, answers, *, stays, size=1):
    """A server that answers the connections one after the other, in small pieces, then closes unless it ``stays``."""
    remaining = iter(answers)

    async def serve(reader, writer):
        for answer in next(remaining):
            await reader.readuntil(b"\r\n\r\n")
            for start in range(0, len(answer), size):
                writer.write(answer[start : start + size])
                await asyncio.sleep(0)
        if not stays:
            writer.close()

    async with await asyncio.start_unix_server(serve, path):
        yield


def _ask(path, answer, *, stays=True):
    async def ask():
        async with _serving(path, [[answer]], stays=stays):
            connection = await open_connection(Place(unix=str(path)))
            try:
                found = await connection.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                return found, connection.is_kept
            finally:
                connection.close()

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("answer", "found", "is_kept"),
    [
        (WHOLE, Answer(200, b"one"), True),
        (b"HTTP/1.1 404 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", Answer(404, b"no"), False),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            Answer(200, b"abc"),
            True,
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204, b""), True),
    ],
)
def test_an_answer_is_whole_when_it_says_so(tmp_path, answer, found, is_kept):
    assert _ask(tmp_path / "s", answer) == (found, is_kept)


def test_an_answer_that_says_no_length_ends_with_its_connection(tmp_path):
    assert _ask(tmp_path / "s", b"HTTP/1.0 502 Bad\r\n\r\nproxy", stays=False) == (Answer(502, b"proxy"), False)


@pytest.mark.parametrize("answer", [b"", WHOLE[:-1], WHOLE[:20], b"SSH-2.0-OpenSSH_9.2\r\n\r\n"])
def test_what_is_no_whole_answer_is_none(tmp_path, answer):
    with pytest.raises(ConnectionError):
        _ask(tmp_path / "s", answer, stays=False)


@pytest.mark.parametrize("size", [1, 1000])
def test_what_follows_an_upgrade_is_read_as_it_came(tmp_path, size):
    async def ask():
        async with _serving(tmp_path / "s", [[UPGRADED + b"first\nsecond\n"]], stays=False, size=size):
            connection = await open_connection(Place(unix=str(tmp_path / "s")))
            answer = await connection.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            rest = b""
            while octets := await connection.read(5.0):
                rest += octets
            connection.close()
            return answer.status, rest

    assert asyncio.run(ask()) == (101, b"first\nsecond\n")


def test_a_connection_is_used_again_until_the_server_closes_it(tmp_path):
    second, third = WHOLE.replace(b"one", b"two"), WHOLE.replace(b"one", b"3rd")

    async def ask():
        async with (
            _serving(tmp_path / "s", [[WHOLE, second], [third]], stays=False),
            open_client(f"unix:{tmp_path / 's'}", lambda: None) as client,
        ):
            answers = [await client.request("GET", "/"), await client.request("GET", "/")]
            [(kept, _)] = client._idle
            assert await kept.read(5.0) == b""  # its end, without which the next request would be lost
            return [answer.content for answer in (*answers, await client.request("GET", "/"))]

    assert asyncio.run(ask()) == [b"one", b"two", b"3rd"]


@pytest.mark.parametrize(
    ("before", "again", "error"),
    [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n", "larger than"),
        ("HTTP/1.1 200 OK\r\nX: ", "x" * 100, "larger than"),
        ("", "HTTP/1.1 103 Early Hints\r\nX: ", "larger than"),
    ],
)
def test_an_answer_without_end_is_given_up(tmp_path, monkeypatch, before, again, error):
    monkeypatch.setattr(http_connection, "_MOST_ANSWER_BYTES", 1000)
    with pytest.raises(ConnectionError, match=error):
        _ask(tmp_path / "s", (before + again * 2000).encode())


def test_an_answer_that_comes_drop_by_drop_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(http_connection, "_ANSWER_S", 0.05)

    async def drip(_reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.01)

    async def ask():
        async with await asyncio.start_unix_server(drip, tmp_path / "s"):
            connection = await open_connection(Place(unix=str(tmp_path / "s")))
            with closing(connection):
                await connection.ask(b"GET / HTTP/1.1\r\n\r\n")

    with pytest.raises(TimeoutError, match="did not answer in time"):
        asyncio.run(ask())


@pytest.mark.parametrize(
    ("name", "age", "said"),
    [
        ("localhost", SERVER_LIFE + timedelta(days=1), "has expired; compare this host's clock with the server's"),
        ("localhost", timedelta(days=-1), "not yet valid.*; compare this host's clock with the server's"),
        ("rf.example", timedelta(), "certificate is not valid for 'localhost'.; use a name that it is for"),
        (None, timedelta(), "the server has another CA than when this host joined, then join again"),
    ],
)
def test_a_certificate_that_is_refused_is_told_with_what_to_do(tmp_path, name, age, said):
    authority = authority_of(tmp_path)
    authority.make([name or "localhost"], datetime.now(UTC) - age)
    other = authority_of(tmp_path / "other")
    other.make(["localhost"], datetime.now(UTC))
    trusted = trust(ssl.PEM_cert_to_DER_cert((authority if name else other).pem().decode()))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.server.certificate, authority.server.key)

    async def connect():
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context) as server:
            await open_connection(Place("localhost", server.sockets[0].getsockname()[1], trusted))

    with pytest.raises(ssl.SSLCertVerificationError) as refused:
        asyncio.run(connect())
    told = reason_of(refused.value)
    assert told.startswith("its certificate is refused: ")
    assert re.search(said, told)
