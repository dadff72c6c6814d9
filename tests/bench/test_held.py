"""What assertions cost a change of a large fleet's policy. Run by `make bench`; one JSON object on stdout."""

import json
import statistics
import time
from dataclasses import replace
from uuid import UUID

from bench.fleet_policy import fleet_snapshot
from bench.sized import group_id
from policies import ORGANISATION, cidr
from ringfence.policy.facts import GroupWorn, RuleAdded, apply_facts
from ringfence.policy.insight.held import find_broken
from ringfence.policy.model import Organisation, Rule
from ringfence.policy.snapshot import indexed
from ringfence.policy.values import Direction, Protocol

GROUPS, INSTANCES, ROUNDS = 1_000, 10_000, 20
# These hold of the fleet, and the changes concern all but the first two.
HELD = {
    "none": (),
    "of other ports": ("any -> g500 tcp/6000 deny",),
    "who may come to a role": ("any -> g400 gre deny",),
    "what a role may reach": ("g400 -> any gre deny",),
    "what the internet may ask of all": ("internet -> any gre deny",),
    "anybody at both ends": ("any -> any gre deny",),
}


def _rule(number, protocol):
    return Rule(UUID(int=1 << 100 | number), Direction.INGRESS, protocol, cidr("203.0.113.0/24"))


def _cost_s(snapshot, held, facts):
    organisation = replace(snapshot.organisations[ORGANISATION], assertions=held)
    whole = replace(snapshot, organisations={ORGANISATION: organisation})
    after = apply_facts(whole, facts, revision=2)
    began_s = time.perf_counter()
    find_broken(whole, after, ORGANISATION)
    return time.perf_counter() - began_s


def test_what_assertions_cost_a_change_of_a_large_fleet():
    fleet = fleet_snapshot(GROUPS, INSTANCES)
    snapshot = indexed(replace(fleet, organisations={ORGANISATION: Organisation(ORGANISATION, "o", group_id(0))}))
    stranger = next(one for one in fleet.instances.values() if group_id(400) not in one.groups)
    changes = {
        "a_rule_added": [RuleAdded(group_id(400), _rule(1, Protocol.GRE))],
        "an_instance_attached": [GroupWorn(stranger.id, group_id(400))],
    }
    found = {
        name: {
            kind: round(statistics.median(_cost_s(snapshot, held, facts) for _ in range(ROUNDS)) * 1000, 3)
            for kind, held in HELD.items()
        }
        for name, facts in changes.items()
    }
    print(json.dumps({"groups": GROUPS, "instances": INSTANCES, "held": HELD, "median_ms": found}, indent=2))  # noqa: T201  its result
    assert found["a_rule_added"]["none"] < found["a_rule_added"]["who may come to a role"]
