"""What the agent keeps on disk: the last view it enforced, the last good inventory, and a few facts about its host.

With these a restarted agent enforces before it reaches the server. Every file is replaced whole and durably, readable
by its owner only; a damaged one, or another host's, counts as absent and is reported.
"""

import logging
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from ringfence.agent.doors.files import FilesDoor
from ringfence.policy.errors import Invalid, OperatorError
from ringfence.policy.values import MAX_PORT, Address, HostName
from ringfence.wire.feed import FeedView, decode_whole, encode_whole

_MAGIC: Final = "ringfence-view-1"

_FORGOTTEN: Final = "ports that the inventory no longer names are known by the kernel's rules alone"

_log: Final = logging.getLogger("ringfence.agent")


@dataclass(frozen=True, slots=True)
class Memory:
    """``block``: the last used block of generations. ``ports``: interfaces that were managed when last seen.

    ``channel``: addresses and ports at which the server was found. ``observed``: this host's uplinks are only observed,
    as they are until a view enforces them. ``seen``: the managed ports by the kernel's numbers, and of which ``life``
    of the kernel and the network namespace those are.
    """

    block: int | None = None
    ports: frozenset[str] = frozenset()
    channel: frozenset[tuple[Address, int]] = frozenset()
    observed: bool = True
    life: str | None = None
    seen: tuple[tuple[int, str], ...] = ()

    def seen_in(self, life: str | None) -> tuple[tuple[int, str], ...]:
        """``seen``, if the numbers mean the same in ``life``, which is None when nobody can tell."""
        return self.seen if life is not None and life == self.life else ()


class _MemoryShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal[1]
    block: int | None
    ports: list[str]
    channel: list[tuple[str, Annotated[int, msgspec.Meta(ge=1, le=MAX_PORT)]]] = []
    observed: bool = True
    life: str | None = None
    seen: list[tuple[int, str]] = []


@dataclass(frozen=True, slots=True)
class Cache:
    """The files of one host's agent in ``folder``. Every method may raise ``OperatorError`` naming the file."""

    files: FilesDoor
    folder: Path
    host: HostName

    def save_view(self, view: FeedView) -> None:
        line = encode_whole(view.epoch, view.view)
        self.files.replace(self._view_file, f"{self._seal(line)}\n".encode() + line)

    def load_view(self) -> FeedView | None:
        """The view saved last, None if there is none."""
        content = self.files.read(self._view_file)
        if content is None:
            return None
        seal, _, line = content.partition(b"\n")
        if seal.decode(errors="replace") != self._seal(line):
            raise OperatorError(f"read {self._view_file}", "damaged, or of another host or version; it is not used")
        try:
            return decode_whole(line)
        except Invalid as error:
            raise OperatorError(f"read {self._view_file}", "written by another version; it is not used") from error

    def save_inventory(self, text: bytes) -> None:
        """Keep the text of a good inventory."""
        if self.files.read(self._inventory_file) != text:
            self.files.replace(self._inventory_file, text)

    def load_inventory(self) -> bytes | None:
        return self.files.read(self._inventory_file)

    def save_memory(self, memory: Memory) -> None:
        channel = sorted((str(address), port) for address, port in memory.channel)
        shape = _MemoryShape(
            1, memory.block, sorted(memory.ports), channel, memory.observed, memory.life, list(memory.seen)
        )
        self.files.replace(self._memory_file, msgspec.json.encode(shape))

    def load_memory(self) -> Memory:
        """What was saved last; an empty ``Memory`` if that is absent, damaged or unreadable, for it is only a hint."""
        try:
            content = self.files.read(self._memory_file)
            if content is None:
                return Memory()
            shape = msgspec.json.decode(content, type=_MemoryShape)
            channel = frozenset((ip_address(address), port) for address, port in shape.channel)
        except OperatorError as error:
            _log.warning("%s; %s", error, _FORGOTTEN)
            return Memory()
        except (msgspec.DecodeError, ValueError):
            _log.warning("read %s: damaged, or of another version; %s", self._memory_file, _FORGOTTEN)
            return Memory()
        return Memory(shape.block, frozenset(shape.ports), channel, shape.observed, shape.life, tuple(shape.seen))

    @property
    def inventory_name(self) -> str:
        """How error texts call the kept inventory."""
        return str(self._inventory_file)

    @property
    def _view_file(self) -> Path:
        return self.folder / "view.json"

    @property
    def _inventory_file(self) -> Path:
        return self.folder / "inventory.good.toml"

    @property
    def _memory_file(self) -> Path:
        return self.folder / "memory.json"

    def _seal(self, line: bytes) -> str:
        return f"{_MAGIC} {self.host} {sha256(line).hexdigest()}"
