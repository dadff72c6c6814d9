"""Gates: the elements by which a port's packets are taken for an instance's own. They close first, and open last.

A packet passes several hooks, and at each it meets what is in force by then. A gate says "an instance's own: its rules
will judge it"; were the instance unknown where its rules are asked, it would be a stranger's packet there, and pass. So
whatever a gate lets pass, the rest must know, from before the first packet until after the last one under way:

- gates that lead nowhere any more are shut before the rest is changed;
- those of the bridge table also are the last that a packet meets, so they open after the rest was changed. In the inet
  table they are the first, and may open together with it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ringfence.policy.evolving import change_members, differing_members, evolving
from ringfence.policy.program import names
from ringfence.policy.program.model import Element, NamedSet, Program, Scalar


def find_stops(actual: Program, desired: Program) -> Iterator[Program]:
    """The programs to go through: none where no gate closes, and none opens in the bridge table. O(what differs)."""
    differ = {name: _differing(name, actual, desired) for name in (*names.OWN_SETS, *names.FRAME_SETS)}
    # A port whose MAC address becomes declared, or no longer is: both ways of recognising it change with the rest.
    stay = _ports(differ[names.ANY_MAC]) & _ports(differ[names.OWN_MAC])
    shut: dict[str, NamedSet] = {}
    ajar: dict[str, NamedSet] = {}
    for name, elements in differ.items():
        if lost := [one for one in elements if one in actual.sets[name].elements and one[0] not in stay]:
            shut[name] = _without(actual.sets[name], lost)
        gained = [one for one in elements if one in desired.sets[name].elements]
        if gained and name in names.FRAME_SETS:
            ajar[name] = _without(desired.sets[name], gained)
    if shut:
        yield _with(actual, shut)
    if ajar:
        yield _with(desired, ajar)


def _differing(name: str, actual: Program, desired: Program) -> list[tuple[Scalar, ...]]:
    """What only one of the two has in a gate. A table that is made, or that goes, has nothing to be in step with."""
    present, wanted = actual.sets.get(name), desired.sets.get(name)
    if present is wanted or present is None or wanted is None:
        return []
    return [one for one in differing_members(present.elements, wanted.elements) if isinstance(one, tuple)]


def _ports(elements: Iterable[tuple[Scalar, ...]]) -> set[Scalar]:
    return {element[0] for element in elements}


def _without(set_: NamedSet, elements: Iterable[Element]) -> NamedSet:
    return replace(set_, elements=change_members(set_.elements, (), elements))


def _with(program: Program, sets: Mapping[str, NamedSet]) -> Program:
    return replace(program, sets=evolving(program.sets).evolve(sets))
