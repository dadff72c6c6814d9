"""Follows the inventory file, and knows which ports are managed by it.

Output: the newest good inventory, the ports to close unless programmed, and what is wrong with the file. A file that
cannot be read changes nothing: the last good inventory stays in use, even after a restart.
"""

import logging
from dataclasses import dataclass, replace
from operator import is_
from pathlib import Path
from typing import Final

from ringfence.agent.cache import Cache, Memory
from ringfence.agent.doors.files import FilesDoor, Stamp
from ringfence.agent.doors.links import LinksDoor
from ringfence.agent.inventory import Inventory, declared_endpoints, find_reassigned, given_free, parse_inventory
from ringfence.policy.errors import OperatorError
from ringfence.policy.local import Lifelines, LocalPorts
from ringfence.policy.values import Kind
from ringfence.policy.view import Endpoint, HostView

_UNREAD: Final = Stamp((-1, -1, -1))

_log: Final = logging.getLogger("ringfence.agent")


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look at the file found: if it was to be read, its text with what that declares, or why there is none.

    ``is_unread``: it, or its stamp, cannot be had.
    """

    stamp: Stamp | None
    found: tuple[bytes, Inventory] | None = None
    error: OperatorError | None = None
    is_unread: bool = False


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is declared at one moment.

    ``endpoints``: without ports that moved from one instance to another since the agent started.
    """

    inventory: Inventory
    ports: LocalPorts
    endpoints: tuple[Endpoint, ...]


class Declared:
    """What the operator declares. ``begin`` comes first; ``problem`` says why the file is not followed, if so.

    Ports that the inventory no longer names are remembered: taking an instance out closes its port, it does not free
    it; nor does renaming it. They are forgotten when their link is gone, or when the inventory declares them unmanaged.

    ``observed`` tells whether an uplink without a view is only observed, as that of a new host is.
    """

    def __init__(self, file: Path, *, files: FilesDoor, links: LinksDoor, cache: Cache, memory: Memory) -> None:
        self._file = file
        self._files = files
        self._links = links
        self._cache = cache
        self._inventory: Inventory | None = None
        self._seen: Stamp | None = None
        self._read: Stamp | None = _UNREAD
        self._text: bytes | None = None
        self.remembered = memory.ports
        self._reassigned: frozenset[str] = frozenset()
        self.channel = memory.channel  # where the server is, which a self host never cuts
        self.observed = memory.observed
        self._declaration: Declaration | None = None
        self._made_of: tuple[object, ...] = ()
        self.problem: str | None = None

    @property
    def inventory(self) -> Inventory:
        if self._inventory is None:
            raise OperatorError(f"inventory {self._file}", "not read yet")
        return self._inventory

    @property
    def ports(self) -> LocalPorts:
        """All managed ports, in a stable order."""
        patterns = {*self.inventory.managed, *map(str, self.inventory.ports), *self.remembered}
        inventory = self.inventory
        uplinks = tuple(replace(one, observe=self.observed) for one in declared_endpoints(inventory))
        uplinks = uplinks if inventory.kind is Kind.SELF else ()
        return LocalPorts(tuple(sorted(patterns)), inventory.kind, uplinks, Lifelines(inventory.failsafe, self.channel))

    @property
    def current(self) -> Declaration:
        """What is declared at this moment; the same object as long as nothing changed."""
        made_of = (self._inventory, self.remembered, self._reassigned, self.channel, self.observed)
        if self._declaration is None or not all(map(is_, made_of, self._made_of)):
            kept = tuple(end for end in declared_endpoints(self.inventory) if end.interface not in self._reassigned)
            self._declaration, self._made_of = Declaration(self.inventory, self.ports, kept), made_of
        return self._declaration

    def begin(self, held: frozenset[str], observed: frozenset[str] = frozenset()) -> None:
        """Reads the file, or else the saved copy of when it was last good; raises ``OperatorError`` without either.

        ``held``: the ports that the kernel still manages from an earlier run, of which ``observed`` are only observed.
        If the file no longer names one of these, or of the saved copy, it was taken out while no agent ran, and is
        remembered all the same.
        """
        kept = self._load_kept()
        self.remembered |= held - (_uplinks_of(kept) | frozenset(kept.managed) if kept else frozenset())
        self._inventory = kept
        try:
            self._read_file()
        except OperatorError as error:
            if kept is None:
                raise
            self._adopt(kept)
            self.problem = f"{error}; the last good one is in force"
        self.observed = self.observed and self.inventory.ports.isdisjoint(held - observed)

    def remember(self, ports: frozenset[str]) -> bool:
        """Takes these for the ports to remember; returns whether they are others than before."""
        changed = ports != self.remembered
        self.remembered = ports if changed else self.remembered
        return changed

    def note_view(self, view: HostView) -> None:
        """Takes note of whether a view observes this host's uplinks; that holds until another view says otherwise."""
        for endpoint in view.endpoints if self.inventory.kind is Kind.SELF else ():
            if endpoint.interface in self.inventory.ports:
                self.observed = endpoint.observe

    def look(self) -> Sight:
        """What is at the file. It changes nothing here, for it is done by a thread: the disk may hang.

        A file is read only if it did not change between two calls: otherwise it may still be being written.
        """
        stamp = None
        try:
            stamp = self._files.stamp(self._file)
            if not self._is_due(stamp):
                return Sight(stamp)
            text = self._files.read(self._file)
        except OperatorError as error:
            return Sight(stamp, error=error, is_unread=True)
        try:
            return Sight(stamp, self._parse(text))
        except OperatorError as error:
            return Sight(stamp, error=error)

    def note(self, sight: Sight) -> bool:
        """Takes note of what the newest ``look`` found; whether that is a new good inventory."""
        if sight.is_unread:
            self._read = _UNREAD  # read again when it can be: no stamp tells that
        elif self._is_due(sight.stamp):
            self._read = sight.stamp
        self._seen = sight.stamp or (self._seen if sight.is_unread else None)
        error = sight.error
        if sight.found is not None:
            try:
                self._take(*sight.found)
            except OperatorError as failed:
                error = failed
        if error is not None:
            self.problem = f"{error}; the last good one stays in force"
        return sight.found is not None and error is None

    def _is_due(self, stamp: Stamp | None) -> bool:
        return stamp != self._read and stamp == self._seen

    def keep(self) -> None:
        """Saves the last good inventory, for a start at which the file cannot be read."""
        text = self._text
        if text is not None:
            self._cache.save_inventory(text)
            self._text = None if self._text is text else self._text

    def _load_kept(self) -> Inventory | None:
        try:
            text = self._cache.load_inventory()
            return None if text is None else parse_inventory(text, file=self._cache.inventory_name)
        except OperatorError as error:
            _log.warning("%s", error)
            return None

    def _read_file(self) -> None:
        stamp = self._files.stamp(self._file)
        text = self._files.read(self._file)
        self._seen = self._read = stamp
        self._take(*self._parse(text))

    def _parse(self, text: bytes | None) -> tuple[bytes, Inventory]:
        if text is None:
            raise OperatorError(f"inventory {self._file}", "there is no such file")
        inventory = parse_inventory(text, file=str(self._file))
        if inventory.host != self._cache.host:
            reason = f"host: expected {self._cache.host!r}, the host of this agent's credential, got {inventory.host!r}"
            raise OperatorError(f"inventory {self._file}", reason)
        return text, inventory

    def _take(self, text: bytes, inventory: Inventory) -> None:
        self._adopt(inventory)
        self._text = text
        self.problem = None

    def _adopt(self, inventory: Inventory) -> None:
        links = self._links.names()
        self.remembered = remember_ports(self.remembered, self._inventory, inventory, links)
        if self._inventory is not None:
            self._reassigned |= find_reassigned(self._inventory, inventory)
        absent = sorted(map(str, inventory.ports - links))
        counted = {"instances": len(inventory.instances), "absent_interfaces": absent}
        _log.info("inventory read", extra={"fields": counted})
        self._inventory = inventory


def remember_ports(
    remembered: frozenset[str], before: Inventory | None, inventory: Inventory, links: frozenset[str]
) -> frozenset[str]:
    """The ports to remember: those of earlier inventories whose links exist and that are not declared unmanaged."""
    known = remembered | (frozenset(map(str, before.ports)) - _uplinks_of(before) if before else frozenset())
    present = frozenset(map(str, inventory.ports))
    return frozenset(name for name in known - present if name in links and name not in given_free(inventory))


def _uplinks_of(inventory: Inventory) -> frozenset[str]:
    """A self host's uplinks, which are not remembered: closing them would shut its operator out and protect nobody."""
    return frozenset(map(str, inventory.ports)) if inventory.kind is Kind.SELF else frozenset()
