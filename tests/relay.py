"""A way to a real PostgreSQL that can be cut, in a commit too: before the server heard of it, or before it answered."""

import socket
import threading
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

SOCKET = ".s.PGSQL.5432"
COMMIT = b"COMMIT\0"
SIZE = 65536


class Relay:
    """Listens in ``folder``. Set ``cut`` to "before" or "after": it cuts at the next commit and is away from then.

    With ``silently`` it swallows what goes over that connection from then on, and neither end is told.
    """

    def __init__(self, folder, url):
        parts = urlsplit(url)
        self.url = f"postgresql://{parts.netloc}{parts.path}?host={folder}"
        self.cut = None
        self.silently = False
        self.away = False
        self.was_cut = threading.Event()
        self._server = f"{parse_qs(parts.query)['host'][0]}/{SOCKET}"
        self._answered = threading.Event()
        self._ends = []
        self._silenced = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(f"{folder}/{SOCKET}")
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._drop()

    def cut_off(self):
        """At once, until ``away`` is unset."""
        self.away = True
        self._drop()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self.away:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                self._ends += [client, server]
                for ends in ((client, server, self._ask), (server, client, self._answer)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source, target, passes):
        with suppress(OSError):
            while (octets := source.recv(SIZE)) and passes(octets, source, target):
                target.sendall(octets)
        if source in self._silenced:
            return
        for end in (source, target):
            _shut(end)

    def _ask(self, octets, client, server):
        """Whether the client's words go on to the server as they are."""
        if self.cut is None or COMMIT not in octets:
            return True
        if self.silently:
            return self._swallow(octets, client, server)
        self.away = True
        if self.cut == "after":
            server.sendall(octets)
            assert self._answered.wait(10)
        self._drop()
        self.was_cut.set()
        return False

    def _swallow(self, octets, client, server):
        self._silenced += [client, server]
        if self.cut == "after":
            server.sendall(octets)
        self.cut = None
        self.was_cut.set()
        return False

    def _answer(self, _octets, server, _client):
        if self.away:
            self._answered.set()
        return not self.away and server not in self._silenced

    def _drop(self):
        for end in self._ends:
            _shut(end)


def _shut(end):
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
