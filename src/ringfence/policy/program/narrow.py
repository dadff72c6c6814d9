"""A program less what the host's own inventory takes away: for a host that knows no view to compile a new one from.

Input: the program in force, the endpoints that are declared now, and the ports under our care. Output: a program under
which nothing passes that did not pass before. It knows neither groups nor rules: those stay as the program has them.
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
    """``program`` with every port in ``ports`` closed that it does not programme, and cut to what is ``declared``.

    An interface keeps its profile if one of ``declared`` has it, and of what may be sent from it what that one has
    too. Nothing is opened, whatever else they declare. O(program).
    """
    patterns = {*ports.patterns, *(f"{prefix}*" for prefix in _closed_prefixes(program))}
    local = replace(ports, patterns=tuple(sorted(patterns)))
    # Whether one is observed the inventory does not say: it stays as it is.
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
    if name in (names.PORTS, names.UPLINKS, names.FRAME_PORTS):  # being in it closes, but for the lifelines of a host
        return replace(most, elements=present.elements | most.elements)
    if most.counted:  # rules, that are not lines yet
        return present if present.counted else most
    return replace(most, elements=present.elements & most.elements)


def _cut(present: VerdictMap, most: VerdictMap) -> VerdictMap:
    kept = {name: chain for name, chain in present.targets.items() if name in most.targets}
    return VerdictMap(MappingProxyType(kept), most.type)


def _closed_prefixes(program: Program) -> frozenset[str]:
    parts = (part for chain in program.chains.values() for line in chain.lines for part in line.parts)
    return frozenset(part.prefix for part in parts if isinstance(part, StartsWith))
