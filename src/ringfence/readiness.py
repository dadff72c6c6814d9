"""Tells whoever started a service that it serves from now on, as systemd's units of ``Type=notify`` wait for it.

Input: the socket that systemd names in the environment. Output: one datagram there (sd_notify(3)). Without it
``systemctl start`` returns while the service is still loading, and what is said next finds none.
"""

import logging
import os
import socket

_log = logging.getLogger("ringfence")


def tell_ready() -> None:
    """Says so; nothing is done where nobody waits for it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = f"\0{address[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
            opened.sendto(b"READY=1", address)
    except OSError as error:
        _log.warning("systemd cannot be told that the service is ready: %s", error.strerror)
