"""An assertion decided over the few who matter: whoever could make it wrong is among them, or everybody is asked."""

# ruff: noqa: E501  a row of a table is one line

from dataclasses import replace

import pytest

from policies import ORGANISATION, group, instance, snapshot
from ringfence.policy.insight import held_change
from ringfence.policy.insight.assertions import check, find_worse, parse_assertion
from ringfence.policy.insight.held import decide, narrowed
from ringfence.policy.insight.reach import Reachability
from ringfence.policy.snapshot import indexed

DB = instance("db-1", "192.0.2.3", wears=("db",))
APP = instance("app-1", "192.0.2.4", wears=("app",))
SHUT = group("app", "egress udp/53 to 9.9.9.9/32")
OTHERS = tuple(instance(f"other-{number}", f"192.0.2.{number}", wears=("other",)) for number in range(10, 20))


@pytest.mark.parametrize(
    ("assertion", "things", "holds"),
    [
        ("any -> db tcp/22 deny", (group("db", "ingress tcp/22 from group app"), group("app")), False),
        ("any -> db tcp/22 deny", (group("db", "ingress tcp/22 from group app"), SHUT), True),
        ("any -> db tcp/22 deny", (group("db", "ingress tcp/22 from 192.0.2.4/32"), group("app")), False),
        ("any -> db tcp/22 deny", (group("db", "ingress tcp/22 from 192.0.2.4/32"), SHUT), True),  # nobody else has it
        ("any -> db tcp/22 deny", (group("db", "ingress tcp/23 from 0.0.0.0/0"), group("app")), True),
        ("app -> db tcp/5432 allow", (group("db", "ingress tcp/5432 from group app"), group("app")), True),
        ("app -> db tcp/5432 allow", (group("db", "ingress tcp/5432 from group app"), SHUT), False),
        ("internet -> any tcp/22 deny", (group("db", "ingress tcp/22 from 0.0.0.0/0"), SHUT), False),
        ("internet -> any tcp/22 deny", (group("db", "ingress tcp/22 from 192.0.2.0/24"), SHUT), False),
        ("192.0.2.4/32 -> any tcp/22 deny", (group("db", "ingress tcp/22 from 192.0.2.0/24"), SHUT), True),
    ],
)
def test_the_few_decide_as_all_do(assertion, things, holds):
    made = parse_assertion(assertion, field="it")
    policy = snapshot(*things, group("other"), DB, APP, *OTHERS)
    assert (decide(policy, made, ORGANISATION) is None) is holds
    assert (check(Reachability(policy), made).witness is None) is holds
    assert len(narrowed(policy, made, ORGANISATION).instances) <= 2


def test_an_observed_instance_lets_everybody_in():
    watched = replace(DB, observe=True)
    policy = snapshot(group("db"), group("app"), group("other"), watched, APP, *OTHERS)
    for text in ("internet -> any tcp/22 deny", "any -> db tcp/22 deny"):
        assert decide(policy, parse_assertion(text, field="it"), ORGANISATION) is not None


@pytest.mark.parametrize("text", ["any -> any tcp/22 deny", "any -> db tcp/22 allow", "any -> internet tcp/25 deny"])
def test_where_anybody_could_make_it_wrong_everybody_is_asked(text):
    policy = snapshot(group("db"), group("app"), DB, APP)
    assert narrowed(policy, parse_assertion(text, field="it"), ORGANISATION) is None


APP_2 = instance("app-2", "192.0.2.5", wears=("app",))
FLEET = (DB, APP, APP_2, *OTHERS)
OPEN = group("db", "ingress tcp/22 from group app")
WORLD = group("db", "ingress tcp/22 from 0.0.0.0/0")
WATCHED = replace(max(OTHERS, key=lambda one: one.id), observe=True)
RESTRICTED = group("other", "egress udp/53 to 9.9.9.9/32")


@pytest.mark.parametrize(
    ("assertion", "before", "after", "holds", "most"),
    [
        ("any -> any tcp/22 deny", (group("db"),), (group("db", "ingress tcp/23 from 0.0.0.0/0"),), True, 0),
        ("any -> any tcp/22 deny", (group("db"),), (group("db", "ingress tcp/22 from 0.0.0.0/0"),), False, 1),
        ("any -> any tcp/22 deny", (group("db"),), (OPEN,), False, 3),
        ("any -> any tcp/22 deny", (group("db"), SHUT), (OPEN, SHUT), True, 3),
        ("any -> any tcp/22 deny", (OPEN, SHUT), (OPEN, group("app")), False, 3),
        ("any -> app tcp/22 deny", (group("db"),), (OPEN,), True, 0),
        ("internet -> any tcp/22 deny", (group("db"),), (group("db", "ingress tcp/22 from 10.0.0.0/8"),), True, 1),
        # Nobody has the one address that may come but somebody who may not send.
        ("any -> any tcp/22 deny", (group("db"), RESTRICTED), (group("db", "ingress tcp/22 from 192.0.2.12/32"), RESTRICTED), True, 11),
        ("any -> db tcp/22 allow", (OPEN,), (group("db"),), False, 3),  # it was wrong of all others before
        ("app -> db tcp/22 allow", (OPEN,), (group("db"),), False, 3),
        ("app -> any udp allow", (group("db"),), (group("db"), SHUT), False, 3),
        ("any -> db tcp/22 deny", (OPEN, SHUT), (OPEN, SHUT, replace(DB, observe=True)), False, 3),
        ("other -> db tcp/22 deny", (OPEN,), (OPEN, replace(OTHERS[0], groups=(group("other").id, group("app").id))), False, 12),
        ("any -> any tcp/22 deny", (OPEN,), (OPEN, replace(OTHERS[0], groups=(group("other").id, group("app").id))), False, 4),
        ("internet -> db tcp/22 deny", (OPEN,), (OPEN, group("app", "source 203.0.113.0/24")), False, 1),
        # Whom the assertion means is another matter than what passes.
        ("app -> db tcp/22 deny", (WORLD,), (WORLD, group("app", "source 203.0.113.0/24")), False, 14),
        ("any -> db tcp/22 allow", (WORLD, SHUT), (WORLD, SHUT, replace(OTHERS[0], groups=(group("db").id,))), False, 4),
        # Ten are treated alike, but the one that is observed.
        ("other -> other tcp/22 deny", (group("other"),), (group("other", "ingress tcp/22 from group other"),), False, 2),
        ("app -> any tcp/22 deny", (group("other"),), (group("other", "ingress tcp/22 from group db"), WATCHED), False, 6),
        ("other -> db tcp/22 deny", (group("db"),), (group("db", "ingress tcp/22 from group other"),), False, 3),
    ],
)  # fmt: skip
def test_a_change_is_decided_over_the_few_whom_it_touches(monkeypatch, assertion, before, after, holds, most):
    seen = []

    def looked_at(one, two, *rest, **more):
        seen.append(len(two.instances))
        return find_worse(one, two, *rest, **more)

    monkeypatch.setattr(held_change, "find_worse", looked_at)
    monkeypatch.setattr(held_change, "_FEW", 3)
    made = parse_assertion(assertion, field="it")
    old, new = (_fleet(*things) for things in (before, after))
    found = held_change.find_worse_by(held_change.Change(old, new), made, ORGANISATION)
    assert (found is None) is holds
    assert (find_worse(old, new, made, owner=ORGANISATION) is None) is holds
    assert max(seen, default=0) <= most


def _fleet(*things):
    """The things, and of the fleet whatever is none of them."""
    named = {one.id for one in things}
    rest = (group("db"), group("app"), group("other"), *FLEET)
    return indexed(snapshot(*things, *(one for one in rest if one.id not in named)))
