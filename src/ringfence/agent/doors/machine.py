"""Facts about this machine: the kernel's settings and modules, room on disk, whether an agent runs. Changes nothing."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ringfence.agent.doors.links import lock_network
from ringfence.policy.errors import OperatorError

_SETTINGS: Final = Path("/proc/sys")
_MODULES: Final = Path("/sys/module")
_SYMBOLS: Final = Path("/proc/kallsyms")


@dataclass(frozen=True, slots=True)
class Room:
    """What a file system takes more."""

    bytes: int
    files: int


class MachineDoor(Protocol):
    def room(self, folder: Path) -> Room | None:
        """The room for files in a folder; None when nothing can be written there."""
        ...

    def setting(self, name: str) -> str | None:
        """The value of a sysctl, its name with slashes; None where there is none or it cannot be read."""
        ...

    def has_module(self, name: str) -> bool:
        """Whether the kernel has a module, loaded or built in, as far as can be seen."""
        ...

    def is_agent_running(self) -> bool:
        """Whether an agent filters the network namespace of the caller."""
        ...


class LinuxMachine:
    def room(self, folder: Path) -> Room | None:
        if not os.access(folder, os.W_OK):
            return None
        found = os.statvfs(folder)
        counts_files = found.f_files > 0  # btrfs has no bound of its own
        return Room(found.f_bavail * found.f_frsize, found.f_favail if counts_files else sys.maxsize)

    def setting(self, name: str) -> str | None:
        try:
            return (_SETTINGS / name).read_text(encoding="ascii").strip()
        except OSError:
            return None

    def has_module(self, name: str) -> bool:
        if (_MODULES / name).exists():
            return True
        try:
            with _SYMBOLS.open(encoding="ascii") as symbols:
                return any(f" {name}_" in line for line in symbols)
        except OSError:
            return False

    def is_agent_running(self) -> bool:
        try:
            with lock_network():
                return False
        except OperatorError:
            return True
