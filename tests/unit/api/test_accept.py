"""Who wants to be connected: many are taken at each turn of a busy loop, and none by a server that ends."""

import asyncio
import socket

import pytest
import uvloop

from ringfence.api.connection import Open
from ringfence.api.exchange import BodyLimits, Response
from ringfence.api.listen import open_socket, parse_listen
from ringfence.api.server import AT_ONCE, _accept, _Listener, _start


def never(_request):
    raise AssertionError("nobody asked for anything")


async def turns_until_connected(count):
    listen = parse_listen("127.0.0.1:0")
    opened, listener = Open(), _Listener(listen, open_socket(listen), never)
    servers = await _start(listener, opened)
    clients = [socket.create_connection(listener.opened.getsockname()) for _ in range(count)]
    turns = 0
    while len(opened.connections) < count and turns < 1000:
        await asyncio.sleep(0)
        turns += 1
    for one in (*servers, *clients, listener.opened, *opened.connections):
        one.close()
    await asyncio.sleep(0)
    return turns


def test_who_waits_to_be_connected_waits_for_few_turns():
    assert uvloop.run(turns_until_connected(4 * AT_ONCE)) < AT_ONCE


class Held:
    """Answers when it is released."""

    limits = BodyLimits()

    def __init__(self):
        self.asked, self.released = asyncio.Event(), asyncio.Event()

    async def __call__(self, request):
        self.asked.set()
        await self.released.wait()
        return Response(200, request.path.encode())


async def again_and_again(connect, address):
    for _ in range(1000):
        (await connect(address))[1].close()


async def ended_while_a_call_is_under_way(listen, connect):
    app, stop, ready = Held(), asyncio.Event(), asyncio.Event()
    listener = _Listener(parse_listen(listen), open_socket(parse_listen(listen)), app)
    address = listener.opened.getsockname()
    accepting = asyncio.create_task(_accept([listener], lambda _: ready.set(), stop))
    await ready.wait()
    reader, writer = await connect(address)
    writer.write(b"GET /asked HTTP/1.1\r\nhost: h\r\n\r\n")
    await app.asked.wait()
    stop.set()
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        await again_and_again(connect, address)
    app.released.set()
    answer = await reader.read()
    writer.close()
    await accepting
    return answer


def test_a_server_that_ends_refuses_who_comes_and_answers_who_came():
    async def connect(address):
        return await asyncio.open_connection(*address)

    assert uvloop.run(ended_while_a_call_is_under_way("127.0.0.1:0", connect)).endswith(b"/asked")


def test_its_unix_socket_is_gone_at_once(tmp_path):
    path = f"{tmp_path}/api.sock"
    assert uvloop.run(ended_while_a_call_is_under_way(f"unix:{path}", asyncio.open_unix_connection)).endswith(b"/asked")
