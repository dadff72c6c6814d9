"""Many lines that ask for networks -> a tree of chains, so that a packet meets only those near its own address.

Input: the lines of one chain, in order. Output: that chain and those below it, which say of every packet what the lines
one after another would: the first that matches is the same, and so is its counter. It knows no rules and no groups.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import groupby
from typing import Final

from ringfence.policy.program.model import Chain, Field, Goto, Jump, Line, Within
from ringfence.policy.values import Network

MOST_LINES: Final = 64  # a run of no more stays as it is: the tree would cost as much as it saves
_LEAF_LINES: Final = 16
_BITS: Final = 4  # of the address that one chain tells apart
_MOST_DEPTH: Final = 6  # the kernel follows 16 chains from a hook; some of them lead here
_MOST_GROWTH: Final = 2  # a line that is wider than a branch stands in each branch that it overlaps


@dataclass(frozen=True, slots=True)
class _Branch:
    """Addresses that begin with the same ``length`` bits; ``value`` is the first of them."""

    value: int
    length: int
    bits: int  # of an address of the family

    @property
    def network(self) -> Network:
        octets = self.value.to_bytes(self.bits // 8, "big")
        return ip_network((octets, self.length))

    def children(self) -> list["_Branch"]:
        length = self.length + _BITS
        return [_Branch(self.value | n << self.bits - length, length, self.bits) for n in range(1 << _BITS)]


def branch_out(name: str, lines: tuple[Line, ...], most: int = MOST_LINES) -> dict[str, Chain]:
    """The chain ``name``, and the chains that it leads to, in place of ``lines``. O(lines), some times over.

    Only runs of more than ``most`` lines that ask for a network by the same field become a tree; their order among
    themselves, and to other lines, is kept wherever a packet could match two of them.
    """
    found: dict[str, Chain] = {}
    trunk: list[Line] = []
    for number, (field, run) in enumerate(groupby(lines, _asked_field)):
        run_lines = tuple(run)
        if field is None or len(run_lines) <= most:
            trunk += run_lines
        else:
            trunk += _Tree(f"{name}_{number}", field, found).grow(run_lines)
    found[name] = Chain(tuple(trunk))
    return found


class _Tree:
    """The chains of one run of lines, as they are found."""

    def __init__(self, name: str, field: Field, found: dict[str, Chain]) -> None:
        self._name = name
        self._field = field
        self._found = found

    def grow(self, lines: tuple[Line, ...]) -> list[Line]:
        """What stands in place of ``lines``: they themselves, or lines that jump, for others follow."""
        root = _Branch(0, 0, _network(lines[0]).max_prefixlen)
        return [self._coming_back(line) for line in self._grow(root, lines, _MOST_DEPTH)]

    def _coming_back(self, line: Line) -> Line:
        """Only from the first chain by jump: from the others' ends a packet comes back there at once."""
        last = line.parts[-1]
        if isinstance(last, Goto) and last.chain in self._found:
            return Line((*line.parts[:-1], Jump(last.chain)))
        return line

    def _grow(self, branch: _Branch, lines: tuple[Line, ...], depth: int) -> tuple[Line, ...]:
        if len(lines) <= _LEAF_LINES or depth == 0 or branch.length == branch.bits:
            return lines
        children = _shared_out(branch, lines)
        if len(children) == 1 and all(_network(line).prefixlen > branch.length for line in lines):
            ((child, inside),) = children
            return self._grow(child, inside, depth)
        if sum(len(inside) for _, inside in children) > _MOST_GROWTH * len(lines):
            return lines
        if any(len(inside) == len(lines) for _, inside in children):
            return lines
        return tuple(line for child, inside in children for line in self._lead(child, inside, depth - 1))

    def _lead(self, branch: _Branch, lines: tuple[Line, ...], depth: int) -> Iterator[Line]:
        """A line into the branch; a single line of its own needs no chain."""
        if len(lines) == 1 and _network(lines[0]).prefixlen >= branch.length:
            yield lines[0]
            return
        chain = f"{self._name}_{branch.value:x}_{branch.length}"
        self._found[chain] = Chain(self._grow(branch, lines, depth))
        yield Line((Within(self._field, branch.network), Goto(chain)))


def _shared_out(branch: _Branch, lines: tuple[Line, ...]) -> list[tuple[_Branch, tuple[Line, ...]]]:
    """Each child of the branch with the lines that overlap it, in order; none without any."""
    inside: list[list[Line]] = [[] for _ in range(1 << _BITS)]
    shift = branch.bits - branch.length - _BITS
    for line in lines:
        network = _network(line)
        first = int(network.network_address) - branch.value >> shift
        last = int(network.broadcast_address) - branch.value >> shift
        for number in range(max(first, 0), min(last, len(inside) - 1) + 1):
            inside[number].append(line)
    return [(child, tuple(some)) for child, some in zip(branch.children(), inside, strict=True) if some]


def _asked_field(line: Line) -> Field | None:
    """The field that the line compares with a network, if it does so once."""
    found = [part.field for part in line.parts if isinstance(part, Within)]
    return found[0] if len(found) == 1 else None


def _network(line: Line) -> Network:
    return next(part.network for part in line.parts if isinstance(part, Within))
