"""How long it takes to say what a change does to a large fleet. Run by `make bench`; one JSON object on stdout."""

import json
import statistics
import time
from dataclasses import replace

from bench.fleet_policy import fleet_snapshot
from bench.sized import group_id
from policies import rule
from ringfence.policy.insight.grants import Grants
from ringfence.policy.insight.lint_change import new_findings
from ringfence.policy.insight.plan import compare_grants
from ringfence.policy.insight.population import Population
from ringfence.policy.snapshot import Snapshot, indexed
from ringfence.policy.values import Revision

GROUPS, INSTANCES = 1_000, 10_000
BOUND_S = 0.1
ROUNDS = 5


def _with_rules(snapshot, number, change):
    group = snapshot.groups[group_id(number)]
    return _with(snapshot, groups={**snapshot.groups, group.id: replace(group, rules=tuple(change(group.rules)))})


def _with(snapshot, **parts):
    return Snapshot(Revision(2), {}, **{"groups": snapshot.groups, "instances": snapshot.instances, **parts})


def _wearing(snapshot, at, number):
    one = [*snapshot.instances.values()][at]
    worn = replace(one, groups=(*one.groups, group_id(number)))
    return _with(snapshot, instances={**snapshot.instances, one.id: worn})


CHANGES = {
    "nothing": lambda one: one,
    "a role opens a port to the internet": lambda one: _with_rules(
        one, 500, lambda rules: (*rules, rule("ingress tcp/22 from 0.0.0.0/0"))
    ),
    "a shared group opens a port to the internet": lambda one: _with_rules(
        one, 3, lambda rules: (*rules, rule("ingress tcp/22 from 0.0.0.0/0"))
    ),
    "a role loses a rule": lambda one: _with_rules(one, 501, lambda rules: rules[1:]),
    "a shared group loses a rule": lambda one: _with_rules(one, 4, lambda rules: rules[1:]),
    "a role gets an egress rule": lambda one: _with_rules(
        one, 502, lambda rules: (*rules, rule("egress tcp/443 to 0.0.0.0/0"))
    ),
    "an instance wears another role": lambda one: _wearing(one, 77, 503),
    "an instance wears a shared group": lambda one: _wearing(one, 78, 5),
}


def _timed(run):
    began_s = time.perf_counter()
    found = run()
    return time.perf_counter() - began_s, found


def test_what_a_change_does_to_a_large_fleet_is_said_in_time():
    before = indexed(fleet_snapshot(GROUPS, INSTANCES))
    found = {}
    for name, change in CHANGES.items():
        after = indexed(change(before))
        made_s, grants = _timed(lambda a=after: _ready(before, a))
        runs = [_timed(lambda g=grants: compare_grants(*g)) for _ in range(ROUNDS)]
        found[name] = {
            "making_ready_s": round(made_s, 2),
            "median_ms": round(statistics.median(took for took, _ in runs) * 1000, 1),
            "first_ms": round(runs[0][0] * 1000, 1),
            "lint_ms": round(_timed(lambda g=grants: new_findings(*g))[0] * 1000, 1),
            "opens": len(runs[0][1].opens),
            "closes": len(runs[0][1].closes),
        }
    not_met = [name for name, one in found.items() if one["first_ms"] > BOUND_S * 1000]
    print(json.dumps({"groups": GROUPS, "instances": INSTANCES, "changes": found, "not_met": not_met}, indent=2))  # noqa: T201  the bench's result


def _ready(before, after):
    population = Population(before, after)
    return Grants(population, 0), Grants(population, 1)
