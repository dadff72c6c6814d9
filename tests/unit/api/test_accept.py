"""A busy server takes many of those who wait to be connected at each turn of its loop."""

import asyncio
import socket

import uvloop

from ringfence.api.connection import Open
from ringfence.api.listen import open_socket, parse_listen
from ringfence.api.server import AT_ONCE, _Listener, _start


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
