"""Rules that were just added as elements, which the kernel takes at once, until their lines are there.

Input: the program that the kernel holds, and the one that is wanted. Output: programs on the way there, which allow
just what the wanted one allows. They differ from it by lines that are not there yet, and by the elements of
``names.LATE`` that stand for them: one for each instance concerned and each address or network of the peer.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from itertools import product
from typing import Final

from ringfence.policy.addresses import Family, Interval, merge_networks
from ringfence.policy.evolving import Patched, differing
from ringfence.policy.program import names
from ringfence.policy.program.delta import Delta, diff_programs
from ringfence.policy.program.late import FLOW_PEER, LATE_PROTOCOLS
from ringfence.policy.program.model import (
    Between,
    Chain,
    Count,
    Counted,
    Element,
    ElementType,
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
from ringfence.policy.program.steps import AddElements, DeleteElements, Step
from ringfence.policy.values import MAX_PORT, Direction
from ringfence.policy.view import Endpoint

MOST_ELEMENTS: Final = 128  # of one set: the kernel copies all of them for every change
_MAPS: Final[dict[tuple[Direction, Family], tuple[str, ...]]] = {
    (Direction.INGRESS, 4): (names.INGRESS_MAP, names.INGRESS4_MAP),
    (Direction.INGRESS, 6): (names.INGRESS_MAP, names.INGRESS6_MAP),
    (Direction.EGRESS, 4): (names.EGRESS_MAP, names.EGRESS4_MAP),
    (Direction.EGRESS, 6): (names.EGRESS_MAP, names.EGRESS6_MAP),
}
_FAMILY: Final = {field: family for (_, family), field in FLOW_PEER.items()}
_EVERYBODY: Final[dict[Family, frozenset[Element]]] = {
    4: frozenset({Interval(0, (1 << 32) - 1)}),
    6: frozenset({Interval(0, (1 << 128) - 1)}),
}
_End = Interval | str
_Key = tuple[_End, ...]  # peer, instance, protocol, port: joined as ``late`` asks for them
_NO_CHAIN: Final = Chain(())

Endpoints = tuple[Endpoint, ...]
_Coming = Mapping[str, tuple[Line, ...]]  # chain -> the lines of it that are not there yet
_Late = defaultdict[str, set[Counted]]  # set -> its elements


def hasten(actual: Program, desired: Program, endpoints: Endpoints) -> Program | None:
    """What allows the same as ``desired``, with what rules it has more as elements; None where that spares no walk.

    ``endpoints`` are those that ``desired`` was made of. O(what differs, endpoints, MOST_ELEMENTS squared).
    """
    coming = _find_coming(actual, desired)
    if not coming:
        return None
    late = _still_wanted(actual, desired, coming, endpoints)
    for asked in _asked_by(coming, desired, endpoints):
        if asked is None or not _add(late, asked):
            return None
    shortened = {name: _without_lines(desired.chains[name], lines) for name, lines in coming.items()}
    found = replace(_with_late(desired, late), chains=Patched(desired.chains, shortened))
    delta = diff_programs(actual, found)
    # The kernel shows what comes into such a set a moment after it hides the lines that go: a packet that both allow
    # would find neither.
    is_seamless = not delta.narrows or not any(_is_late(step) for step in delta.flip)
    return found if is_seamless and not delta.walks else None


def linger(actual: Program, desired: Program, endpoints: Endpoints) -> Program:
    """``desired``, and of the elements in ``actual`` those that stand for lines which come.

    A packet on its way through the lines of before looks an element up as the sets are now: it must still find it.
    """
    late = _still_wanted(actual, desired, _find_coming(actual, desired), endpoints)
    return _with_late(desired, late) if late else desired


def drop_late(lingering: Program, desired: Program) -> Delta:
    """From what ``linger`` gave to ``desired``, when nothing is under way through lines of before. Narrows nothing."""
    gone = ((name, lingering.sets[name], desired.sets[name]) for name in names.LATE.values())
    steps = (DeleteElements(name, new, tuple(old.elements - new.elements)) for name, old, new in gone)
    return Delta(flip=tuple(step for step in steps if step.elements))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a rule's line asks for, and of whom."""

    set: str
    peers: frozenset[Element]
    ends: frozenset[_End]
    service: tuple[Interval, ...]
    counter: str

    def holds(self, key: _Key) -> bool:
        peer, end, *service = key
        return (
            end in self.ends
            and any(_lies_in(peer, _interval(one)) for one in self.peers)
            and all(_lies_in(mine, whole) for mine, whole in zip(service, self.service, strict=True))
        )


def _find_coming(actual: Program, desired: Program) -> _Coming:
    """The lines of rules that are not there yet, and those by which a profile asks a group for its first one."""
    found = {}
    for name in differing(actual.chains, desired.chains):
        if name in desired.chains and names.is_of_policy(name):
            old = frozenset(actual.chains[name].lines) if name in actual.chains else frozenset()
            new = (line for line in desired.chains[name].lines if line not in old)
            found[name] = tuple(line for line in new if _can_wait(name, line, actual))
    return {name: lines for name, lines in found.items() if lines}


def _can_wait(name: str, line: Line, actual: Program) -> bool:
    if names.parse_group_chain(name):
        return True
    match line.parts:
        case (Jump(chain),):
            return names.parse_group_chain(chain) is not None and not actual.chains.get(chain, _NO_CHAIN).lines
        case _:
            return False


def _asked_by(coming: _Coming, desired: Program, endpoints: Endpoints) -> Iterator[_Asked | None]:
    """What each of the lines of groups asks for; None for one that is no rule's that ``late`` can stand for."""
    for name, lines in sorted(coming.items()):
        if found := names.parse_group_chain(name):
            group, direction = found
            wearing = [endpoint for endpoint in endpoints if group in endpoint.groups]
            yield from (_parse(line, direction, desired, wearing) for line in lines)


def _ends(program: Program, direction: Direction, family: Family, wearing: list[Endpoint]) -> frozenset[_End]:
    """How packets tell the instances apart: by those keys that the program has for them."""
    name = next(name for name in _MAPS[direction, family] if name in program.maps)
    known = program.maps[name].targets
    if program.maps[name].type is ElementType.INTERFACE:
        return frozenset(str(one.interface) for one in wearing if str(one.interface) in known)
    own = (address for one in wearing for address in one.own_addresses if address in known)
    return frozenset(Interval(int(address), int(address)) for address in own)


def _parse(line: Line, direction: Direction, desired: Program, wearing: list[Endpoint]) -> _Asked | None:
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
            case _ if found is None and (found := _peer(part, desired.sets)):
                pass
            case _:
                return None
    if found is None or counter is None or protocol is None:
        return None
    family, peers = found
    ends = _ends(desired, direction, family, wearing)
    return _Asked(names.LATE[direction, family], peers, ends, (protocol, port), counter)


def _peer(part: Part | Foreign, sets: Mapping[str, NamedSet]) -> tuple[Family, frozenset[Element]] | None:
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


def _add(late: _Late, asked: _Asked) -> bool:
    """Whether there was room for what is asked; of it only what no element holds yet, for the kernel wants no two."""
    taken = late[asked.set]
    if len(asked.peers) * len(asked.ends) > MOST_ELEMENTS:
        return False
    for peer, end in product(map(_interval, asked.peers), asked.ends):
        pieces: list[_Key] = [(peer, end, *asked.service)]
        for one in taken:
            if one.key[1] == end:
                pieces = [left for piece in pieces for left in _left_of(piece, one.key)]
        taken |= {Counted(piece, asked.counter) for piece in pieces}
    return len(taken) <= MOST_ELEMENTS


def _left_of(key: _Key, taken: _Key) -> Iterator[_Key]:
    """What of a key another of the same instance does not take: at most two pieces by each of its intervals."""
    if any(_apart(mine, theirs) for mine, theirs in zip(key, taken, strict=True)):
        yield key
        return
    for at, (mine, theirs) in enumerate(zip(key, taken, strict=True)):
        if isinstance(mine, Interval) and isinstance(theirs, Interval):
            before, after = key[:at], key[at + 1 :]
            if mine.first < theirs.first:
                yield (*before, Interval(mine.first, theirs.first - 1), *after)
            if theirs.last < mine.last:
                yield (*before, Interval(theirs.last + 1, mine.last), *after)
            key = (*before, Interval(max(mine.first, theirs.first), min(mine.last, theirs.last)), *after)


def _apart(one: _End, other: _End) -> bool:
    if isinstance(one, Interval) and isinstance(other, Interval):
        return one.last < other.first or other.last < one.first
    return one != other


def _still_wanted(actual: Program, desired: Program, coming: _Coming, endpoints: Endpoints) -> _Late:
    """The elements that are there for rules whose lines still are not."""
    found: _Late = defaultdict(set)
    present = {name: actual.sets[name].elements for name in names.LATE.values() if name in actual.sets}
    if any(present.values()):
        for asked in filter(None, _asked_by(coming, desired, endpoints)):
            counted = (one for one in present.get(asked.set, ()) if isinstance(one, Counted))
            found[asked.set] |= {one for one in counted if one.counter == asked.counter and asked.holds(one.key)}
    return found


def _lies_in(one: _End, whole: Interval) -> bool:
    return isinstance(one, Interval) and whole.first <= one.first and one.last <= whole.last


def _interval(element: Element) -> Interval:
    """The addresses that an element of a group's set, or a network, stands for."""
    match element:
        case Interval():
            return element
        case (IPv4Address() | IPv6Address() as address,):
            return Interval(int(address), int(address))
        case _:
            raise TypeError(f"no addresses: {element}")


def _is_late(step: Step) -> bool:
    """Whether it makes rules elements."""
    return isinstance(step, AddElements) and step.shape.counted


def _without_lines(chain: Chain, lines: tuple[Line, ...]) -> Chain:
    gone = frozenset(lines)
    return replace(chain, lines=tuple(line for line in chain.lines if line not in gone))


def _with_late(program: Program, late: _Late) -> Program:
    """The program with more elements in its sets for them."""
    sets = {
        name: replace(program.sets[name], elements=program.sets[name].elements | elements)
        for name, elements in late.items()
        if elements
    }
    return replace(program, sets=Patched(program.sets, sets)) if sets else program
