"""An answer leaves in one write; what nothing follows leaves by itself, and nothing overtakes anything."""

import asyncio

from ringfence.api.joined_writes import JoinedWrites


class Recorder(asyncio.Transport):
    """Keeps what it was given to send."""

    def __init__(self):
        super().__init__()
        self.sent = []

    def write(self, data):
        self.sent.append(bytes(data))

    def writelines(self, parts):
        self.sent.append([*parts])

    def close(self):
        self.sent.append(None)


def played(test):
    """Runs an async test, with the transport under test and the one below it, in a loop of its own."""

    async def run():
        whole = Recorder()
        await test(JoinedWrites(whole, asyncio.get_running_loop()), whole)

    return lambda: asyncio.run(run())


@played
async def test_a_head_and_its_body_are_one_write(transport, whole):
    transport.write(b"head")
    assert whole.sent == []
    transport.write(b"body")
    assert whole.sent == [b"headbody"]
    await asyncio.sleep(0)
    assert whole.sent == [b"headbody"]


@played
async def test_what_nothing_follows_leaves_at_the_loops_next_turn(transport, whole):
    transport.write(b"100 Continue")
    await asyncio.sleep(0)
    assert whole.sent == [b"100 Continue"]


@played
async def test_a_large_body_is_not_copied_and_goes_in_one_call_too(transport, whole):
    transport.write(b"head")
    transport.write(bytes(100_000))
    assert whole.sent == [[b"head", bytes(100_000)]]


@played
async def test_nothing_is_lost_when_the_connection_is_closed(transport, whole):
    transport.write(b"head")
    transport.close()
    assert whole.sent == [b"head", None]
