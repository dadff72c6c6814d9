"""All addresses, in equivalence classes that no rule can tell apart: every exact answer is computed over these.

Two instances' addresses are in one class when they wear the same groups, are members of the same groups, and are in
the same networks among all that any rule or source names; addresses of no instance, when they are in the same networks.
A set of classes is an integer with one bit for each class. Several snapshots can share one population, to be compared.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import or_
from typing import Final

from ringfence.policy.addresses import FAMILIES, Family
from ringfence.policy.insight.address_axis import INTERNET, PRIVATE, UNICAST, WHOLE, position, span_of
from ringfence.policy.insight.crowds import Crowds
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.model import GroupPeer
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import Address, GroupId, InstanceId, InterfaceName, Kind
from ringfence.policy.view import Endpoint, HostView, resolve_view

Span = tuple[int, int]
NOBODY: Final = 0
_FEW: Final = 64
_PLACES: Final = tuple(tuple(place for place in range(8) if octet >> place & 1) for octet in range(256))


@dataclass(frozen=True, slots=True)
class Role:
    """What rules see of an instance's address in one snapshot; ``member_of``: by membership, not by external source."""

    groups: tuple[GroupId, ...]
    member_of: frozenset[GroupId]
    observe: bool
    is_host: bool


@dataclass(frozen=True, slots=True)
class Dweller:
    """One address of one instance's managed interface."""

    instance: InstanceId
    name: str
    interface: InterfaceName
    address: Address


@dataclass(frozen=True, slots=True)
class Class:
    """Addresses that no rule tells apart. ``roles`` has one per snapshot (None: not there); none for no instance."""

    family: Family
    roles: tuple[Role | None, ...]
    dwellers: tuple[Dweller, ...]
    addresses: Intervals


@dataclass(slots=True)
class Region:
    """A network that a rule or source names, in the tree of all of these. Its classes are ``begin`` to ``end - 1``."""

    span: Span
    parent: "Region | None"
    gaps: list[Span] = field(default_factory=list)
    begin: int = 0
    end: int = 0

    @property
    def bits(self) -> int:
        """Its classes, including those of narrower networks."""
        return (1 << self.end) - (1 << self.begin)


class Population:
    """The classes of one or several snapshots. Making it costs O(n log n) in instances, rules and sources."""

    def __init__(self, *snapshots: Snapshot) -> None:
        self.snapshots = snapshots
        self.crowds = Crowds()
        self.views = tuple(resolve_view(snapshot) for snapshot in snapshots)
        self.regions = _tree({span for snapshot in snapshots for span in _spans_named(snapshot)})
        self._region_at = {region.span: region for region in self.regions}
        self.classes: list[Class] = []
        self._region_of: list[Region] = []
        self._living_at: dict[int, list[int]] = defaultdict(list)
        self._settle(_dwellers(self.views))
        self.outside = self._where(lambda one: not one.roles)
        # Without the classes of instances that exist in another snapshot only.
        self.present = tuple(self._where(partial(_is_there, n)) for n in range(len(snapshots)))
        self.family = {family: self._in_family(family) for family in FAMILIES}
        self.worn = tuple(self._by_group(n, worn=True) for n in range(len(snapshots)))
        members = tuple(self._by_group(n, worn=False) for n in range(len(snapshots)))
        self.peers = tuple(self._with_sources(n, found) for n, found in enumerate(members))
        self.internet = self._where(lambda one: not one.roles and one.addresses <= INTERNET)

    @property
    def everybody(self) -> int:
        """All classes."""
        return (1 << len(self.classes)) - 1

    def within(self, span: Span) -> int:
        """The classes within a network that the population was made with."""
        return self._region_at[span].bits

    def living_at(self, points: Iterable[int]) -> int:
        """The classes of instances that have an address at one of ``points``."""
        return bits_of(number for point in points for number in self._living_at.get(point, ()))

    def regions_around(self, number: int) -> Iterator[Span]:
        """The networks around a class, the narrowest first."""
        region: Region | None = self._region_of[number]
        while region is not None:
            yield region.span
            region = region.parent

    def chosen(self, bits: int) -> Iterator[Class]:
        """The classes of a set."""
        return (self.classes[number] for number in numbers_of(bits))

    def addresses(self, bits: int) -> Intervals:
        """The addresses of a set of classes."""
        return Intervals.union(span for one in self.chosen(bits) for span in one.addresses)

    def _where(self, holds: Callable[[Class], bool]) -> int:
        return bits_of(number for number, one in enumerate(self.classes) if holds(one))

    def _in_family(self, family: Family) -> int:
        return self._where(lambda one: one.family == family)

    def _by_group(self, version: int, *, worn: bool) -> dict[GroupId, int]:
        found: dict[GroupId, list[int]] = defaultdict(list)
        for number, one in enumerate(self.classes):
            role = one.roles[version] if one.roles else None
            for group in () if role is None else role.groups if worn else role.member_of:
                found[group].append(number)
        return {group: bits_of(numbers) for group, numbers in found.items()}

    def _with_sources(self, version: int, members: dict[GroupId, int]) -> dict[GroupId, int]:
        found = dict(members)
        for group in self.snapshots[version].groups.values():
            for source in group.sources:
                found[group.id] = found.get(group.id, NOBODY) | self.within(span_of(source.network))
        return found

    def _settle(self, dwellers: dict[int, list[tuple[Dweller, tuple[Role | None, ...]]]]) -> None:
        """Numbers the classes in the order of the tree, so that those of a network are consecutive."""
        taken = sorted(dwellers)
        for region in self.regions:
            region.begin = len(self.classes)
            free, here = _split(region.gaps, taken)
            family: Family = 4 if region.span[1] <= WHOLE[4][1] else 6
            if outside := free & UNICAST:
                self.classes.append(Class(family, (), (), outside))
            kinds: dict[tuple[Role | None, ...], list[Dweller]] = defaultdict(list)
            for point in here:
                for dweller, roles in dwellers[point]:
                    kinds[roles].append(dweller)
            for roles, found in kinds.items():
                places = sorted({position(one.address) for one in found})
                points = Intervals.union((place, place) for place in places)
                for place in places:
                    self._living_at[place].append(len(self.classes))
                self.classes.append(Class(family, roles, tuple(found), points))
            self._region_of += [region] * (len(self.classes) - region.begin)
            above: Region | None = region
            while above is not None:
                above.end = len(self.classes)
                above = above.parent


def _is_there(version: int, one: Class) -> bool:
    return not one.roles or one.roles[version] is not None


def bits_of(numbers: Iterable[int]) -> int:
    """A set of classes from their numbers. O(n)."""
    octets = bytearray()
    for number in numbers:
        if (at := number >> 3) >= len(octets):
            octets.extend(bytes(at + 1 - len(octets)))
        octets[at] |= 1 << (number & 7)
    return int.from_bytes(octets, "little")


def union_of(sets: Iterable[int]) -> int:
    """The union of sets of classes."""
    return reduce(or_, sets, 0)


def numbers_of(bits: int) -> Iterator[int]:
    """The numbers of the classes of a set, ascending. O(octets of the set)."""
    if bits.bit_count() <= _FEW:
        while bits:
            low = bits & -bits
            yield low.bit_length() - 1
            bits ^= low
        return
    for at, octet in enumerate(bits.to_bytes((bits.bit_length() + 7) // 8, "little")):
        if octet:
            for place in _PLACES[octet]:
                yield at << 3 | place


def _spans_named(snapshot: Snapshot) -> Iterator[Span]:
    yield from (WHOLE[family] for family in FAMILIES)
    yield from map(span_of, PRIVATE)
    for group in snapshot.groups.values():
        yield from (span_of(source.network) for source in group.sources)
        for rule in group.rules:
            if not isinstance(rule.peer, GroupPeer):
                yield span_of(rule.peer.network)


def _tree(spans: set[Span]) -> list[Region]:
    """Networks as a tree, each before those within it; ``gaps`` are the parts of a network that none of these has."""
    regions: list[Region] = []
    open_: list[tuple[Region, int]] = []  # each with the first of its points that is not looked at yet

    def close() -> None:
        region, at = open_.pop()
        if at <= region.span[1]:
            region.gaps.append((at, region.span[1]))

    for first, last in sorted(spans, key=lambda span: (span[0], -span[1])):
        while open_ and open_[-1][0].span[1] < first:
            close()
        if open_:
            around, at = open_[-1]
            if at < first:
                around.gaps.append((at, first - 1))
            open_[-1] = (around, last + 1)
        region = Region((first, last), open_[-1][0] if open_ else None)
        regions.append(region)
        open_.append((region, first))
    while open_:
        close()
    return regions


def _split(gaps: Iterable[Span], taken: Sequence[int]) -> tuple[Intervals, list[int]]:
    """The addresses in the gaps that no instance has, and those of ``taken`` that are in them."""
    free: list[Span] = []
    here: list[int] = []
    for first, last in gaps:
        inside = taken[bisect_left(taken, first) : bisect_right(taken, last)]
        here += inside
        begin = first
        for point in inside:
            if begin < point:
                free.append((begin, point - 1))
            begin = point + 1
        if begin <= last:
            free.append((begin, last))
    return Intervals.union(free), here


def _dwellers(views: Sequence[HostView]) -> dict[int, list[tuple[Dweller, tuple[Role | None, ...]]]]:
    """The instances' addresses by position, each with its role in each view."""
    homes: dict[Dweller, list[Role | None]] = {}
    for version, view in enumerate(views):
        member_of = _memberships(view)
        for endpoint in view.endpoints:
            for address in endpoint.addresses:
                dweller = Dweller(endpoint.instance, endpoint.name, endpoint.interface, address)
                homes.setdefault(dweller, [None] * len(views))[version] = _role(endpoint, member_of[address])
    found: dict[int, list[tuple[Dweller, tuple[Role | None, ...]]]] = defaultdict(list)
    for dweller, roles in homes.items():
        if (point := position(dweller.address)) in UNICAST:
            found[point].append((dweller, tuple(roles)))
    return found


def _memberships(view: HostView) -> dict[Address, frozenset[GroupId]]:
    """The groups that each address is a member of; several instances may share an address."""
    found: dict[Address, frozenset[GroupId]] = {}
    for endpoint in view.endpoints:
        for address in endpoint.addresses:
            groups = frozenset(endpoint.groups)
            found[address] = found[address] | groups if address in found else groups
    return found


def _role(endpoint: Endpoint, member_of: frozenset[GroupId]) -> Role:
    return Role(endpoint.groups, member_of, endpoint.observe, endpoint.kind is Kind.SELF)
