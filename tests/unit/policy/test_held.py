"""An assertion decided over the few who matter: whoever could make it wrong is among them, or everybody is asked."""

from dataclasses import replace

import pytest

from policies import ORGANISATION, group, instance, snapshot
from ringfence.policy.insight.assertions import check, parse_assertion
from ringfence.policy.insight.held import decide, narrowed
from ringfence.policy.insight.reach import Reachability

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
