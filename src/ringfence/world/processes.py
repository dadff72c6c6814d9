"""The demo's child processes and its folder: none outlives the demo, however that ends.

Children are killed by the kernel when this process dies. The folder is removed by a watcher process as soon as this
process and all children have let go of a pipe, so that even ``kill -9`` leaves nothing behind.
"""

import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from ringfence.policy.errors import OperatorError
from ringfence.world.namespaces import Namespace

_STOP_S: Final = 10.0
_SHOWN_LINES: Final = 15


@dataclass(frozen=True, slots=True)
class Workshop:
    """A private folder for the demo's processes. Open it while the process is single-threaded."""

    folder: Path
    held: int  # the pipe end that keeps the folder
    watcher: int

    def close(self) -> None:
        """Let go; the folder is gone when this returns, if all children have ended."""
        os.close(self.held)
        os.waitpid(self.watcher, 0)


def open_workshop() -> Workshop:
    folder = Path(tempfile.mkdtemp(prefix="ringfence-demo-"))
    watched, held = os.pipe()
    watcher = os.fork()
    if watcher == 0:
        os.close(held)
        _watch(watched, folder)
        os._exit(0)
    os.close(watched)
    return Workshop(folder, held, watcher)


def _watch(watched: int, folder: Path) -> None:
    os.setsid()  # Ctrl-C is for the demo, not for who cleans up after it
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.read(watched, 1)  # nobody writes: this returns when the last holder is gone
    shutil.rmtree(folder, ignore_errors=True)


class Child:
    """A running ``ringfence`` command. Its log is a file; its results come line by line."""

    def __init__(self, workshop: Workshop, name: str, arguments: Sequence[str]) -> None:
        self.name = name
        self._workshop = workshop
        self._arguments = arguments
        self._log = workshop.folder / f"{name}.log"
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def start(self, *, namespace: Namespace | None = None, environment: Mapping[str, str] | None = None) -> None:
        """Run it, in ``namespace`` or in this process's network, with ``environment`` added to this process's."""
        network = "-" if namespace is None else str(namespace.fd)
        program = (sys.executable, "-m", "ringfence", *self._arguments)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own program
                (sys.executable, "-m", "ringfence.world.child", str(os.getpid()), network, *program),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(self._workshop.held,) if namespace is None else (self._workshop.held, namespace.fd),
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                text=True,
            )
        if self._process.stdout is not None:
            reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
            reader.start()

    def read_line(self, timeout_s: float) -> str:
        """The next line of its results; OperatorError with the end of its log when none comes."""
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            line = ""
        if not line:
            raise OperatorError(f"starting ringfence {self.name}", f"it did not become ready:\n{self.log_end()}")
        return line

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> int | None:
        """End it as an operator would (SIGTERM), by force when it does not listen; its exit status."""
        if self._process is None:
            return None
        self._process.terminate()
        try:
            return self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def log_end(self) -> str:
        """The last lines of its log."""
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LINES:])

    def _read(self, results: IO[str]) -> None:
        for line in results:
            self._lines.put(line.rstrip("\n"))
        self._lines.put("")
