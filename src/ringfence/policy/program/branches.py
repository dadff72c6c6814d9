"""Many lines that compare an address with networks -> a tree of chains, so that a packet meets only those near its own.

Input: the lines of one chain, in order. Output: that chain and the chains below it, equivalent for every packet: the
first line that matches is the same, and so is its counter. It knows no rules and no groups.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import groupby
from typing import Final

from ringfence.policy.program.model import Chain, Field, Goto, Jump, Line, Within
from ringfence.policy.values import Network

MOST_LINES: Final = 64  # a shorter run stays as it is: the tree would cost as much as it saves
_LEAF_LINES: Final = 16
_BITS: Final = 4  # how many bits of the address one chain decides on
_MOST_DEPTH: Final = 6  # the kernel allows 16 nested jumps from a hook, and some of them lead here
_MOST_GROWTH: Final = 2  # how often a run may be copied: a line wider than a branch is in each branch that it overlaps


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
    """The chain ``name`` with ``lines``, and the chains that it leads to. O(lines * depth of the tree).

    Only runs of more than ``most`` lines that compare the same field with a network become a tree. Wherever a packet
    could match two lines, their order is kept.
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
        """The lines that replace ``lines`` in their chain. They jump rather than go to, for other lines may follow."""
        root = _Branch(0, 0, _network(lines[0]).max_prefixlen)
        return [self._coming_back(line) for line in self._grow(root, lines, _MOST_DEPTH)]

    def _coming_back(self, line: Line) -> Line:
        """The line with a jump for a goto: from the end of any chain below, a packet returns to after this line."""
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
        """The line that leads into a branch; a branch of a single line needs no chain, and is that line itself."""
        if len(lines) == 1 and _network(lines[0]).prefixlen >= branch.length:
            yield lines[0]
            return
        chain = f"{self._name}_{branch.value:x}_{branch.length}"
        self._found[chain] = Chain(self._grow(branch, lines, depth))
        yield Line((Within(self._field, branch.network), Goto(chain)))


def _shared_out(branch: _Branch, lines: tuple[Line, ...]) -> list[tuple[_Branch, tuple[Line, ...]]]:
    """Each child of the branch that any line overlaps, with those lines in order."""
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
    """The field that the line compares with a network; None unless there is exactly one such comparison."""
    found = [part.field for part in line.parts if isinstance(part, Within)]
    return found[0] if len(found) == 1 else None


def _network(line: Line) -> Network:
    return next(part.network for part in line.parts if isinstance(part, Within))
