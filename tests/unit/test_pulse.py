"""What systemd is told: that a process is ready, and that its loop turns for as long as it does."""

import asyncio
import socket
from contextlib import suppress

import pytest

from ringfence.pulse import beat, tell_ready

QUICK_S = 5.0


@pytest.fixture(params=["file", "abstract"])
def heard(request, tmp_path):
    """The socket of systemd, and its environment for a service."""
    address = str(tmp_path / "notify") if request.param == "file" else f"@{tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        opened.bind(address.replace("@", "\0"))
        opened.settimeout(QUICK_S)
        yield opened, {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"}


def test_a_loop_that_turns_is_told_of_again_and_again_and_one_that_hangs_is_not(heard):
    opened, environment = heard

    async def run():
        beating = asyncio.ensure_future(beat(environment))
        for _ in range(3):
            assert await asyncio.to_thread(opened.recv, 99) == b"WATCHDOG=1"
        opened.settimeout(0.1)  # 20 beats; this loop stands still meanwhile
        told_before = 0
        with suppress(TimeoutError):
            while opened.recv(99) and told_before < 5:
                told_before += 1
        assert told_before < 5
        beating.cancel()

    asyncio.run(run())


def test_nobody_who_listens_holds_up_nobody_who_tells(heard, caplog):
    opened, environment = heard
    for _ in range(2000):  # more than a socket's queue
        tell_ready(environment)
    assert opened.recv(99) == b"READY=1"
    opened.close()
    tell_ready(environment)
    assert "cannot be told" in caplog.text


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nowhere"}, {"WATCHDOG_USEC": "x"}])
def test_without_a_watchdog_there_is_no_beat(environment):
    asyncio.run(asyncio.wait_for(beat(environment), QUICK_S))
