"""Whatever was changed: what undoes it leads back, and two states differ by what makes the one of the other."""

from hypothesis import given, settings
from hypothesis import strategies as st

from counts import count
from desk import ORGANISATION, Desk, cidr, tcp
from ringfence.policy.commands import (
    AddRule,
    AddSource,
    Attach,
    CreateGroup,
    DeleteGroup,
    DeleteRule,
    Detach,
    RemoveSource,
)
from ringfence.policy.errors import RingfenceError
from ringfence.policy.facts import apply_facts
from ringfence.policy.snapshot import forked
from ringfence.policy.undo import policy_difference, rewind, undo_of
from ringfence.store.journal import decode_facts, encode_facts

NAMES = ("a", "b", "c")
PEERS = ("10.0.0.0/8", *NAMES)
commands = st.lists(
    st.tuples(
        st.sampled_from(["create", "delete", "rule", "unrule", "source", "unsource", "attach", "detach"]),
        st.sampled_from(NAMES),
        st.sampled_from(PEERS),
        st.integers(0, 2),
    ),
    max_size=25,
)


def command_of(desk, kind, name, peer, number):
    """A command that may or may not be possible by now."""
    groups = {group.name: group for group in desk.snapshot.groups.values()}
    if kind == "create":
        return CreateGroup(name)
    group, instance = groups[name], desk.instance(f"i{number % 2}").id
    source = cidr(f"192.0.2.{number}/32")
    make = {
        "delete": lambda: DeleteGroup(group.id),
        "rule": lambda: AddRule(group.id, tcp(groups[peer].id if peer in NAMES else peer, 80 + number)),
        "unrule": lambda: DeleteRule(group.id, group.rules[number].id),
        "source": lambda: AddSource(group.id, source),
        "unsource": lambda: RemoveSource(group.id, source),
        "attach": lambda: Attach(group.id, instance),
        "detach": lambda: Detach(group.id, instance),
    }
    return make[kind]()


def policy(snapshot):
    groups = {id_: (group.name, set(group.rules), set(group.sources)) for id_, group in snapshot.groups.items()}
    return groups, {id_: set(one.groups) for id_, one in snapshot.instances.items()}


@given(commands)
@settings(max_examples=count(reduced=40, stated=3000))
def test_every_state_can_be_had_back_and_reached_again(sequence):
    desk = Desk()
    for number in range(2):
        desk.add_instance(f"i{number}", f"10.0.0.{number}")
    states, undo = [policy(desk.snapshot)], [()]
    for step in sequence:
        before = desk.snapshot
        try:
            facts = desk.do(command_of(desk, *step))
        except (RingfenceError, KeyError, IndexError):
            continue
        states.append(policy(desk.snapshot))
        undo.append(decode_facts(encode_facts(undo_of(before, facts))))
    now = desk.snapshot
    for number, wanted in enumerate(states):
        back = rewind(forked(now), [fact for each in reversed(undo[number + 1 :]) for fact in each])
        assert policy(back) == wanted
        for one, other in ((now, back), (back, now)):
            facts = policy_difference(one, other, ORGANISATION)
            reached = apply_facts(forked(one), facts, revision=one.revision) if facts else one
            assert policy(reached) == policy(other)
