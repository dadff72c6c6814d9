"""The comparison of program and verdict can fail: each fault planted in the compiler, or in the delta, is found."""

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import HealthCheck, given, seed, settings

from counts import count
from generated import MANAGED, PORTS, changed, differences, dweller, mac_at, snapshots, ways
from policies import group, group_id, snapshot
from ringfence.policy.addresses import FAMILIES
from ringfence.policy.model import GroupPeer
from ringfence.policy.program import base_chains, lines, parts
from ringfence.policy.program import compile as compile_module
from ringfence.policy.program import delta as delta_module
from ringfence.policy.program.base_chains import ALLOW
from ringfence.policy.program.delta import diff_programs
from ringfence.policy.program.model import Accept, Between, Chain, Drop, Equal, Field, Goto, Line, NotOpening, Within
from ringfence.policy.values import Direction
from ringfence.policy.view import resolve_view
from simulator import again, answered, simulate

COUNT = count(reduced=6, stated=60)
_EVERY_EDGE = 4000
_EVERY_FLOW = 1000


@cache
def _corpus():
    """Policies and changes of them, the same every time."""
    found = [*_wide()]

    @seed(1)
    @settings(max_examples=COUNT, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(snapshots().flatmap(lambda before: changed(before).map(lambda after: (before, after))))
    def collect(pair):
        found.append(pair)

    collect()
    return found


def _wide():
    """A policy with a rule of every kind, so that no fault depends on luck, as it loses some, and as it loses one."""
    groups = (
        group(
            "app",
            "ingress icmp/8/0 from 0.0.0.0/0",
            "ingress icmpv6/128/1 from group db",
            "ingress icmp/3 from 0.0.0.0/0",
            "ingress tcp/80-443 from group db",
            "ingress ah from ::/0",
            "source 198.51.100.0/24",
        ),
        group("db", "egress tcp/22-8080 to group app", "egress udp/53 to 0.0.0.0/0", "ingress gre from 10.77.0.0/30"),
        group("empty"),
        group("lone", "ingress esp from group empty", "ingress udp/53 from 198.51.100.0/28"),
    )
    worn = {"alpha": ("app",), "bravo": ("db",), "charlie": ("app", "db", "lone"), "delta": ()}
    dwellers = [dweller(node, [group_id(name) for name in worn[node.name]]) for node in MANAGED]
    poorer = [replace(one, rules=one.rules[1:], sources=()) for one in groups]
    without_one = [replace(groups[0], rules=groups[0].rules[1:]), *groups[1:]]
    whole = snapshot(*groups, *dwellers)
    return (whole, snapshot(*poorer, *dwellers)), (whole, snapshot(*without_one, *dwellers))


def _first_difference():
    """The first way in which program and verdict disagree anywhere in the corpus."""
    for number, (before, after) in enumerate(_corpus()):
        # All edges of the first ones, whose rules were chosen for the faults: whether they are found must not be luck.
        edges, flows = (_EVERY_EDGE if number == 0 else 100), (_EVERY_FLOW if number == 1 else 40)
        if found := differences(before, number, edges) or _uncut(before, after, number, flows):
            return found[0]
    return None


def _uncut(before, after, number, count):
    """Flows whose packets pass or stop after the change, in either direction, against the verdict."""
    view, next_view = resolve_view(before), resolve_view(after)
    program, next_program = (compile_module.compile_program(each, PORTS) for each in (view, next_view))
    generation = 2 if diff_programs(program, next_program).narrows else 1
    found = []
    for way in ways(view, number, count):
        opened = way.crossing()
        if opened.flow is None or not simulate(program, opened, 1).passed:
            continue
        for later in (again(opened), answered(opened, mac=mac_at(way.destination))):
            alone = replace(later, flow=replace(later.flow))
            lives = way.under(next_view).judged(next_view).allowed
            if simulate(next_program, alone, generation).passed is not lives:
                found.append(f"{way}: lives is {lives}")
    return found


def _wrapped(module, name, change):
    """A patch: the function's answer, changed."""
    original = getattr(module, name)
    return lambda patch: patch.setattr(module, name, lambda *args, **kw: change(original(*args, **kw), *args))


def _always_open(chains, *_):
    for name, chain in chains:
        if name.endswith("_out"):
            yield name, Chain((*chain.lines[:-1], Line((Goto(ALLOW),))), chain.hook)
        else:
            yield name, chain


def _always_restricted(chains, *_):
    for name, chain in chains:
        yield name, Chain((*chain.lines[:-1], Line((Drop(),))), chain.hook) if name.endswith("_out") else chain


def _only_first_group(chains, *_):
    for name, chain in chains:
        yield name, Chain((*chain.lines[:2], chain.lines[-1]) if name.startswith("p_") else chain.lines, chain.hook)


def _open_when_empty(matches, rule, _field, family, peers):
    nobody = isinstance(rule.peer, GroupPeer) and not peers[rule.peer.group, family]
    return [Equal(Field.FAMILY, family)] if nobody else list(matches)


def _one_bit_wider(matches, *_):
    for match in matches:
        if isinstance(match, Within) and match.network.prefixlen > 1:
            yield replace(match, network=match.network.supernet())
        else:
            yield match


def _no_parts(wanted):
    def change(chains, *_):
        for name, chain in chains:
            kept = tuple(line for line in chain.lines if not any(isinstance(part, wanted) for part in line.parts))
            yield name, Chain(kept, chain.hook)

    return change


def _trusting(chains, *_):
    for name, chain in chains:
        yield name, Chain((Line((Accept(),)),), chain.hook) if name == "origin" else chain


def _swapped_sides(chains, *_):
    found = dict(chains)
    found["leave_port"], found["arrive_port"] = found["arrive_port"], found["leave_port"]
    return found.items()


def _any_reply(chains, *_):
    """The classic: whatever is established passes, whenever it was judged."""
    for name, chain in chains:
        old = tuple(Line(tuple(part for part in line.parts if not _is_fresh(part))) for line in chain.lines)
        yield name, Chain(old if chain.hook else chain.lines, chain.hook)


def _is_fresh(part):
    return type(part).__name__ == "Fresh"


def _set_attribute(module, name, value):
    return lambda patch: patch.setattr(module, name, value)


_SWAPPED = {
    (Direction.INGRESS, 4): Field.FLOW_DESTINATION4,
    (Direction.INGRESS, 6): Field.FLOW_DESTINATION6,
    (Direction.EGRESS, 4): Field.FLOW_SOURCE4,
    (Direction.EGRESS, 6): Field.FLOW_SOURCE6,
}

FAULTS = {
    "a rule opens both families": _set_attribute(lines, "_families", lambda _rule: FAMILIES),
    "a range is one port short": _wrapped(lines, "_range", lambda _m, f, first, last: Between(f, first, last - 1)),
    "a range is one port long": _wrapped(lines, "_range", lambda _m, f, first, last: Between(f, first, last + 1)),
    "a range begins one port late": _wrapped(lines, "_range", lambda _m, f, first, last: Between(f, first + 1, last)),
    "an empty group is everybody": _wrapped(lines, "_peer_matches", _open_when_empty),
    "a rule asks the wrong end": _set_attribute(lines, "FLOW_PEER", _SWAPPED),
    "no untracked form": _set_attribute(parts, "untracked_rule_lines", lambda _rule, _peers: iter(())),
    "a rule for everybody is for nobody": _wrapped(
        lines, "_peer_matches", lambda m, *_: [match for match in m if not isinstance(match, Equal)]
    ),
    "external sources are forgotten": _wrapped(
        lines, "_peer_matches", lambda m, *_: [match for match in m if not getattr(match, "set", "").startswith("x_")]
    ),
    "members are forgotten": _wrapped(
        lines, "_peer_matches", lambda m, *_: [match for match in m if not getattr(match, "set", "").startswith("m_")]
    ),
    "a network is one bit wider": _wrapped(lines, "_peer_matches", _one_bit_wider),
    "an icmp code is ignored": _wrapped(
        lines,
        "_flow_icmp",
        lambda _match, icmp: Between(Field.FLOW_ASKED_PORT, icmp.type << 8, icmp.type << 8 | 0xFF),
    ),
    "egress is always open": _wrapped(parts, "_profile_chains", _always_open),
    "egress is always restricted": _wrapped(parts, "_profile_chains", _always_restricted),
    "only the first group counts": _wrapped(parts, "_profile_chains", _only_first_group),
    "nobody checks for spoofing": _wrapped(base_chains, "routed_chains", _trusting),
    "mid-stream packets may open a flow": _wrapped(base_chains, "routed_chains", _no_parts(NotOpening)),
    "the sides are swapped": _wrapped(base_chains, "routed_chains", _swapped_sides),
    "what is established passes for ever": _wrapped(base_chains, "routed_chains", _any_reply),
    "no change narrows": _set_attribute(delta_module, "_narrows", lambda *_args: False),
    "a removed rule does not narrow": _set_attribute(delta_module, "only_widens", lambda _old, _new: True),
}


@pytest.fixture(autouse=True)
def _nothing_remembered():
    """What the compiler remembers of lines was made without the fault, and must not outlive it."""
    lines._flow_protocol.cache_clear()
    yield
    lines._flow_protocol.cache_clear()


@pytest.mark.full
def test_without_a_fault_there_is_no_difference():
    assert _first_difference() is None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, monkeypatch):
    FAULTS[fault](monkeypatch)
    assert _first_difference() is not None
