"""Finds the instances that cannot be enforced, and leaves them out, so that all others still are.

Input: a view, and what failed: the compilation, or objects of the program that the kernel refused. Output: programs,
and the interfaces to leave out, which stay closed, each with the reason. Pure, with the compiler as an argument.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from ringfence.agent.own_view import only_worn
from ringfence.policy.local import LocalPorts
from ringfence.policy.program.model import Program
from ringfence.policy.values import InterfaceName, Revision
from ringfence.policy.view import Endpoint, HostView

Compile = Callable[[HostView, LocalPorts], Program]
Blamed = Mapping[InterfaceName, str]  # interfaces that must stay closed, each with the reason


def compile_sound(view: HostView, ports: LocalPorts, compile_: Compile) -> tuple[Program, tuple[str, ...]]:
    """The program without the endpoints that do not compile even alone, and a sentence for each of those.

    O(endpoints * members) when one does not, else as ``compile_``.
    """
    with suppress(Exception):  # whatever it is, one instance must not keep the others from converging
        return compile_(view, ports), ()
    sound, refused = [], []
    for endpoint in view.endpoints:
        try:
            compile_(only_worn(replace(view, endpoints=(endpoint,))), ports)
            sound.append(endpoint)
        except Exception as error:  # noqa: BLE001  whatever it is, the others go on
            refused.append(_stays_closed(endpoint, f"{type(error).__name__}: {error}"))
    return compile_(only_worn(replace(view, endpoints=tuple(sound))), ports), tuple(refused)


def find_blamed(view: HostView, ports: LocalPorts, words: Mapping[str, str], compile_: Compile) -> Blamed:
    """The endpoints whose own rules need a refused object; none when only shared objects were refused.

    ``words``: the kernel's reason for each refused object. O(combinations of groups * their rules and members).
    """
    shared = _objects(compile_(HostView(Revision(0)), ports))
    suspects = words.keys() - shared
    if not suspects:
        return {}
    blamed: dict[InterfaceName, str] = {}
    for groups in sorted({endpoint.groups for endpoint in view.endpoints}):
        wearing = [endpoint for endpoint in view.endpoints if endpoint.groups == groups]
        program = compile_(only_worn(replace(view, endpoints=tuple(wearing[:1]))), ports)
        found = sorted(suspects & _objects(program))
        blamed |= {endpoint.interface: words[found[0]] for endpoint in wearing if found}
    return blamed


def leave_out(view: HostView, blamed: Blamed) -> tuple[HostView, tuple[str, ...]]:
    """The view without the blamed interfaces, and a sentence for each of those."""
    kept = tuple(endpoint for endpoint in view.endpoints if endpoint.interface not in blamed)
    said = tuple(
        _stays_closed(endpoint, f"the kernel refused its rules: {blamed[endpoint.interface]}")
        for endpoint in view.endpoints
        if endpoint.interface in blamed
    )
    return only_worn(replace(view, endpoints=kept)), said


def _stays_closed(endpoint: Endpoint, why: str) -> str:
    return f"instance {endpoint.name!r} stays closed: {why}"


def _objects(program: Program) -> frozenset[str]:
    return frozenset((*program.counters, *program.sets, *program.maps, *program.chains))
