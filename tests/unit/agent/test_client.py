"""Which addresses of a server are taken, how the stream is cut into lines, how long is waited between tries."""

import asyncio

import pytest

from fake_doors import FakeClock
from ringfence.agent.client import _lines, open_server
from ringfence.agent.credential import HostCredential
from ringfence.agent.doors.http_connection import Answer
from ringfence.agent.http import message_of
from ringfence.agent.link import Pauses
from ringfence.policy.errors import OperatorError


async def _open(address, **options):
    async with open_server(address, HostCredential("h1", b"k" * 32), FakeClock(), **options) as server:
        place = server._client.place
        return place.unix or (place.host, place.port, place.tls is not None)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("https://ringfence.example:8443", ("ringfence.example", 8443, True)),
        ("https://ringfence.example/v2", ("ringfence.example", 443, True)),
        ("http://127.0.0.1:8443/v2", ("127.0.0.1", 8443, False)),
        ("http://[::1]:8443/", ("::1", 8443, False)),
        ("http://localhost", ("localhost", 80, False)),
        ("unix:/run/rf.sock", "/run/rf.sock"),
    ],
)
def test_these_addresses_are_taken(address, place):
    assert asyncio.run(_open(address)) == place


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://192.0.2.1:8443", "over plain HTTP anybody on the way could send this host other rules"),
        ("http://ringfence.example", "over plain HTTP"),
        ("ftp://127.0.0.1", "expected https://HOST:PORT"),
        ("127.0.0.1:8443", "expected https://HOST:PORT"),
        ("https://h/deep/er", "expected no path"),
        ("https://h/?a=b", "expected no path"),
        ("https://h:x", "use the server address"),
        ("https://a..b:8443", "'a..b' is no name of a host: a part is empty or too long"),
        (f"https://{'a' * 64}.example", "is no name of a host"),
    ],
)
def test_these_addresses_are_refused(address, words):
    with pytest.raises(OperatorError, match=words):
        asyncio.run(_open(address))


def test_plain_http_can_be_insisted_on():
    assert asyncio.run(_open("http://192.0.2.1:8443", insecure=True)) == ("192.0.2.1", 8443, False)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_whole_however_the_stream_is_cut(size):
    text = b"one\ntwo\n\nthree\nrest"

    async def chunks():
        for start in range(0, len(text), size):
            yield text[start : start + size]

    async def collect():
        return [line async for line in _lines(chunks())]

    assert asyncio.run(collect()) == [b"one", b"two", b"", b"three"]


def test_pauses_grow_to_a_bound_with_jitter_and_begin_anew_after_success():
    pauses = Pauses(lambda: 1.0)
    assert [pauses.take() for _ in range(8)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15]
    pauses.reset()
    assert pauses.take() == 0.25
    assert Pauses(lambda: 0.0).take() == 0.125


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(401, b'{"message":"no such host"}'), "no such host"),
        (Answer(502, b"<html>\r\n<b>\x1b[31mBad gateway</b>\r\n"), "<html> <b> [31mBad gateway</b>"),
        (Answer(407, b""), "it gave no reason"),
        (
            Answer(301, b"moved", "https://rf.example/"),
            "go to https://rf.example/; redirects are not followed, so give the address that itself answers",
        ),
    ],
)
def test_what_a_server_answers_is_said_in_one_line(answer, message):
    assert message_of(answer) == message
