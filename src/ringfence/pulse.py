"""Tells whoever started a service that it serves from now on, and that its event loop turns: one that hangs is killed.

So systemd asks in units of ``Type=notify`` with ``WatchdogSec=``. Without the first ``systemctl start`` returns while
the service is still loading, and what is said next finds none. Input: what systemd puts into the environment
(sd_notify(3)). Output: datagrams to its socket; nothing is told where nobody waits for it.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

_BEATS: Final = 4  # in the time that systemd waits for one

_log = logging.getLogger("ringfence")


def tell_ready(environment: Mapping[str, str] = os.environ) -> None:
    """Says that the service serves from now on."""
    try:
        _tell(b"READY=1", environment)
    except OSError as error:
        _log.warning("systemd cannot be told that the service is ready: %s", error.strerror)


async def beat(environment: Mapping[str, str] = os.environ) -> None:
    """Says for ever that the event loop turns, as often as systemd asks for; ends at once if it does not."""
    waits_us = environment.get("WATCHDOG_USEC", "")
    while waits_us.isdecimal():
        with suppress(OSError):  # the next one comes in time
            _tell(b"WATCHDOG=1", environment)
        await asyncio.sleep(int(waits_us) / 1e6 / _BEATS)


def _tell(words: bytes, environment: Mapping[str, str]) -> None:
    """Sends the words; raises ``OSError`` if they find nobody or no room, and waits for neither."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = f"\0{address[1:]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        opened.setblocking(False)  # noqa: FBT003  the standard library's own signature
        opened.sendto(words, address)
