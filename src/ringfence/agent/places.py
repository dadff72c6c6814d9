"""Whether each port is where the inventory says that it is: or whether something takes its frames before any rule.

Input: the inventory and the links. Output: ports that are elsewhere, each with what follows from that and what to do.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ringfence.agent.doors.links import LinksDoor, Master
from ringfence.agent.inventory import Inventory, declared_endpoints, given_free
from ringfence.policy.values import Kind

_NAME_IT: Final = "name it as before, or write its name into the inventory, with managed = false if it is to be free"


@dataclass(frozen=True, slots=True)
class Misplaced:
    """``is_open``: nothing judges what the port carries; else nothing passes it."""

    text: str
    advice: str
    is_open: bool


def find_misplaced(inventory: Inventory, links: LinksDoor) -> Iterator[Misplaced]:
    """The managed ports that are not where their kind says, of those that can be seen. O(ports)."""
    for endpoint in declared_endpoints(inventory):
        master = links.master_of(endpoint.interface)
        if master is None:
            continue
        who = f"instance {endpoint.name!r}: {endpoint.interface!r}"
        if inventory.kind is Kind.BRIDGED and master.name is None:
            yield Misplaced(f"{who} is in no bridge, and so closed", "plug it into its bridge", is_open=False)
        elif master.name is not None and not (inventory.kind is Kind.BRIDGED and master.is_bridge):
            kind = "bridge" if master.is_bridge else "device"
            where = f"is a port of the {kind} {master.name!r}, and the inventory says {inventory.kind.value}"
            text = f"{who} {where}: what crosses it is not judged"
            yield Misplaced(text, _advice(inventory.kind, master), is_open=True)


def _advice(kind: Kind, master: Master) -> str:
    match kind:
        case Kind.SELF:
            return f"declare {master.name!r} as the interface: packets of this host come in by that"
        case Kind.ROUTED if master.is_bridge:
            return f'take it out of {master.name!r}; or write kind = "bridged" in the inventory'
        case Kind.ROUTED:
            return f"take it out of {master.name!r}, or, if it is a macvtap, give the machine a tap instead"
        case Kind.BRIDGED:
            return f"plug it, or instead of a macvtap a tap, into a Linux bridge: {master.name!r} asks no rule"


class Renames:
    """Remembers by the kernel's numbers which interfaces were managed: rules know a port by its name alone.

    ``closed`` are the new names of ports that were renamed to what the inventory does not name: to be kept closed, and
    told. The ``uplinks`` of a self host are told alone, for closing them would shut its operator out.
    """

    def __init__(self, seen: Iterable[tuple[int, str]] = ()) -> None:
        self._were = dict(seen)
        self._renamed: dict[int, str] = {}

    @property
    def seen(self) -> tuple[tuple[int, str], ...]:
        """What a restart needs, by number."""
        return tuple(sorted(self._were.items()))

    @property
    def closed(self) -> frozenset[str]:
        return frozenset(self._renamed.values())

    def look(self, inventory: Inventory, remembered: frozenset[str], there: Mapping[int, str]) -> frozenset[str]:
        """Takes note of the links that are ``there``; returns what is to be remembered now instead. O(links)."""
        closed = self.closed
        self._were = {number: name for number, name in self._were.items() if number in there}
        names, prefixes, free = *_managed_by(inventory), given_free(inventory)
        self._renamed = {}
        for number, name in there.items():
            before = self._were.get(number)
            if name in names or name.startswith(prefixes) or (before is None and name in remembered):
                self._were[number] = name
            elif before is not None and (name in free or (name == before and name not in remembered)):
                del self._were[number]
            elif before not in (None, name):
                self._renamed[number] = name
        gone = closed - self.closed - frozenset(there.values())
        return remembered - gone | (frozenset() if inventory.kind is Kind.SELF else self.closed)

    def find(self, shut: frozenset[str]) -> Iterator[Misplaced]:
        """The ports that were renamed at the last look; those of ``shut`` are closed."""
        for number, name in sorted(self._renamed.items()):
            is_open = name not in shut
            state = "what crosses it is not judged" if is_open else "nothing passes it"
            text = f"the port {self._were[number]!r} was renamed {name!r}, which the inventory does not name: {state}"
            yield Misplaced(text, _NAME_IT, is_open)


def _managed_by(inventory: Inventory) -> tuple[frozenset[str], tuple[str, ...]]:
    """The names that the inventory manages, and what the names begin with that its patterns manage."""
    patterns = {*map(str, inventory.ports), *inventory.managed}
    prefixes = tuple(one[:-1] for one in patterns if one.endswith("*"))
    return frozenset(one for one in patterns if not one.endswith("*")), prefixes
