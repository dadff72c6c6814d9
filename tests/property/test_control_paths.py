"""The state that commands lead to depends on what they say, not on their order, splitting or repetition."""

from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import FULL, count
from desk import H1, H2, Desk, cidr, instance, tcp
from ringfence.policy.commands import AddRule, AddSource, Attach
from ringfence.policy.view import resolve_view

EXAMPLES = count(reduced=100, stated=2000)

GROUPS = ("a", "b")
INSTANCES = ("i1", "i2")

changes = st.lists(
    st.one_of(
        st.tuples(st.just("attach"), st.sampled_from(GROUPS), st.sampled_from(INSTANCES)),
        st.tuples(st.just("source"), st.sampled_from(GROUPS), st.sampled_from(["192.0.2.0/24", "2001:db8::/32"])),
        st.tuples(st.just("rule"), st.sampled_from(GROUPS), st.sampled_from(["10.0.0.0/8", *GROUPS])),
        st.tuples(st.just("claim"), st.sampled_from([H1, H2]), st.just("")),
    ),
    max_size=8,
)


def played(sequence):
    """The views of both hosts after the changes, with rules as a set: their order is the order of coming."""
    desk = Desk()
    ids = {name: desk.create(name) for name in GROUPS}
    claims = {H1: instance("i1", "10.0.0.1"), H2: instance("i2", "10.0.0.2")}
    for host, claim in claims.items():
        desk.claim(host, claim)
    for kind, what, value in sequence:
        match kind:
            case "attach":
                desk.do(Attach(ids[what], desk.instance(value).id))
            case "source":
                desk.do(AddSource(ids[what], cidr(value)))
            case "rule":
                desk.do(AddRule(ids[what], tcp(ids.get(value, value))))
            case "claim":
                desk.claim(what, claims[what])
    return [comparable(resolve_view(desk.snapshot, host), desk, ids) for host in (H1, H2)]


def comparable(view, desk, ids):
    names = {desk.default: "default", **{id_: name for name, id_ in ids.items()}}
    endpoints = {
        (one.name, one.interface, one.addresses, tuple(sorted(names[g] for g in one.groups))) for one in view.endpoints
    }
    rules = {names[g]: {replace(rule, id=desk.default) for rule in rules} for g, rules in view.rules.items()}
    return endpoints, rules, {names[g]: peer for g, peer in view.peers.items()}


@pytest.mark.full
@settings(max_examples=EXAMPLES, deadline=None, derandomize=not FULL)
@given(changes, st.randoms(use_true_random=False))
def test_order_and_repetition_of_additions_do_not_matter(sequence, chance):
    other = list(chain(sequence, chance.sample(sequence, k=len(sequence) // 2)))
    chance.shuffle(other)
    assert played(sequence) == played(other)
