"""What is enforced depends on the state alone: every way of saying the same facts gives the same program."""

import random
from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generated import PORTS, rules, snapshots
from policies import cidr
from ringfence.policy.facts import (
    GroupCreated,
    GroupDeleted,
    GroupTakenOff,
    GroupWorn,
    InstanceCreated,
    InstancePlaced,
    RuleAdded,
    RuleDeleted,
    SourceAdded,
    SourceRemoved,
    apply_facts,
)
from ringfence.policy.program.compile import compile_program
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import HostName, Revision
from ringfence.policy.view import resolve_view

pytestmark = pytest.mark.full
DETOUR_SOURCE = cidr("192.0.2.128/25")


def _births(snapshot):
    """Groups and instances with nothing in or on them yet."""
    groups = [GroupCreated(replace(group, rules=(), sources=())) for group in snapshot.groups.values()]
    instances = [
        InstanceCreated(replace(instance, groups=(), interfaces=(), host=None))
        for instance in snapshot.instances.values()
    ]
    return groups + instances


def _threads(snapshot):
    """The facts that make the snapshot, in threads: only within one does the order belong to the state."""
    for group in snapshot.groups.values():
        yield [RuleAdded(group.id, rule) for rule in group.rules]
        yield from ([SourceAdded(group.id, source)] for source in group.sources)
    for instance in snapshot.instances.values():
        yield [InstancePlaced(instance.id, instance.name, instance.host, instance.interfaces, instance.realm)]
        yield from ([GroupWorn(instance.id, group)] for group in instance.groups)


def _woven(threads, rng):
    """One order of all facts that keeps each thread's own."""
    left = [list(thread) for thread in threads if thread]
    while left:
        thread = rng.choice(left)
        yield thread.pop(0)
        left = [each for each in left if each]


def _reached(revisions):
    snapshot = Snapshot()
    for number, facts in enumerate(revisions, start=1):
        snapshot = apply_facts(snapshot, facts, revision=Revision(number))
    return snapshot


def _program(snapshot, host=None):
    return compile_program(resolve_view(snapshot, host), PORTS)


def _in_any_order(facts, rng):
    births = _births(facts)
    rng.shuffle(births)
    return _reached([births, list(_woven(_threads(facts), rng))])


def _one_by_one(facts, rng):
    return _reached([[fact] for fact in (*_births(facts), *_woven(_threads(facts), rng))])


def _with_empty_revisions(facts, rng):
    story = list(chain(_births(facts), _woven(_threads(facts), rng)))
    return _reached([part for fact in story for part in ([fact], [])])


def _all_said_twice(facts, rng):
    """Everything built, taken down to nothing, and built again."""
    build = list(chain(_births(facts), _woven(_threads(facts), rng)))
    take_off = [GroupTakenOff(one.id, group) for one in facts.instances.values() for group in one.groups]
    delete = [GroupDeleted(id_) for id_ in facts.groups]
    return _reached([build, take_off, delete, list(chain(_births(facts), _woven(_threads(facts), rng)))])


EXPANSIONS = [_in_any_order, _one_by_one, _with_empty_revisions, _all_said_twice]


@pytest.mark.parametrize("expansion", EXPANSIONS)
@given(snapshot=snapshots(), seed=st.integers(0, 1 << 32))
def test_every_telling_of_the_same_facts_gives_the_same_program(expansion, snapshot, seed):
    told = expansion(snapshot, random.Random(seed))
    assert _program(told) == _program(snapshot)
    assert _program(told, HostName("h1")) == _program(snapshot, HostName("h1"))


@given(snapshots(), rules(), st.data())
def test_a_detour_leaves_no_trace(snapshot, rule, data):
    group = data.draw(st.sampled_from(sorted(snapshot.groups)))
    instance = data.draw(st.sampled_from(sorted(snapshot.instances)))
    there = [RuleAdded(group, rule), SourceAdded(group, DETOUR_SOURCE)]
    back = [SourceRemoved(group, DETOUR_SOURCE), RuleDeleted(group, rule.id)]
    if group not in snapshot.instances[instance].groups:
        there.append(GroupWorn(instance, group))
        back.append(GroupTakenOff(instance, group))
    away = apply_facts(snapshot, there, revision=Revision(2))
    home = apply_facts(away, back, revision=Revision(3))
    assert _program(home) == _program(snapshot)


@given(snapshots(), st.data())
def test_a_view_holds_no_more_than_its_host_needs(snapshot, data):
    elsewhere = data.draw(st.sampled_from(sorted(snapshot.instances)))
    moved = replace(snapshot.instances[elsewhere], host=HostName("h2"))
    split = replace(snapshot, instances={**snapshot.instances, elsewhere: moved})
    here, whole = resolve_view(split, HostName("h1")), resolve_view(split)
    assert {endpoint.instance for endpoint in here.endpoints} == set(split.instances) - {elsewhere}
    assert here.rules.keys() == {group for endpoint in here.endpoints for group in endpoint.groups}
    assert all(whole.rules[group] == lines for group, lines in here.rules.items())
    assert all(whole.peers[group] == peer for group, peer in here.peers.items())
