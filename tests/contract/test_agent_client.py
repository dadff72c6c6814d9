"""The agent's client against the real server, over TCP and over a unix socket; and against broken servers."""

import asyncio
from base64 import b64decode
from contextlib import aclosing
from ipaddress import ip_address

import pytest

from contract.running import running_server
from ringfence.agent.client import HostRefused, open_server
from ringfence.agent.credential import HostCredential
from ringfence.agent.doors.clock import SystemClock
from ringfence.agent.inventory import parse_inventory
from ringfence.policy.errors import OperatorError
from ringfence.wire.feed import FeedView, Report
from waiting import wait_until

INVENTORY = parse_inventory(
    b'host = "h1"\n[[instance]]\nname = "web"\ninterface = "veth-web"\naddresses = ["10.77.0.1", "fd77::1"]\n',
    file="test",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


def _add_host(running, name):
    added = running.admin.post("/admin/v1/hosts", json={"name": name}).raise_for_status().json()
    return HostCredential(name, b64decode(added["private-key"]))


@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_claim_feed_and_report_go_over_either_socket(server, way):
    credential = _add_host(server, f"host-{way}")
    address = server.url if way == "tcp" else f"unix:{server.unix}"

    async def talk():
        async with open_server(address, credential, SystemClock()) as client:
            claimed = await client.claim(INVENTORY.claim)
            async with aclosing(client.feed()) as feed:
                offered = await anext(feed)
                await client.report(Report(offered.view.revision, None))
            with pytest.raises(OperatorError, match="no connection to report over"):
                await client.report(Report(offered.view.revision, None))
            return claimed, offered

    claimed, offered = asyncio.run(talk())
    if way == "tcp":
        assert [name for name, _ in claimed.accepted] == ["web"]
        (end,) = offered.view.endpoints
        assert (end.name, end.interface, end.addresses) == (
            "web",
            "veth-web",
            (ip_address("10.77.0.1"), ip_address("fd77::1")),
        )
    else:
        assert claimed.accepted == ()  # its addresses are the other host's
        assert claimed.refused[0][0] == "web"
    assert isinstance(offered, FeedView)

    def applied():
        return {host["host"]: host["applied"] for host in server.admin.get("/admin/v1/hosts").json()["hosts"]}

    wait_until(lambda: applied()[credential.host] == offered.view.revision)


def test_a_change_comes_over_the_open_feed(server):
    credential = _add_host(server, "host-feed")

    async def follow():
        async with open_server(server.url, credential, SystemClock()) as client, aclosing(client.feed()) as feed:
            first = await anext(feed)
            await client.claim(
                parse_inventory(
                    b'host = "h"\n[[instance]]\nname = "db"\ninterface = "veth-db"\naddresses = ["10.77.0.9"]\n',
                    file="t",
                ).claim
            )
            return first, await anext(feed)

    first, second = asyncio.run(follow())
    assert first.epoch == second.epoch
    assert [end.name for end in second.view.endpoints] == ["db"]
    assert second.view.revision > first.view.revision


@pytest.mark.parametrize("credential", [HostCredential("nobody", b"k" * 32)])
def test_a_stranger_is_told_what_to_look_at(server, credential):
    async def talk():
        async with open_server(server.url, credential, SystemClock()) as client:
            with pytest.raises(
                HostRefused,
                match=r"inventory at http.*: the server refuses this host: the request is not signed by a host",
            ):
                await client.claim(INVENTORY.claim)
            with pytest.raises(
                HostRefused, match=r"follow the feed of http.*: the server refuses this host: .*is it added there"
            ):
                await anext(client.feed())

    asyncio.run(talk())


SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ringfence-feed\r\n\r\n"
CREDENTIAL = HostCredential("h1", b"k" * 32)


async def _ask(address, call):
    async with open_server(address, CREDENTIAL, SystemClock()) as client:
        await call(client)


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "unix:/nowhere/at.all"])
def test_a_server_that_is_not_there_is_an_error_of_the_operators(address):
    with pytest.raises(OperatorError, match=f"PUT /agent/v1/inventory at {address}: "):
        asyncio.run(_ask(address, lambda client: client.claim(INVENTORY.claim)))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "not a document of the agent protocol"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\noops", "502: oops"),
        (b'HTTP/1.1 409 Conflict\r\nContent-Length: 32\r\n\r\n{"message":"taken","status":409}', "409: taken$"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n", "302"),
        (b"garbage\r\n\r\n", "claim|PUT"),
        (b"", "claim|PUT"),
    ],
)
def test_an_answer_that_makes_no_sense_is_told(answer, words, tmp_path):
    with pytest.raises(OperatorError, match=words):
        asyncio.run(_with_answer(answer, tmp_path, lambda client: client.claim(INVENTORY.claim)))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"format":2}\n', "upgrade the server; the rules in force stay"),
        (b'{"format":4}\n', "upgrade the agent; the rules in force stay"),
        (b"junk\n", "the rules in force stay"),
    ],
)
def test_a_feed_that_makes_no_sense_is_told(body, words, tmp_path):
    with pytest.raises(OperatorError, match=words):
        asyncio.run(_with_answer(SWITCHED + body, tmp_path, _follow))


def test_a_feed_that_breaks_off_ends_without_the_line_that_was_cut(tmp_path):
    asyncio.run(_with_answer(SWITCHED + b'{"heartbeat":true}\n{"form', tmp_path, _follow))


def test_whoever_answers_the_feed_and_does_not_switch_is_told(tmp_path):
    with pytest.raises(OperatorError, match="does not switch"):
        asyncio.run(_with_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", tmp_path, _follow))


async def _follow(client):
    async with aclosing(client.feed()) as feed:
        async for _ in feed:
            pass


async def _with_answer(answer, folder, call):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    path = folder / "s"
    async with await asyncio.start_unix_server(serve, path):
        await _ask(f"unix:{path}", call)
