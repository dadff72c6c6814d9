"""Whether each port is where the inventory says that it is: or whether something takes its frames before any rule.

Input: the inventory and the links. Output: ports that are elsewhere, each with what follows from that and what to do.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ringfence.agent.doors.links import LinksDoor, Master
from ringfence.agent.inventory import Inventory, declared_endpoints
from ringfence.policy.local import LocalPorts
from ringfence.policy.values import Kind


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
    """Remembers by the kernel's numbers which interfaces were managed: rules know a port by its name alone."""

    def __init__(self) -> None:
        self._were: dict[int, str] = {}

    def find(self, ports: LocalPorts, links: LinksDoor) -> Iterator[Misplaced]:
        """The ports that came to have a name that is not managed since an earlier call, and so are open. O(links)."""
        there = links.numbered()
        self._were = {number: name for number, name in self._were.items() if number in there}
        names, prefixes = ports.names, ports.prefixes
        managed = {n: name for n, name in there.items() if name in names or name.startswith(prefixes)}
        self._were |= managed
        for number in sorted(self._were.keys() - managed.keys()):
            before, name = self._were[number], there[number]
            if name != before:  # else the operator gave it free
                text = f"the port {before!r} was renamed {name!r}, which is not managed: what crosses it is not judged"
                yield Misplaced(text, "name it as before, or write its name into the inventory", is_open=True)
