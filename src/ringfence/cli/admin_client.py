"""One operator's request to the server that owns a data folder: through its control socket, or in this process.

While a server runs it holds the folder, and its socket ``control.sock`` there answers. When none runs, this process
opens the store itself and calls the very same app, so that there is one way for each thing.
"""

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from ringfence.api.admin import build_admin_app
from ringfence.api.authority import find_authority
from ringfence.api.direct import Direct
from ringfence.api.operator import SESSION_HEADER
from ringfence.api.server import CONTROL_SOCKET
from ringfence.cli.output import complain
from ringfence.cli.session import ssh_session
from ringfence.control.plane import ControlPlane
from ringfence.policy.errors import CallerError, Invalid, OperatorError
from ringfence.store import FolderHeld, has_store

# How long a server that just starts may hold the folder before its socket answers.
_START_S: Final = 5.0
_PAUSE_S: Final = 0.05
_FOLLOW_PAUSE_S: Final = 0.5
_TIMEOUT_S: Final = 40.0  # an operation may take 30 s to settle
_BASE: Final = "http://ringfence/admin/v1"
_FIRST: Final = "POST"  # what makes something may begin a store; what reads or ends something asks about one
_ROOT: Final = re.compile(
    r"^(\$(\.(edits\[0\](\.|: ))?|: )|\?)"
)  # of a path within a document or a query, which the operator never saw
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to the operator's app; ``path`` is below ``/admin/v1``. ``asks_only``: a POST that makes nothing.

    ``of_hosts``: what is asked is what hosts told the server that runs, and keeps it in memory.
    """

    method: str
    path: str
    body: Document | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    asks_only: bool = False
    of_hosts: bool = False

    @property
    def may_begin(self) -> bool:
        """Whether it may make a store where there is none."""
        return self.method == _FIRST and not self.asks_only


def ask(folder: Path, wanted: Ask) -> Document:
    """The answer's JSON object, empty when it has none.

    Raises:
        CallerError: the server refused what was asked; the text is the server's.
        OperatorError: no server answers and the folder cannot be opened either, or holds no store to ask about.
    """
    if not wanted.may_begin and _lacks_store(folder):
        reason = "no ringfence store is there; ringfence server, key create and host add make one: check --data"
        raise OperatorError(f"opening {folder}", reason)
    answer = asyncio.run(_ask(folder, wanted))
    if wanted.of_hosts and not _answers(folder / CONTROL_SOCKET):
        complain(f"no server runs with {folder}: what hosts tell is known to a server that runs, and to no other")
    return answer


def require_server(folder: Path) -> None:
    """``OperatorError`` when none runs with the folder."""
    if not _answers(folder / CONTROL_SOCKET):
        raise OperatorError(f"asking the server of {folder}", "none runs: start ringfence server, or check --data")


def wait_to_follow(folder: Path) -> None:
    """Returns when it is time to ask the server again what came; not before one runs with the folder.

    To look into the store meanwhile would keep one from starting.
    """
    time.sleep(_FOLLOW_PAUSE_S)
    while not _answers(folder / CONTROL_SOCKET):
        time.sleep(_FOLLOW_PAUSE_S)


async def _ask(folder: Path, wanted: Ask) -> Document:
    async with _client(folder) as client:
        try:
            response = await client.request(
                wanted.method,
                f"{_BASE}{wanted.path}",
                json=wanted.body,
                params=dict(wanted.query),
                headers=_session(),
            )
        except httpx.HTTPError as error:
            raise OperatorError(f"asking the server of {folder}", str(error) or type(error).__name__) from error
    document: Document = response.json() if response.content else {}
    if response.is_error:
        raise _refusal(document, response.status_code)
    return document


def _refusal(document: Document, status: int) -> CallerError:
    text = str(document.get("message", f"the server answered {status}"))
    root = _ROOT.match(text)
    kind = Invalid if status == httpx.codes.BAD_REQUEST else CallerError
    refusal = kind(text[root.end() :] if root else text)
    refusal.field = document.get("field") or (root[0] if root else None)  # the message names it already
    return refusal


def _session() -> dict[str, str]:
    """Whose session a change must not cut."""
    found = ssh_session()
    return {} if found is None else {SESSION_HEADER: found}


def _lacks_store(folder: Path) -> bool:
    try:
        return not has_store(folder)
    except OSError:
        return False  # opening it says why


def _answers(path: Path) -> bool:
    """Whether a server accepts connections there; a dead one's left-over file refuses them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as opened:
        try:
            opened.connect(str(path))
        except OSError:
            return False
    return True


@asynccontextmanager
async def _client(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    deadline_s = time.monotonic() + _START_S
    while not _answers(folder / CONTROL_SOCKET):
        try:
            plane = await ControlPlane.open(folder)
        except FolderHeld:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(_PAUSE_S)
            continue
        app = build_admin_app(plane, find_authority(folder))
        try:
            async with httpx.AsyncClient(transport=Direct(app)) as client:
                yield client
        finally:
            await plane.close()
        return
    transport = httpx.AsyncHTTPTransport(uds=str(folder / CONTROL_SOCKET))
    async with httpx.AsyncClient(transport=transport, timeout=_TIMEOUT_S) as client:
        yield client
