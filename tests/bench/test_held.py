"""What assertions cost a change of a large fleet's policy. Run by `make bench`; one JSON object on stdout."""

import json
import statistics
import time
from dataclasses import replace
from uuid import UUID

from bench.fleet_policy import fleet_snapshot
from bench.sized import group_id
from policies import ORGANISATION, cidr
from ringfence.policy.facts import RuleAdded, apply_facts
from ringfence.policy.index import indexed
from ringfence.policy.insight.held import find_broken
from ringfence.policy.model import Organisation, Rule
from ringfence.policy.values import Direction, Protocol

GROUPS, INSTANCES, ROUNDS = 1_000, 10_000, 20
# These hold of the fleet, and the rule that is added concerns all but the first two.
HELD = {
    "none": (),
    "of other ports": ("any -> g500 tcp/6000 deny",),
    "who may come to a role": ("any -> g500 tcp/1-21 deny",),
    "what the internet may ask of all": ("internet -> any gre deny",),
    "anybody at both ends": ("any -> any gre deny",),
}


def _rule(number, port, protocol=Protocol.TCP):
    ports = (port, port) if protocol.has_ports else (None, None)
    return Rule(UUID(int=1 << 100 | number), Direction.INGRESS, protocol, cidr("203.0.113.0/24"), *ports)


def _cost_s(snapshot, held, facts):
    organisation = replace(snapshot.organisations[ORGANISATION], assertions=held)
    whole = replace(snapshot, organisations={ORGANISATION: organisation})
    after = apply_facts(whole, facts, revision=2)
    began_s = time.perf_counter()
    find_broken(whole, after, facts, ORGANISATION)
    return time.perf_counter() - began_s


def test_what_assertions_cost_a_change_of_a_large_fleet():
    fleet = fleet_snapshot(GROUPS, INSTANCES)
    found = {}
    for name, held in HELD.items():
        protocol = Protocol.GRE if "gre" in "".join(held) else Protocol.TCP
        rounds = 3 if name == "anybody at both ends" else ROUNDS
        snapshot = indexed(replace(fleet, organisations={ORGANISATION: Organisation(ORGANISATION, "o", group_id(0))}))
        facts = [RuleAdded(group_id(400), _rule(1, 20, protocol))]
        runs = [_cost_s(snapshot, held, facts) for _ in range(rounds)]
        found[name] = {"held": held, "median_ms": round(statistics.median(runs) * 1000, 3)}
    print(json.dumps({"groups": GROUPS, "instances": INSTANCES, "a_rule_added": found}, indent=2))  # noqa: T201  its result
    assert found["none"]["median_ms"] < found["who may come to a role"]["median_ms"]
