"""Closes ports in a program when the host's inventory changes and there is no view to compile a new one from.

Input: the program in force, the declared endpoints, and the managed ports. Output: a program that allows nothing that
the one in force does not. Groups and rules stay as they are.
"""

from dataclasses import replace
from types import MappingProxyType
from typing import Final

from ringfence.policy.local import LocalPorts
from ringfence.policy.program import names
from ringfence.policy.program.model import NamedSet, Program, StartsWith, VerdictMap, part_of
from ringfence.policy.program.names import TableFamily
from ringfence.policy.program.parts import compile_ports
from ringfence.policy.values import Kind
from ringfence.policy.view import Endpoint

_NOTHING: Final = NamedSet(())


def narrow_program(program: Program, declared: tuple[Endpoint, ...], ports: LocalPorts) -> Program:
    """``program`` reduced to the ``declared`` endpoints, with every other port in ``ports`` closed. O(program).

    An interface keeps its profile if a declared endpoint has that interface, and of its source addresses those that
    the endpoint declares. Nothing is opened, whatever else is declared.
    """
    patterns = {*ports.patterns, *(f"{prefix}*" for prefix in _closed_prefixes(program))}
    local = replace(ports, patterns=tuple(sorted(patterns)))
    # The inventory does not say which are observed: that stays as it is.
    permitted = compile_ports(tuple(replace(one, observe=True) for one in declared), ports.names, local)
    if ports.kind is not Kind.BRIDGED:
        program = part_of(program, TableFamily.INET)
    sets = {name: _narrowed(name, program.sets.get(name, _NOTHING), most) for name, most in permitted.sets.items()}
    maps = {name: _cut(program.maps.get(name, VerdictMap()), most) for name, most in permitted.maps.items()}
    return replace(
        program,
        counters=program.counters | frozenset(permitted.counters),
        sets=MappingProxyType({**program.sets, **sets}),
        maps=MappingProxyType({**program.maps, **maps}),
        chains=MappingProxyType({**program.chains, **permitted.chains}),
    )


def _narrowed(name: str, present: NamedSet, most: NamedSet) -> NamedSet:
    if name in (names.PORTS, names.UPLINKS, names.FRAME_PORTS):  # an interface in these is closed, or all but lifelines
        return replace(most, elements=present.elements | most.elements)
    if most.counted:  # just added rules
        return present if present.counted else most
    return replace(most, elements=present.elements & most.elements)


def _cut(present: VerdictMap, most: VerdictMap) -> VerdictMap:
    kept = {name: chain for name, chain in present.targets.items() if name in most.targets}
    return VerdictMap(MappingProxyType(kept), most.type)


def _closed_prefixes(program: Program) -> frozenset[str]:
    parts = (part for chain in program.chains.values() for line in chain.lines for part in line.parts)
    return frozenset(part.prefix for part in parts if isinstance(part, StartsWith))
