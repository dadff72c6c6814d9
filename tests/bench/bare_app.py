"""What the API is compared with, on the same kind of connection in the same process: no signature, no policy.

``/hello`` is a tiny answer; ``/bytes`` sends what it was given; a POST to ``/durable`` is one row on the disk, in a
transaction with all that came meanwhile. ``framed`` has request ids, body limits and a log line, as the API does.
"""

import asyncio
import queue
import sqlite3
import threading
from pathlib import Path

import msgspec

from ringfence.api.exchange import HttpApp
from ringfence.api.front import Front
from ringfence.api.routes import App


class _Row(msgspec.Struct):
    name: str


def make_bare_app(content: bytes, folder: Path, *, framed: bool) -> HttpApp:
    app = App()
    app.add_route("/hello", _Fixed(b'{"hello":"world"}'))
    app.add_route("/bytes", _Fixed(content))
    app.add_route("/durable", _Durable(folder / ("framed.db" if framed else "bare.db")))
    return Front(app) if framed else app


class _Fixed:
    def __init__(self, content):
        self._content = content

    def on_get(self, _, response):
        response.data = self._content


class _Durable:
    """A row a call: written by one thread, committed in groups, answered when it is on the disk."""

    def __init__(self, path):
        self._path = path
        self._asked = queue.SimpleQueue()
        threading.Thread(target=self._write, daemon=True).start()

    async def on_post(self, request, response):
        row = msgspec.json.decode(request.body, type=_Row)
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._asked.put((row.name, loop, done))
        response.data = msgspec.json.encode({"id": await done})

    def _write(self):
        database = sqlite3.connect(self._path, isolation_level=None)
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = full")
        database.execute("create table if not exists rows (id integer primary key, name text)")
        while True:
            batch = [self._asked.get()]
            while not self._asked.empty():
                batch.append(self._asked.get())
            database.execute("begin")
            ids = [database.execute("insert into rows (name) values (?)", (name,)).lastrowid for name, _, _ in batch]
            database.execute("commit")
            loop = batch[0][1]
            loop.call_soon_threadsafe(_answer, [(done, id_) for (_, _, done), id_ in zip(batch, ids, strict=True)])


def _answer(answers):
    for done, id_ in answers:
        done.set_result(id_)
