"""Puts added rules in force as set elements first, because for added lines the kernel walks through the whole table.

Input: the actual and the desired program. Output: a way between them by a program that allows exactly what the desired
one allows, with elements of the sets ``names.LATE`` in place of the new lines: one for each endpoint concerned and each
address or network of the peer. A change counts as applied after the first leg.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from itertools import combinations, product
from typing import Final

from ringfence.policy.addresses import Family, Interval, merge_networks
from ringfence.policy.evolving import differing, evolving
from ringfence.policy.program import names
from ringfence.policy.program.delta import Delta, diff_programs, only_widens
from ringfence.policy.program.late import FLOW_PEER, LATE_PROTOCOLS
from ringfence.policy.program.model import (
    Between,
    Chain,
    Count,
    Counted,
    Element,
    Equal,
    Field,
    Foreign,
    Goto,
    Jump,
    Line,
    Member,
    NamedSet,
    Part,
    Program,
    Within,
)
from ringfence.policy.program.steps import DeleteElements
from ringfence.policy.program.waypoints import Leg
from ringfence.policy.values import MAX_PORT, Direction
from ringfence.policy.view import Endpoint

MOST_ELEMENTS: Final = 128  # of one set: the kernel copies all of them for every change
_FAMILY: Final = {field: family for (_, family), field in FLOW_PEER.items()}
_EVERYBODY: Final[dict[Family, frozenset[Element]]] = {
    4: frozenset({Interval(0, (1 << 32) - 1)}),
    6: frozenset({Interval(0, (1 << 128) - 1)}),
}
_NO_CHAIN: Final = Chain(())

Endpoints = tuple[Endpoint, ...]
_End = Interval | str
_Late = dict[str, set[Counted]]  # set -> elements to add


def hasten(actual: Program, desired: Program, endpoints: Endpoints) -> tuple[Leg, ...]:
    """Three legs: add the elements, add the lines, delete the elements. No legs where that would not spare the walk.

    Before the last leg, no packet may still be under way through the lines as they were before the second: those need
    the elements. ``endpoints`` are those that ``desired`` was compiled from. O(what differs), and O(endpoints) if a
    rule was added.
    """
    late = _find_late(actual, desired, endpoints)
    if late is None:
        return ()
    filled = {name: replace(desired.sets[name], elements=frozenset(elements)) for name, elements in late.items()}
    between = replace(desired, sets=evolving(desired.sets).evolve(filled))
    hasty = replace(between, chains=actual.chains)
    first = diff_programs(actual, hasty)
    # In such a set the kernel hides deleted elements a moment before it shows added ones: a packet that both allow
    # would find neither.
    if first.narrows:
        return ()
    gone = tuple(DeleteElements(name, desired.sets[name], tuple(elements)) for name, elements in sorted(late.items()))
    # The last leg narrows nothing, because the lines allow the same: no flow need be judged again.
    return Leg(first, hasty), Leg(diff_programs(hasty, between), between), Leg(Delta(flip=gone), desired)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a rule's line matches, apart from the instance that it is about."""

    family: Family
    peers: AbstractSet[Element]
    service: tuple[Interval, Interval]
    counter: str


def _find_late(actual: Program, desired: Program, endpoints: Endpoints) -> _Late | None:
    """The elements for the lines of added rules; None if there are none, or if chains differ in anything else."""
    late: _Late = defaultdict(set)
    differ = differing(actual.chains, desired.chains)
    for name in differ:
        old = actual.chains.get(name, _NO_CHAIN)
        if not names.is_of_policy(name) or not only_widens(old, desired.chains.get(name)):
            return None
        present = frozenset(old.lines)
        coming = [line for line in desired.chains[name].lines if line not in present]
        if group := names.parse_group_chain(name):
            wearing = [one for one in endpoints if group[0] in one.groups]
            if not all(_add(late, line, desired, (group[1], wearing)) for line in coming):
                return None
        elif not all(_asks_new(line, actual) for line in coming):
            return None
    return late if differ and all(map(_fit, late.values())) else None


def _asks_new(line: Line, actual: Program) -> bool:
    """Whether the line is a profile's jump to a group that had no rules before."""
    match line.parts:
        case (Jump(chain),):
            return chain not in actual.chains
        case _:
            return False


def _add(late: _Late, line: Line, desired: Program, whose: tuple[Direction, list[Endpoint]]) -> bool:
    """Adds the elements for a group's line to ``late``; False if there can be none. ``whose``: direction, wearers."""
    asked = _parse(line, desired.sets)
    if asked is None:
        return False
    direction, wearing = whose
    ends = frozenset(_ends(desired, wearing, asked.family))
    if len(asked.peers) * len(ends) > MOST_ELEMENTS:
        return False
    keys = product(map(_interval, asked.peers), ends)
    late[names.LATE[direction, asked.family]].update(Counted((*key, *asked.service), asked.counter) for key in keys)
    return True


def _parse(line: Line, sets: Mapping[str, NamedSet]) -> _Asked | None:
    """What the line matches; None unless it is the line of a rule for one of ``LATE_PROTOCOLS``."""
    protocol, port = None, Interval(0, MAX_PORT)
    found, counter = None, None
    for part in line.parts:
        match part:
            case Equal(Field.PROTOCOL, int(number)) if number in LATE_PROTOCOLS:
                protocol = Interval(number, number)
            case Equal(Field.FLOW_PORT | Field.FLOW_ASKED_PORT, int(number)):
                port = Interval(number, number)
            case Between(Field.FLOW_PORT | Field.FLOW_ASKED_PORT, first, last):
                port = Interval(first, last)
            case Count(name):
                counter = name
            case Goto(names.ALLOW):
                pass
            case _ if found is None and (found := _peers(part, sets)):
                pass
            case _:
                return None
    if found is None or counter is None or protocol is None:
        return None
    return _Asked(*found, (protocol, port), counter)


def _peers(part: Part | Foreign, sets: Mapping[str, NamedSet]) -> tuple[Family, AbstractSet[Element]] | None:
    match part:
        case Equal(Field.FAMILY, 4):
            return 4, _EVERYBODY[4]
        case Equal(Field.FAMILY, 6):
            return 6, _EVERYBODY[6]
        case Within(field, network) if field in _FAMILY:
            return _FAMILY[field], frozenset(merge_networks((network,), _FAMILY[field]))
        case Member((field,), set_) if field in _FAMILY:
            return _FAMILY[field], sets[set_].elements
        case _:
            return None


def _ends(program: Program, endpoints: list[Endpoint], family: Family) -> Iterator[_End]:
    """The keys by which the program's maps find the endpoints: interface names, or addresses behind a bridge."""
    for one in endpoints:
        for key in (str(one.interface), *one.own_addresses):
            if not any(key in map_.targets for map_ in program.maps.values()):
                continue
            if isinstance(key, str):
                yield key
            elif key.version == family:
                yield Interval(int(key), int(key))


def _interval(element: Element) -> Interval:
    """The addresses that an element of a group's set stands for."""
    match element:
        case Interval():
            return element
        case (IPv4Address() | IPv6Address() as address,):
            return Interval(int(address), int(address))
        case _:
            raise TypeError(f"no addresses: {element}")


def _fit(elements: set[Counted]) -> bool:
    """Whether one set can hold them: not too many, and no two that overlap."""
    return len(elements) <= MOST_ELEMENTS and not any(
        all(map(_meet, one.key, other.key)) for one, other in combinations(elements, 2)
    )


def _meet(one: _End, other: _End) -> bool:
    if isinstance(one, Interval) and isinstance(other, Interval):
        return one.first <= other.last and other.first <= one.last
    return one == other
