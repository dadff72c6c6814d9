"""An agent's feed without an agent: a socket on which lines are read and reports are written."""

import socket
import sys
import time
from contextlib import contextmanager, suppress

from ringfence.wire.feed import FeedReader, FeedView, Report, encode_report, render_base
from ringfence.wire.hostauth import sign_request

FEED = "/agent/v1/feed"


class Feed:
    """The open feed of one host; what it says is read by ``reader``."""

    def __init__(self, opened, reader):
        self.socket = opened
        self.reader = reader
        self.file = opened.makefile("rb")

    def line(self):
        """The next line; empty when the server has ended the feed."""
        return self.file.readline()

    def next(self):
        """What the next line says."""
        return self.reader.decode_line(self.line())

    def report(self, report):
        self.socket.sendall(encode_report(report) + b"\n")


def connect(address):
    """A connection to ``(host, port)`` or to the unix socket at a path."""
    if isinstance(address, tuple):
        return socket.create_connection(address, timeout=10)
    opened = socket.socket(socket.AF_UNIX)
    opened.settimeout(10)
    opened.connect(str(address))
    return opened


def ask(private_key, host, base=None, method="GET"):
    """The request that a feed begins with."""
    target = f"{FEED}?{render_base(base)}"
    signature = sign_request(private_key, host, method, target, b"", int(time.time()) + 60)
    headers = ("Host: server", "Connection: upgrade", "Upgrade: ringfence-feed", f"Authorization: {signature}")
    return "\r\n".join((f"{method} {target} HTTP/1.1", *headers, "", "")).encode()


@contextmanager
def open_feed(address, private_key, host, *, reader=None):
    """The feed of ``host``; with a ``reader`` that knows a view already, it is asked for what is new since."""
    reader = reader or FeedReader()
    with connect(address) as opened:
        opened.sendall(ask(private_key, host, reader.base))
        feed = Feed(opened, reader)
        with feed.file:
            assert feed.line().split()[1:2] == [b"101"]
            while feed.line().strip():
                continue
            yield feed


def follow(path, private_key, host):
    """Enforces nothing and acknowledges everything, for ever; a feed that ends is followed on from where it was."""
    reader = FeedReader()
    while True:
        with suppress(OSError), open_feed(path, private_key, host, reader=reader) as feed:
            while line := feed.line():
                found = reader.decode_line(line)
                if isinstance(found, FeedView):
                    feed.report(Report(found.view.revision, None))
        time.sleep(0.1)


if __name__ == "__main__":
    follow(sys.argv[1], bytes.fromhex(sys.argv[2]), sys.argv[3])
