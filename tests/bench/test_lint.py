"""How long lint takes over a large fleet's policy. Run by `make bench`; one JSON object on stdout."""

import json
import time
from collections import Counter

from bench.fleet_policy import fleet_snapshot
from ringfence.policy.insight.lint_reach import lint
from ringfence.policy.insight.reach import Reachability
from ringfence.policy.snapshot import indexed

GROUPS, INSTANCES = 1_000, 10_000


def test_lint_of_a_large_fleet():
    snapshot = indexed(fleet_snapshot(GROUPS, INSTANCES))
    reachability = Reachability(snapshot)
    began_s = time.perf_counter()
    findings = lint(reachability)
    took_s = time.perf_counter() - began_s
    counted = Counter(one.code.value for one in findings)
    shown = {"groups": GROUPS, "instances": INSTANCES, "lint_s": round(took_s, 2), "findings": dict(counted)}
    print(json.dumps(shown, indent=2))  # noqa: T201  the bench's result
    assert counted["shadowed"]
