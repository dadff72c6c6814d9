"""A real PostgreSQL of our own: one server in a temporary folder, on a unix socket, as an unprivileged user."""

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg

from waiting import wait_until

UNPRIVILEGED = ("unshare", "--user", "--map-user=65534", "--map-group=65534")  # PostgreSQL refuses to run as root
PROGRAMS = "RINGFENCE_POSTGRES"  # the folder of another version's programs than the machine's
SETTINGS = ("listen_addresses=", "max_connections=50", "shared_buffers=32MB", "autovacuum=off")


@dataclass
class Postgres:
    """A server that can be killed and started again; each ``database()`` is empty and of its own."""

    folder: Path
    programs: Path
    process: subprocess.Popen | None = None
    numbers: count = field(default_factory=count)
    settings: tuple[str, ...] = SETTINGS

    def start(self):
        settings = [word for setting in self.settings for word in ("-c", setting)]
        command = [*UNPRIVILEGED, self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder, *settings]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603  our own words
        wait_until(lambda: self._answers() or self.process.poll() is not None, 30)
        assert self.process.poll() is None, (self.folder / "log").read_text()

    def kill(self):
        """As kill -9 of the whole server: the postmaster, held first so that it makes no more, and every backend."""
        self.process.send_signal(signal.SIGSTOP)
        children = self._children()
        for pid in (self.process.pid, *map(int, children)):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: all(_is_gone(pid) for pid in children))  # its memory is theirs too: no other could start

    @contextmanager
    def stopped(self):
        """Nothing of the server runs meanwhile, though its machine keeps all connections, and takes new ones."""
        self.process.send_signal(signal.SIGSTOP)
        stopped = [self.process.pid, *map(int, self._children())]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    def _children(self):
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()

    def stop(self):
        self.process.send_signal(signal.SIGQUIT)  # at once: nobody will read this database again
        self.process.wait(30)

    def database(self):
        """The URL of a new, empty database."""
        name = f"d{os.getpid()}_{next(self.numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, name):
        return f"postgresql://ringfence@/{name}?host={self.folder}"

    def _answers(self):
        try:
            psycopg.connect(self.url("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True


def _is_gone(pid) -> bool:
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def missing() -> str:
    """Why there can be no server here; empty when there can."""
    if find_programs() is None:
        return "PostgreSQL is not installed: apt install postgresql"
    if subprocess.run([*UNPRIVILEGED, "true"], capture_output=True, check=False).returncode:  # noqa: S603  ours
        return "no permission to run PostgreSQL as an unprivileged user (unshare --user)"
    return ""


def find_programs() -> Path | None:
    """Where initdb and postgres are: in ``RINGFENCE_POSTGRES``, or where Debian keeps them, by version."""
    if named := os.environ.get(PROGRAMS):
        return Path(named)
    on_path = shutil.which("initdb")
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), *([Path(on_path)] if on_path else [])]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


@contextmanager
def running_postgres(*more):
    """A fresh server, made by ``initdb`` with ``more``; its folder and all its databases go with it."""
    programs = find_programs()
    with tempfile.TemporaryDirectory(prefix="rf-pg-") as name:
        folder = Path(name)
        initdb = [programs / "initdb", "-D", folder / "data", "-U", "ringfence", "-A", "trust", "-E", "UTF8"]
        made = subprocess.run(  # noqa: S603  our own words
            [*UNPRIVILEGED, *initdb, "--no-locale", "--no-sync", *more], capture_output=True, check=False
        )
        assert made.returncode == 0, made.stderr.decode()
        postgres = Postgres(folder, programs)
        postgres.start()
        try:
            yield postgres
        finally:
            if postgres.process.poll() is None:
                postgres.stop()
