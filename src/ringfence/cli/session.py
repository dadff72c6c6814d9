"""Where the operator's SSH session comes from, also after sudo took the environment away."""

import os
from pathlib import Path
from typing import Final

_VARIABLE: Final = "SSH_CONNECTION"  # the client's address and port, the server's address and port


def ssh_session() -> str | None:
    """``SSH_CONNECTION`` of this process, or of the nearest that started it and has one; None if none has."""
    found = os.environ.get(_VARIABLE)
    pid = os.getppid()
    while found is None and pid > 1:
        try:
            found = _variable_of(pid)
            pid = _parent_of(pid)
        except OSError:
            break
    return found


def _variable_of(pid: int) -> str | None:
    begin = f"{_VARIABLE}=".encode()
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((entry.removeprefix(begin).decode() for entry in entries if entry.startswith(begin)), None)


def _parent_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return int(status.rpartition(")")[2].split()[1])  # the name in parentheses may hold anything
