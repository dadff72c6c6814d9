"""A transport that sends an answer's head together with what follows it: one call to the kernel, and one record of TLS.

uvicorn writes the head and the body of an answer by two calls. Each would cost a tenth of a small answer's time, and be
a moment at which another thread may take the interpreter.
"""

import asyncio
from typing import Final

_JOINED_BYTES: Final = 64 * 1024  # a longer part is not copied for it


class JoinedWrites(asyncio.Transport):
    """What is written first waits for what is written next, at most until the event loop's next turn."""

    def __init__(self, whole: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.whole = whole  # for what else a transport can do, and for who takes the connection over
        self._loop = loop
        self._waiting: bytes | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._waiting is None:
            self._waiting = bytes(data)
            self._loop.call_soon(self.flush)
            return
        waiting, self._waiting = self._waiting, None
        if len(data) <= _JOINED_BYTES:
            self.whole.write(waiting + data)
        else:
            self.whole.writelines((waiting, data))

    def flush(self) -> None:
        """Sends what waits."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self.whole.write(waiting)

    def close(self) -> None:
        self.flush()
        self.whole.close()

    def is_closing(self) -> bool:
        return self.whole.is_closing()
